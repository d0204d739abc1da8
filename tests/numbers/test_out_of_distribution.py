"""Likelihoods as a detector of foreign images: a model of one digit scores that digit, the others and other data.

Run `python -m tests.numbers.test_out_of_distribution` in the root of the repository to make its picture.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import toys
from pyro_gan.likelihood import (
    AnnealedImportance,
    Coupling,
    EntropicModel,
    ImportanceWeighted,
    Laplace,
    LinearGaussian,
    Surrogate,
)
from pyro_gan.objectives import EntropicTransport, fit_gan
from tests import zoo
from tests.numbers.size import SEEDS

__all__ = ["auc", "cifar10", "draw", "fashion", "fit", "image_sets", "scores"]

pytestmark = [pytest.mark.numbers, pytest.mark.filterwarnings("ignore:.*effective sample size")]
LAMBDA, LATENT, NUM_STEPS, NUM_IMAGES, NUM_ANNEALED = 1.0, 8, 500, 200, 10
SHARP = ("other_digits", "fashion", "cifar10")
FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")  # of Debian's dataset-fashion-mnist


class Fitted(NamedTuple):
    """A model of one digit, the potential of its training, and a linear model with as many latents."""

    model: EntropicModel
    potential: Coupling
    linear: LinearGaussian


def fashion() -> Tensor | None:
    """Return the test images of Fashion-MNIST, or None where Debian's package is not installed."""
    if not FASHION.exists():
        return None
    with gzip.open(FASHION) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return torch.as_tensor(images.astype(np.float32)) / 127.5 - 1


def cifar10() -> Tensor:
    """Return 1 000 test images of CIFAR-10, grey and 28 by 28."""
    from PIL import Image

    with Image.open(zoo.zoo_path("cifar10/cifar10_batch_50.png")) as file:
        rgb = torch.as_tensor(np.asarray(file.convert("RGB")).reshape(1000, 32, 32, 3).astype(np.float32))
    grey = (rgb @ torch.tensor([0.299, 0.587, 0.114]))[:, None] / 127.5 - 1
    return nn.functional.interpolate(grey, size=(28, 28), mode="bilinear", antialias=True)


def some(images: Tensor) -> Tensor:
    """Draw 200 at random; the files are ordered."""
    return images[torch.randperm(len(images))[:NUM_IMAGES]]


def image_sets(digit: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the training images of a digit and the sets to score, held-out images of the digit first."""
    train, test = zoo.mnist_train(), zoo.mnist_test()
    data = train.images[train.labels == digit]
    held_out = some(test.images[test.labels == digit])
    foreign = {"fashion": fashion(), "cifar10": cifar10()}
    mean = data.mean(0, keepdim=True)
    padded = nn.functional.pad(held_out, (1, 1, 1, 1), value=-1.0)
    sets = {
        "held_out": held_out,
        "train": some(data),
        "other_digits": some(test.images[test.labels != digit]),
        "ones": some(test.images[test.labels == 1]),
        **{name: some(images) for name, images in foreign.items() if images is not None},
        "blurred": nn.functional.avg_pool2d(padded, 3, 1),
        "blank": torch.full_like(mean, -1.0),
        "mean_image": mean,
    }
    return data, sets


def fit(data: Tensor) -> Fitted:
    """Train a generator by entropic transport, half a minute at most; the linear model has a closed form."""
    prior = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1)
    layers = toys.MLP([LATENT, 128, 256, 784])
    generator = nn.Sequential(layers, nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
    critic = nn.Sequential(nn.Flatten(), toys.MLP([784, 128, 1]))
    objective = EntropicTransport(regularization=LAMBDA)
    adams = [torch.optim.Adam(player.parameters(), lr=1e-3, betas=(0.5, 0.99)) for player in (generator, critic)]
    fitted = fit_gan(
        generator, critic, prior=prior, data=data, objective=objective, generator_optimizer=adams[0],
        critic_optimizer=adams[1], num_steps=NUM_STEPS, batch_size=128, averaging=0.99, progress=False,
    )  # fmt: skip
    model = EntropicModel(fitted.generator, prior, regularization=LAMBDA)
    # The maximum likelihood fit of a linear generator for this noise: the leading directions, minus its variance.
    rows = data.flatten(1).double()
    variance, directions = torch.linalg.eigh(torch.cov(rows.T))
    weight = directions[:, -LATENT:] * (variance[-LATENT:] - LAMBDA / 2).clamp(min=0).sqrt()
    return Fitted(model, Coupling(objective.potential(critic)), LinearGaussian(weight, rows.mean(0), LAMBDA))


def auc(inside: Tensor, outside: Tensor) -> float:
    """Return how often an image of the class scores above a foreign one."""
    above = inside[:, None] > outside
    return float((above.double() + 0.5 * (inside[:, None] == outside)).mean())


def scores(digit: int) -> dict[str, dict[str, Tensor]]:
    """Train a model of a digit and score all sets of images by all estimators; AIS scores a few images of some sets."""
    data, sets = image_sets(digit)
    model, potential, linear = fit(data)

    def by_set(values: Tensor, of: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(of, values.split([len(images) for images in of.values()]), strict=True))

    y = torch.cat(list(sets.values()))
    few = {name: images[:NUM_ANNEALED] for name, images in sets.items() if name in ("held_out", *SHARP)}
    weighted = ImportanceWeighted(Laplace(num_steps=200), num_particles=200)
    annealed = AnnealedImportance(num_temperatures=300)
    return {
        "IW Laplace": by_set(weighted(model, y).value, sets),
        "surrogate": by_set(Surrogate(potential, num_particles=5000)(model, y).value, sets),
        "linear": by_set(linear.log_prob(y.flatten(1).double()), sets),
        "distance to the mean": by_set(-(y - data.mean(0)).flatten(1).square().sum(-1), sets),
        "AIS": by_set(annealed(model, torch.cat(list(few.values()))).value, few),
    }


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("digit", [1, 8])
def test_a_model_of_one_digit(digit: int, seed: int, figure) -> None:
    """All models, the linear one too, tell an easy class from sharp images; smooth images never look foreign."""
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    of = scores(digit)
    aucs = {name: {other: auc(values["held_out"], values[other]) for other in values} for name, values in of.items()}
    nats = {name: {other: float(value.mean()) for other, value in values.items()} for name, values in of.items()}
    for name, values in of.items():
        settings = {"digit": digit, "seed": seed, "score": name, "images": len(values["held_out"])}
        # A missing set is None: Fashion-MNIST is not part of the zoo.
        figure("out of distribution", **settings, **{"fashion": None, **aucs[name]})
        figure("out of distribution, nats", **settings, **{"fashion": None, **nats[name]})
    off = {name: float((value - of["IW Laplace"][name][: len(value)]).mean()) for name, value in of["AIS"].items()}
    figure("out of distribution, AIS less IW Laplace", digit=digit, seed=seed, **off)

    assert all(bool(value.isfinite().all()) for values in of.values() for value in values.values())
    sharp = [name for name in SHARP if name in of["linear"]]
    for name in ("IW Laplace", "surrogate"):
        for other in sharp:
            assert aucs[name][other] > (0.97 if digit == 1 else 0.65), (name, other)
            # The linear model, with an exact likelihood, separates them as well.
            assert abs(aucs[name][other] - aucs["linear"][other]) < 0.1, (name, other)
        # 4.4 standard errors for 200 against 200 from one distribution, and a little for overfitting.
        assert abs(aucs[name]["train"] - 0.5) < 0.15, name
        # The failures: images that are smoother than the class are likelier than the class.
        assert aucs[name]["mean_image"] < 0.1 and aucs[name]["blurred"] < 0.4, name
    if digit == 8:
        assert aucs["IW Laplace"]["ones"] < 0.5 and aucs["IW Laplace"]["blank"] < 0.1
    # The surrogate is looser far out: part of its separation is its own error.
    gap = {name: nats["IW Laplace"][name] - nats["surrogate"][name] for name in ("held_out", "cifar10")}
    assert gap["cifar10"] > gap["held_out"]


def draw() -> None:
    """Draw the histograms of both models."""
    import matplotlib.pyplot as plt

    from tests.numbers.pictures import save

    colors = {
        "held_out": "#0072b2", "ones": "#cc3311", "other_digits": "#e69f00", "fashion": "#009e73", "cifar10": "#999999"
    }  # fmt: skip
    bins = torch.linspace(-1300, -440, 87).tolist()
    panels, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    for ax, digit in zip(axes, (1, 8), strict=True):
        pyro.set_rng_seed(0)
        of = scores(digit)["IW Laplace"]
        for name, color in colors.items():
            if name in of and not (digit == 1 and name == "ones"):
                label = f"held-out {digit}s" if name == "held_out" else name.replace("_", " ")
                ax.hist(of[name].tolist(), bins, density=True, color=color, alpha=0.55, label=label)
        ax.axvline(float(of["blank"]), color="black", linewidth=1, label="blank image")
        ax.axvline(float(of["mean_image"]), color="black", linewidth=1, linestyle=":", label="mean image")
        ax.set(title=f"a model of the digit {digit}", xlabel="log likelihood, nats", yticks=[], xlim=(-1250, -430))
        ax.legend(fontsize=8, loc="upper left")
    panels.tight_layout()
    save(panels, "out_of_distribution.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw()
