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

    #: Chains of every kernel; the last state of each is an output, so outputs are independent of one another.
    num_chains: int = 500
    #: Warmup steps, kept draws a chain, and steps for each of them.
    mh_steps: tuple[int, int, int] = (300, 100, 20)
    mala_steps: tuple[int, int, int] = (500, 150, 20)
    hmc_steps: tuple[int, int, int] = (100, 200, 2)
    #: Few: ten steps of the length that adaptation finds would come back to where they started.
    leapfrog_steps: int = 3
    resampler_draws: int = 200_000
    check_draws: int = 100_000

    #: Folds of the residual AUC.
    num_folds: int = 3


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
        gan_eval_every=100,
        gan_patience=2,
        gan_max_steps=400,
        ratio_eval_every=5,
        ratio_max_steps=100,
        num_chains=200,
        mh_steps=(20, 20, 1),
        mala_steps=(20, 20, 1),
        hmc_steps=(8, 8, 1),
        leapfrog_steps=2,
        resampler_draws=20_000,
        check_draws=20_000,
        num_folds=2,
    )
