"""The probe: every door refuses what couples rows, draws noise, writes into its input, or moves statistics."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, LogRatio, VectorizedMCMC, calibrate, fit_log_ratio
from pyro_gan.latent import LatentPrior
from pyro_gan.mcmc import MALA
from pyro_gan.objectives import KLIEP
from pyro_gan.targets import make_target

NORMAL = dist.Normal(torch.zeros(2), 1.0).to_event(1)


class MinibatchDeviation(nn.Module):
    """The standard deviation over groups of four rows as one more input, in a critic of progressive GANs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(min(4, len(x)), -1, 2)
        return x @ self.weight + groups.std(0, unbiased=False).mean(1).repeat(len(groups))


def writing(write: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    def critic(x: Tensor) -> Tensor:
        write(x)
        return x.sum(-1)

    return critic


NARROW = nn.Linear(2, 1)
BAD = {
    "minibatch deviation": (MinibatchDeviation(), "other rows|any number of rows"),
    "statistics of the batch": (lambda x: (x - x.mean(0)).sum(-1), "other rows"),
    "small statistics": (lambda x: 1e-4 * (x - x.mean(0)).sum(-1), "other rows"),
    "pairs": (lambda x: x.reshape(-1, 2, 2).sum(2).flatten(), "any number of rows; got an error for 3"),
    "squeeze": (lambda x: NARROW(x).squeeze(), "for 1 of them.*squeeze"),
    "division": (writing(lambda x: x.div_(2)), "writes into it"),
    "a clamp far out": (writing(lambda x: x.clamp_(-100, 100)), "writes into it"),
    "subtraction": (writing(lambda x: x.sub_(1)), "writes into it"),
    "a write through NumPy": (writing(lambda x: x.numpy().fill(0)), "writes into it"),
    "noise": (lambda x: x.sum(-1) + 0.1 * torch.randn(len(x)), "noise of their own"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_door_refuses(name: str) -> None:
    critic, message = BAD[name]
    real, generated = torch.randn(600, 2) + 1, torch.randn(600, 2)
    doors: list[Callable[[], object]] = [
        lambda: LatentPosterior(nn.Identity(), critic, NORMAL),
        lambda: LatentPosterior(nn.Linear(2, 2), critic, NORMAL),
        lambda: calibrate(critic, real, generated),
        lambda: LogRatio.normalised(critic, KLIEP(), generated=generated),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=message):
            door()


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("pairs", "squeeze", "small statistics")])
def test_a_bare_potential_is_tried_where_its_chains_start(name: str) -> None:
    critic, message = BAD[name]
    kernel = MALA(potential_fn=lambda params: critic(params["z"]))
    for start in (torch.zeros(5, 2), torch.randn(5, 2)):
        state = torch.get_rng_state()
        with pytest.raises(ValueError, match=message):
            VectorizedMCMC(kernel, 2, 2, {"z": start}, num_chains=5, disable_progbar=True).run()
        if name != "noise":
            assert torch.equal(state, torch.get_rng_state())


def training() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


HIDDEN = {
    "lambda": lambda network: lambda z: network(z),
    "partial": lambda network: functools.partial(lambda inner, z: inner(z), network),
    "method": lambda network: network.forward,
}


@pytest.mark.parametrize("hide", HIDDEN)
def test_a_network_in_training_mode_behind_a_function_is_found_and_left_as_it_was(hide: str) -> None:
    network = training()
    hidden = HIDDEN[hide](network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    real, generated = torch.randn(600, 2), torch.randn(600, 2)
    doors: list[Callable[[], object]] = [
        lambda: LatentPrior(hidden, NORMAL),
        lambda: LatentPosterior(hidden, lambda x: x.sum(-1), NORMAL),
        lambda: LatentPosterior(nn.Identity(), lambda x: hidden(x).sum(-1), NORMAL),
        lambda: calibrate(lambda x: hidden(x)[:, 0], real, generated),
        lambda: fit_log_ratio(hidden, NORMAL, real, nn.Linear(2, 1), num_steps=1, progress=False),
    ]
    for door in doors:
        with pytest.raises(ValueError, match=r"\.eval\(\)"):
            door()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    LatentPosterior(hidden, lambda x: x.sum(-1), NORMAL)


def test_a_program_that_writes_into_its_latent_is_refused() -> None:
    def model() -> None:
        z = pyro.sample("z", NORMAL)
        z.clamp_(-100, 100)
        pyro.factor("f", z.sum(-1))

    with pytest.raises(ValueError, match="writes into"):
        make_target(model)


def test_fit_refuses_a_critic_that_couples_rows_and_allows_a_noisy_simulator() -> None:
    data = torch.randn(600, 2) + 1
    with pytest.raises(ValueError, match="other rows"):
        fit_log_ratio(nn.Identity(), NORMAL, data, MinibatchDeviation(), num_steps=1, progress=False)
    options = {"num_steps": 2, "num_validation_draws": 50, "min_ess_fraction": 0.0, "progress": False}
    fit_log_ratio(lambda z: z + torch.randn_like(z), NORMAL, data, nn.Linear(2, 1), **options)


def test_rounding_and_honest_networks_pass() -> None:
    """Networks whose scores are tiny, constant, infinite or large differ by rounding alone."""
    network = nn.Sequential(nn.Linear(2, 64), nn.BatchNorm1d(64), nn.ReLU(inplace=True), nn.Linear(64, 1)).eval()
    for scale in (0.0, 1e-8, 1.0, 1e6):
        LatentPosterior(nn.Linear(2, 2), lambda x, scale=scale: scale * network(x), NORMAL)
    LatentPosterior(nn.Identity(), lambda x: torch.where(x[:, 0] > 0, x[:, 0], -torch.inf), NORMAL)
    network(torch.zeros(1, 2))


def test_the_probe_makes_few_small_passes() -> None:
    sizes: list[int] = []

    def critic(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.sum(-1) - 3

    gan = LatentPosterior(nn.Identity(), critic, NORMAL)
    sizes.clear()
    gan.validate()
    assert {1, 2, 3, 4, 8} == set(sizes) and len(sizes) <= 10 and sum(sizes) < 60
