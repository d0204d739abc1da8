"""The numbers of the demo, at full size and small."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Settings", "settings"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run does, but for the versions of what it runs on."""

    seed: int = 0
    device: str = "cpu"
    quick: bool = False

    #: Digits that train the GAN, and that make the ratios and tell when the GAN has reached its plateau; the rest
    #: judge.
    num_gan: int = 797
    num_ratio: int = 500

    #: Latent dimensions, and width of the two hidden layers of the GAN's networks.
    latent_dim: int = 32
    width: int = 256
    #: Dropout of the GAN's critic and of the fresh one.
    gan_dropout: float = 0.5
    ratio_dropout: float = 0.5
    learning_rate: float = 1e-3
    batch_size: int = 128
    #: Weight of the old in the running average of the generator's weights, which is the generator kept.
    averaging: float = 0.998
    gan_eval_every: int = 250
    #: Evaluations without a lower held-out Frechet distance before training ends, and steps at most.
    gan_patience: int = 8
    gan_max_steps: int = 15_000

    ratio_eval_every: int = 25
    ratio_max_steps: int = 3000
    #: Smallest effective share of the generator's draws that the fresh ratio must leave.
    min_ess_fraction: float = 0.1

    #: Outputs of every sampler: of chains the last state of each, so that outputs are independent of one another.
    num_chains: int = 500
    #: What a chain may cost, and so an output: a forward of both networks counts 1, a gradient 2. A whole number of
    #: steps of every kernel.
    chain_cost: int = 7200
    #: Draws kept of each chain, for its diagnostics.
    num_draws: int = 100
    #: Few: ten steps of the length that adaptation finds would come back to where they started.
    leapfrog_steps: int = 3
    resampler_draws: int = 200_000
    #: Mean acceptance of budgeted rejection.
    budget: float = 0.3
    check_draws: int = 100_000

    #: Folds of the residual AUC.
    num_folds: int = 3

    def steps(self, cost_of_a_step: int) -> tuple[int, int, int]:
        """Return warmup steps, draws, and steps for each: all that the cost allows, about .7 of it after warmup."""
        steps = self.chain_cost // cost_of_a_step
        thin = max(1, round(0.7 * steps / self.num_draws))
        return steps - thin * self.num_draws, self.num_draws, thin


def settings(*, seed: int = 0, device: str = "cpu", quick: bool = False) -> Settings:
    """Return the demo's settings.

    Args:
        seed: Of the split, and of everything that scikit-learn draws; torch is seeded by the caller.
        device: Where networks and chains live.
        quick: Go through every stage in seconds; the figures are then worth nothing.

    Returns:
        The settings.
    """
    full = Settings(seed=seed, device=device)
    if not quick:
        return full
    return replace(
        full,
        quick=True,
        averaging=0.98,
        gan_eval_every=50,
        gan_patience=2,
        gan_max_steps=200,
        ratio_eval_every=5,
        ratio_max_steps=50,
        num_chains=100,
        chain_cost=60,
        num_draws=6,
        leapfrog_steps=2,
        resampler_draws=20_000,
        check_draws=20_000,
        num_folds=2,
    )
