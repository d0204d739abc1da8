"""Draw the pictures that need training: `python -m tests.numbers.pictures`, in the source's folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from tests.numbers.pairs import CHOSEN, METHODS, NEAR_OPTIMUM, Distances, parallel_planes
from tests.numbers.test_training import gaussians25_pair, outputs, roll_pair

__all__ = ["draw_parallel_planes", "draw_points"]

COLORS = {
    "saturating GAN": "#999999",
    "NS-GAN": "#0072b2",
    "NS-GAN + GP": "#56b4e9",
    "DRAGAN-NS": "#009e73",
    "WGAN-GP": "#d55e00",
}


def save(figure: Any, name: str) -> None:
    """Write a picture with a palette of 128 colours, which makes it a third of the size."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, bbox_inches="tight")
    picture = Image.open(buffer).convert("RGB").quantize(128)
    picture.save(Path("docs/_static") / name, optimize=True)


def draw_points() -> None:
    """Draw both pairs in the plane: data, the generator alone, and outputs resampled by both ratios."""
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(2, 4, figsize=(11, 5.6))
    for axes, make in zip(rows, (gaussians25_pair, roll_pair), strict=True):
        pair, real, held_out = make(0)
        pyro.set_rng_seed(0)
        shown: dict[str, Tensor] = {"data": held_out}
        shown.update({name: x for name, (x, _) in outputs(pair, real).items()})
        limit = 1.15 * float(held_out.abs().max())
        for ax, (name, x) in zip(axes, shown.items(), strict=True):
            ax.scatter(*x[:5000].T.numpy(), s=0.4, color="black", linewidths=0)
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal", title=name)
    figure.tight_layout()
    save(figure, "training_plane.png")


def draw_parallel_planes() -> None:
    """Draw the distance to the data during training, for three seeds of every objective, by critic and dimensions."""
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(CHOSEN), 2, figsize=(10, 6.4), sharex=True, sharey="row")
    for axes, ((latent_dim, dim), chosen) in zip(rows, CHOSEN.items(), strict=True):
        for method in METHODS:
            settings = {"critic near its optimum": NEAR_OPTIMUM, "tuned": chosen[method]}
            for ax, (title, (rate, critic_steps)) in zip(axes, settings.items(), strict=True):
                for seed in (0, 1, 2):
                    path: list[tuple[int, Distances]] = []
                    parallel_planes(
                        method, seed, latent_dim=latent_dim, dim=dim, rate=rate, critic_steps=critic_steps, path=path
                    )
                    ax.plot(
                        [updates for updates, _ in path],
                        [distances.transport for _, distances in path],
                        color=COLORS[method],
                        linewidth=1.2,
                        label=method if seed == 0 else None,
                    )
                ax.set(yscale="log", title=f"{title}; planes of {latent_dim} in {dim} dimensions")
        axes[0].set_ylabel("W2 to the data")
    for ax in rows[-1]:
        ax.set_xlabel("updates of both players")
    rows[0][0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, "training_planes.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw_parallel_planes()
    draw_points()
