"""Log weights without a usable gradient: unadjusted kernels refuse them, the others warn and name the cause."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, VectorizedMCMC
from pyro_gan.annealing import AIS, SMC, anneal, linear
from pyro_gan.annealing.mover import Schedule
from pyro_gan.likelihood import EntropicModel, Laplace
from pyro_gan.mcmc import ISIR, MALA, PCN, ULA, BatchHMC, ChEES, LocalGlobal
from pyro_gan.targets import make_target
from pyro_gan.targets.gradient import target_gradient_fault
from tests.mcmc.members import KERNELS, described
from tests.statistics import assert_mean

PRIOR = dist.Normal(torch.zeros(2), 1.0).to_event(1)
GRADIENT = {name: make for name, make in KERNELS.items() if described(make).uses_gradient}


def peak(x: Tensor) -> Tensor:
    """Return a log ratio under which the posterior of a standard normal prior is N(2, 1/3)."""
    return -(x - 3).square().sum(-1)


def without_graph(x: Tensor) -> Tensor:
    with torch.no_grad():
        return peak(x)


def guarded(x: Tensor) -> Tensor:
    """Return a root behind a mask: its gradient is NaN where the mask is off."""
    return torch.where(x > 0, x.sqrt(), torch.zeros_like(x)).sum(-1)


NETWORK = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)).eval()

CUT: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda x: peak(x).detach(),
    "no_grad": without_graph,
    "NumPy": lambda x: torch.as_tensor(peak(x).detach().numpy()),
    "a detached network": lambda x: NETWORK(x.detach())[:, 0],
    "8 bits": lambda x: peak((x * 255).round() / 255),
    "whole numbers": lambda x: peak(x.round()),
    "a comparison": lambda x: 3.0 * (x[:, 0] > 0),
    "a part detached": lambda x: peak(x[:, :1]) + 4 * peak(x[:, 1:]).detach(),
}
WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "smooth": peak,
    "constant": lambda x: torch.full((len(x),), 7.0),
    "a network": lambda x: NETWORK(x)[:, 0],
    "clamped": lambda x: peak(x).clamp(-5, 5),
    "quick": lambda x: 3 * torch.sin(100 * x).sum(-1),
    "a large constant": lambda x: peak(x) + 1e5,
    "sharp": lambda x: 1e4 * peak(x),
    "zero outside": lambda x: torch.where(x[:, 0] > 0, peak(x), -torch.inf),
    "a mask with a clean gradient": lambda x: torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0).sum(-1),
}


def posterior(log_ratio: Callable[[Tensor], Tensor]) -> LatentPosterior:
    return LatentPosterior(nn.Identity(), log_ratio, PRIOR)


@pytest.mark.parametrize("name", CUT)
def test_a_weight_that_is_cut_off_is_found(name: str) -> None:
    for _ in range(20):
        fault = target_gradient_fault(make_target(posterior(CUT[name])), None)
        assert fault is not None and "cut off from autograd" in fault.text


@pytest.mark.parametrize("name", WHOLE)
def test_a_gradient_that_is_right_is_left_alone(name: str) -> None:
    for _ in range(20):
        assert target_gradient_fault(make_target(posterior(WHOLE[name])), None) is None


def test_a_gradient_that_is_nan_behind_a_mask_is_found() -> None:
    fault = target_gradient_fault(make_target(posterior(guarded)), None)
    assert fault is not None and "of 48 draws where the log weight itself is finite" in fault.text


def test_the_probe_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    target_gradient_fault(make_target(posterior(peak)), None)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", GRADIENT)
@pytest.mark.parametrize("log_ratio", [CUT["detached"], guarded], ids=["detached", "NaN"])
def test_every_kernel_with_gradients_says_so(name: str, log_ratio: Callable[[Tensor], Tensor]) -> None:
    kernel = GRADIENT[name](posterior(log_ratio))
    kernel.bind(4)
    if kernel.is_exact:
        with pytest.warns(UserWarning, match="The gradient of the log weight"):
            kernel.setup(0)
    else:
        with pytest.raises(ValueError, match="has no accept step"):
            kernel.setup(0)


def test_a_mixture_of_an_unadjusted_kernel_refuses_too() -> None:
    gan = posterior(CUT["detached"])
    kernel = LocalGlobal(ULA(gan), ISIR(gan))
    kernel.bind(4)
    with pytest.raises(ValueError, match="LocalGlobal has no accept step"):
        kernel.setup(0)


def test_a_program_and_a_bare_potential_are_tried_as_well() -> None:
    def model() -> None:
        z = pyro.sample("z", PRIOR)
        pyro.factor("f", peak(z).detach())

    with pytest.raises(ValueError, match="predicts 0% of its changes"):
        ULA(model, num_chains=None).setup(0)
    kernel = ULA(potential_fn=lambda p: -peak(p["z"]).detach())
    kernel.bind(3)
    kernel.initial_params = {"z": torch.zeros(3, 2)}
    with pytest.raises(ValueError, match="predicts 0% of its changes"):
        kernel.setup(0)


@pytest.mark.parametrize("make", [MALA, BatchHMC])
def test_a_corrected_kernel_still_samples_the_target_of_a_detached_ratio(make: Callable) -> None:
    mcmc = VectorizedMCMC(make(posterior(CUT["detached"])), 150, warmup_steps=150, num_chains=60, disable_progbar=True)
    with pytest.warns(UserWarning, match="proposals do not aim at it"):
        mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"]
    assert_mean(z.mean(1), torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("log_ratio", "step_size", "said", "unsaid"),
    [
        (guarded, 0.5, "because a score or its gradient was not finite: look for NaN", "step size"),
        (lambda x: 1e5 * peak(x), 0.5, "the step size is too long", "NaN"),
    ],
    ids=["NaN", "too long"],
)
def test_divergences_are_explained(log_ratio: Callable, step_size: float, said: str, unsaid: str) -> None:
    kernel = MALA(posterior(log_ratio), step_size=step_size, adapt_step_size=False)
    mcmc = VectorizedMCMC(kernel, 30, warmup_steps=0, num_chains=20, disable_progbar=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mcmc.run()
    (text,) = (str(warning.message) for warning in caught if "diverged" in str(warning.message))
    assert said in text and unsaid not in text


@pytest.mark.parametrize("sampler", [SMC, lambda gan: AIS(gan, linear(3), num_particles=50)], ids=["SMC", "AIS"])
def test_annealing_says_so(sampler: Callable) -> None:
    with pytest.warns(UserWarning, match="predicts 0% of its changes"):
        sampler(posterior(CUT["detached"]))()


@pytest.mark.parametrize("kernel", [PCN, lambda target: ISIR(target)], ids=["PCN", "ISIR"])
def test_a_kernel_without_gradients_has_nothing_to_say(kernel: Callable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMC(posterior(lambda x: 0.1 * peak(x).detach()), 300, kernel=kernel, num_moves=2)()


def test_an_unadjusted_kernel_is_refused_on_a_ladder() -> None:
    gan = posterior(peak)
    for run in (
        SMC(gan, 50, kernel=ULA),
        AIS(gan, linear(3), num_particles=50, kernel=ULA),
        lambda: anneal(make_target(gan), torch.zeros(4, 2), Schedule(linear(2), None, 1), kernel=ULA),
    ):
        with pytest.raises(ValueError, match="invariant; got ULA"):
            run()


def test_laplace_says_so() -> None:
    generator = nn.Linear(2, 3).requires_grad_(False)
    y = generator(torch.randn(5, 2))
    with pytest.warns(UserWarning, match="search stays near the prior's mode"):
        Laplace(num_steps=3).fit(EntropicModel(lambda z: generator(z).detach(), PRIOR, regularization=0.1), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Laplace(num_steps=3).fit(EntropicModel(generator, PRIOR, regularization=0.1), y)


def test_chees_and_others_do_not_complain_of_a_good_model() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (MALA, ULA, BatchHMC, ChEES):
            kernel = make(posterior(peak))
            kernel.bind(4)
            kernel.setup(0)
