"""Laws of every ratio of latents and of every hybrid, and hostile input at the public doors of `vi`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_gan.vi import (
    HYBRIDS,
    AdversarialSVI,
    AggregatedRatio,
    ExplicitLikelihood,
    GaussianGuide,
    HybridLoss,
    ImplicitGuide,
    Joined,
    RatioELBO,
    SyntheticLikelihood,
    encoder_proposal,
    encoder_starts,
    moment_divergence,
)
from pyro_gan.vi.ratios import as_ratio
from tests.vi import toy
from tests.vi.members import RATIOS, ratio
from tests.vi.test_hybrids import loss_of


def test_the_registry_has_every_ratio() -> None:
    assert {"AdaptiveContrast", "AggregatedRatio", "ConditionalRatio"} <= RATIOS.keys()


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_has_one_number_for_each_row_and_a_gradient_for_latents(name: str) -> None:
    made, x = ratio(name), toy.data(5)
    z = torch.randn(5, 1, dtype=torch.float64, requires_grad=True)
    found = made(z, x)
    assert found.shape == (5,) and found.dtype == z.dtype
    (gradient,) = torch.autograd.grad(found.sum(), z)
    assert bool(gradient.all())
    assert made.is_bound is False


@pytest.mark.parametrize("name", RATIOS)
def test_the_loss_of_a_ratio_is_a_scalar_of_its_own_parameters(name: str) -> None:
    made, x = ratio(name), toy.data(50)
    loss = made.loss(torch.randn_like(x), torch.randn_like(x), x)
    assert loss.shape == () and bool(torch.isfinite(loss))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.parameters())


@pytest.mark.parametrize("name", RATIOS)
def test_a_ratio_raises_for_data_that_do_not_match(name: str) -> None:
    made = ratio(name)
    z = torch.randn(5, 1, dtype=torch.float64)
    if made.uses_data:
        for x in (None, toy.data(4), toy.data(5).numpy()):
            with pytest.raises(ValueError, match="Expected"):
                made(z, x)
    else:
        assert torch.equal(made(z), made(z, toy.data(4)))


@pytest.mark.parametrize("name", HYBRIDS)
def test_networks_and_losses_of_a_hybrid_have_the_same_names(name: str) -> None:
    loss = loss_of(name)
    assert list(loss.networks()) == list(loss.losses())
    assert all(isinstance(network, nn.Module) for network in loss.networks().values())
    for player_loss in loss.losses().values():
        assert player_loss(toy.data(8)).shape == ()
        for bad in (None, "x", np.zeros((3, 1)), torch.zeros(()), torch.zeros(0, 1)):
            with pytest.raises(ValueError, match="Expected"):
                player_loss(bad)


HOSTILE = [
    None, "x", float("nan"), 0, -1, 1.5, True, [1, 2], np.zeros((3, 2)), torch.zeros(()), torch.zeros(0, 3),
    object(), dist.Normal(0.0, 1.0).expand([2]),
]  # fmt: skip
PRIOR = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
GUIDE = GaussianGuide(nn.Linear(3, 4), dim=2)


def svi() -> AdversarialSVI:
    """Two players that a bad argument must not move."""
    loss = HybridLoss(HYBRIDS["DCGAN"], generator=nn.Linear(2, 3), prior=PRIOR, discriminator=nn.Linear(3, 1))
    adam = {name: torch.optim.Adam(network.parameters()) for name, network in loss.networks().items()}
    return AdversarialSVI(loss, adam)


def run(bad: Any, argument: str) -> int:
    options = {"num_steps": 1, "batch_size": 2} | {argument: bad}
    return svi().run(torch.randn(8, 3), progress=False, **options)


def exact(x: torch.Tensor) -> torch.Tensor:
    return x.sum(-1)


#: A public door, one argument at a time, and the hostile values that are good there.
DOORS: dict[str, tuple[Callable[[Any], Any], tuple[type, ...]]] = {
    "Joined network": (Joined, (dist.Normal,)),
    "ImplicitGuide noise": (lambda bad: ImplicitGuide(Joined(GUIDE), bad, event_shape=(2,)), ()),
    "ImplicitGuide num_data": (
        lambda bad: ImplicitGuide(Joined(GUIDE), PRIOR, event_shape=(2,), num_data=bad),
        (type(None),),
    ),
    "ImplicitGuide draws": (
        lambda bad: ImplicitGuide(Joined(GUIDE), PRIOR, event_shape=(2,), num_moment_draws=bad),
        (),
    ),
    "GaussianGuide dim": (lambda bad: GaussianGuide(nn.Linear(3, 4), dim=bad), ()),
    "GaussianGuide site": (lambda bad: GaussianGuide(nn.Linear(3, 4), dim=2, site=bad), (str,)),
    "GaussianGuide x": (lambda bad: GUIDE(bad), ()),
    "ratio network": (AggregatedRatio, (dist.Normal,)),
    "ratio objective": (lambda bad: AggregatedRatio(exact, objective=bad), ()),
    "ratio z": (lambda bad: AggregatedRatio(exact)(bad), ()),
    "as_ratio": (as_ratio, (dist.Normal,)),
    "likelihood weight": (
        lambda bad: ExplicitLikelihood("normal", bad, reduction="sum"),
        (float,),
    ),
    "likelihood family": (lambda bad: ExplicitLikelihood(bad, 1.0, reduction="sum"), ()),
    "likelihood data": (
        lambda bad: ExplicitLikelihood("normal", 1.0, reduction="sum").log_prob(bad, bad),
        (torch.Tensor,),
    ),
    "synthetic ratio": (SyntheticLikelihood, (dist.Normal,)),
    "synthetic form": (lambda bad: SyntheticLikelihood(exact, form=bad), ()),
    "synthetic data": (lambda bad: SyntheticLikelihood(exact).log_weight(bad), (torch.Tensor,)),
    "hybrid": (lambda bad: HybridLoss(bad, generator=nn.Linear(2, 3), prior=PRIOR), ()),
    "hybrid prior": (lambda bad: loss_of("VAE", prior=bad), ()),
    "hybrid encoder": (lambda bad: loss_of("VAE", encoder=bad), ()),
    "hybrid weight": (lambda bad: loss_of("VAE", reconstruction_weight=bad), (int, float, torch.Tensor)),
    "moment_divergence": (moment_divergence, ()),
    "starts encoder": (lambda bad: encoder_starts(bad, torch.zeros(5, 3), model=bad), ()),
    "starts x": (lambda bad: encoder_proposal(GUIDE, bad), ()),
    "elbo ratios": (RatioELBO, ()),
    "elbo particles": (lambda bad: RatioELBO({"z": exact}, num_particles=bad), ()),
    "elbo model": (lambda bad: RatioELBO({"z": exact}).loss(bad, GUIDE, torch.zeros(5, 3)), (dist.Normal,)),
    "svi loss": (lambda bad: AdversarialSVI(bad, {}), ()),
    "svi optimizers": (lambda bad: AdversarialSVI(svi().loss, bad), ()),
    "svi steps": (lambda bad: AdversarialSVI(svi().loss, dict.fromkeys(svi().loss.networks()), steps=bad),
                  (type(None),)),
    "svi step": (lambda bad: svi().step(bad), ()),
    "svi data": (lambda bad: svi().run(bad, num_steps=1, batch_size=None, progress=False), ()),
    "svi num_steps": (lambda bad: run(bad, "num_steps"), ()),
    "svi batch_size": (lambda bad: run(bad, "batch_size"), ()),
    "svi checkpoint_every": (lambda bad: run(bad, "checkpoint_every"), ()),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_hostile_input_is_refused_at_the_door(door: str) -> None:
    call, good = DOORS[door]
    for bad in HOSTILE:
        if isinstance(bad, good) and bad is not True:
            continue
        with pytest.raises(ValueError, match="Expected"):
            call(bad)


def test_nan_is_not_a_count() -> None:
    for argument in ("num_steps", "batch_size", "checkpoint_every"):
        with pytest.raises(ValueError, match=f"{argument}.*got nan"):
            run(float("nan"), argument)
