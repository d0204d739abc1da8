"""The numbers that differ between a full run of the demo and a quick one."""

from __future__ import annotations

from typing import Any, NamedTuple, final

from pyro_gan import checks

__all__ = ["Settings", "settings"]


@final
class Settings(NamedTuple):
    """The size of a run."""

    seed: int = 0
    device: str = "cpu"
    quick: bool = False

    #: Weight of the old value in the running average of the generator's weights. The average is the generator kept.
    averaging: float = 0.998
    gan_eval_every: int = 250
    gan_max_steps: int = 15_000
    ratio_max_steps: int = 3000
    #: Outputs of every sampler. A chain gives its last state, so that outputs are independent of one another.
    num_chains: int = 500
    #: Budget of a chain, and so of an output: a forward pass of both networks counts 1, a gradient 2 more. It is a
    #: whole number of steps of every kernel.
    chain_cost: int = 7200
    #: Draws kept of each chain, for its diagnostics.
    num_draws: int = 100
    #: Prior draws for the resampler, and for the weights of a ratio.
    num_prior_draws: int = 200_000

    def steps(self, cost_of_a_step: int) -> dict[str, Any]:
        """Return the schedule of a chain. It uses the whole budget, about 70 % of it after warmup."""
        steps = self.chain_cost // cost_of_a_step
        thin = max(1, round(0.7 * steps / self.num_draws))
        warmup = steps - thin * self.num_draws
        return {"num_samples": self.num_draws, "warmup_steps": warmup, "thin": thin}


def settings(*, seed: int = 0, device: str = "cpu", quick: bool = False) -> Settings:
    """Return the demo's settings.

    Args:
        seed: Seed of the split and of scikit-learn. The caller seeds torch.
        device: Device of networks and chains.
        quick: Run every stage in seconds. The figures of such a run mean nothing.

    Returns:
        The settings.

    Raises:
        ValueError: if the seed is no whole number of at least 0.
    """
    full = Settings(checks.count("seed", seed, minimum=0), device, quick)
    if not quick:
        return full
    small = full._replace(averaging=0.98, gan_eval_every=50, gan_max_steps=200, ratio_max_steps=50)
    return small._replace(num_chains=100, chain_cost=90, num_draws=6, num_prior_draws=20_000)
