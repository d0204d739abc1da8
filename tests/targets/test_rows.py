"""One bad row: a chain whose potential raises an error gets NaN, and the other chains go on."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.mcmc import MALA, BatchHMC, RandomWalk
from pyro_gan.targets import ProgramTarget, make_target
from pyro_gan.targets.rows import values, values_and_grads
from tests.statistics import assert_mean

PRIOR = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)


def gaussian_process(x: Tensor, y: Tensor) -> None:
    length = pyro.sample("length", dist.LogNormal(torch.zeros((), dtype=torch.float64), 1.0))
    noise = pyro.sample("noise", dist.HalfNormal(torch.ones((), dtype=torch.float64)))
    covariance = torch.exp(-(((x[:, None] - x) / length) ** 2) / 2) + noise**2 * torch.eye(len(x), dtype=x.dtype)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros_like(x), covariance), obs=y)


def process_target() -> ProgramTarget:
    x = torch.linspace(0, 1, 8, dtype=torch.float64)
    pyro.set_rng_seed(0)
    target = make_target(gaussian_process, args=(x, torch.sin(6 * x)))
    assert isinstance(target, ProgramTarget)
    return target


def whitened(x: Tensor) -> Tensor:
    """Return minus half the square in a metric that is singular where the first number is above 1."""
    metric = torch.diag_embed(1 - x[:, :1].clamp(min=1).log() * 1e9).expand(-1, 2, 2) * torch.eye(2, dtype=x.dtype)
    return (
        -torch.linalg.solve_triangular(torch.linalg.cholesky(metric), x.unsqueeze(-1), upper=False).square().sum((1, 2))
    )


TARGETS: dict[str, Callable] = {
    "a model": process_target,
    "a latent posterior": lambda: make_target(LatentPosterior(torch.nn.Identity(), whitened, PRIOR)),
    "a bare potential": lambda: make_target(
        None, lambda p: -whitened(p["z"]), prototype={"z": torch.zeros(2, dtype=torch.float64)}
    ),
}


@pytest.mark.parametrize("bad", [[3], [0, 4], [0, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("name", TARGETS)
def test_rows_that_fail_are_nan_and_the_others_are_what_they_are_alone(name: str, bad: list[int]) -> None:
    target = TARGETS[name]()
    z = 0.5 * torch.rand(7, 2, dtype=torch.float64)
    good = [i for i in range(7) if i not in bad]
    # A length of e^9 with a noise of e^-30 is a matrix of ones.
    broken = z.clone()
    broken[bad] = torch.tensor([9.0, -30.0], dtype=torch.float64)
    value, grad = target.potential_and_grad(broken)
    assert value[bad].isnan().all() and grad[bad].isnan().all()
    torch.testing.assert_close(target.potential(broken), value, equal_nan=True)
    if good:
        expected = target.potential_and_grad(z[good])
        torch.testing.assert_close((value[good], grad[good]), expected)


def test_a_row_that_is_nan_already_is_left_out() -> None:
    calls: list[int] = []

    def fails(z: Tensor) -> Tensor:
        calls.append(len(z))
        return -torch.linalg.cholesky(torch.diag_embed(z)).sum((1, 2))

    z = torch.ones(64, 2)
    z[5] = torch.nan
    assert values(fails, z).isnan().nonzero().flatten().tolist() == [5]
    assert calls == [64, 63]


def fails_at(call: int, error: Exception) -> Callable[[Tensor], Tensor]:
    count = iter(range(10**6))

    def function(z: Tensor) -> Tensor:
        if next(count) == call:
            raise error
        return z.sum(-1)

    return function


def always(z: Tensor) -> Tensor:
    raise RuntimeError("a fault of the program")


def big(z: Tensor) -> Tensor:
    if len(z) > 2:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    return z.sum(-1)


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (always, RuntimeError, "a fault of the program"),
        (fails_at(0, OSError("a file has gone")), OSError, "a file has gone"),
        (big, RuntimeError, "out of memory"),
        (fails_at(0, MemoryError("a page")), MemoryError, "a page"),
    ],
)
def test_an_error_that_is_no_fault_of_some_rows_is_raised(function: Callable, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        values_and_grads(function, torch.zeros(8, 3))


def fails_above_1(params: dict[str, Tensor]) -> Tensor:
    """Return the potential of a standard normal distribution, with a matrix that is singular above 1."""
    z = params["z"]
    matrix = torch.where((z < 1)[:, None, None], torch.eye(2, dtype=z.dtype), torch.ones(2, 2, dtype=z.dtype))
    return z.square() / 2 + torch.linalg.cholesky(matrix).sum((1, 2))


@pytest.mark.parametrize("make", [MALA, functools.partial(BatchHMC, num_steps=2), RandomWalk], ids=str)
def test_a_singular_chain_is_a_rejected_proposal(make: Callable) -> None:
    """Each chain samples the normal distribution below 1, whose mean is known."""
    kernel = make(potential_fn=fails_above_1, step_size=0.8, adapt_step_size=False)
    starts = {"z": -torch.rand(50, dtype=torch.float64)}
    mcmc = VectorizedMCMC(kernel, 60, warmup_steps=20, num_chains=50, initial_params=starts, disable_progbar=True)
    with pytest.warns(UserWarning, match="not finite"):
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert mcmc.num_invalid > 0 and float(z.max()) < 1
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    one = torch.ones((), dtype=torch.float64)
    assert_mean(z.mean(1), float(-normal.log_prob(one).exp() / normal.cdf(one)))


def test_a_singular_covariance_of_a_gaussian_process_does_not_end_the_run() -> None:
    target = process_target()
    starts = {"length": torch.tensor([0.0] * 5 + [1.5], dtype=torch.float64), "noise": torch.full((6,), -1.0).double()}
    # A step of this length throws proposals to lengths and noises at which the covariance is singular.
    kernel = RandomWalk(target, step_size=100.0, adapt_step_size=False)
    mcmc = VectorizedMCMC(kernel, 15, warmup_steps=0, num_chains=6, initial_params=starts, disable_progbar=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run()
    assert mcmc.num_invalid > 0
    assert torch.isfinite(mcmc.sample_stats["lp"]).all()
