"""AdversarialSVI: a loss moves only its own player, runs resume to the bit, and an error names the player with NaN."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

from pyro_gan.training import NonFiniteLoss
from pyro_gan.vi import (
    HYBRIDS,
    AdaptiveContrast,
    AdversarialSVI,
    AggregatedRatio,
    ConditionalRatio,
    ExplicitLikelihood,
    HybridLoss,
    ImplicitGuide,
    Joined,
    RatioELBO,
)

PRIOR = dist.Normal(0.0, 1.0).expand([2]).to_event(1)


def alpha_gan(seed: int = 0) -> HybridLoss:
    torch.manual_seed(seed)
    return HybridLoss(
        HYBRIDS["alpha-GAN"],
        generator=nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)),
        prior=PRIOR,
        encoder=ImplicitGuide(Joined(nn.Linear(3 + 2, 2)), PRIOR, event_shape=(2,)),
        explicit_likelihood=ExplicitLikelihood("laplace", 1.0, reduction="sum"),
        discriminator=nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1)),
        latent_ratio=AggregatedRatio(nn.Linear(2, 1)),
    )


def optimizers(loss: Any, lr: float = 1e-2) -> dict[str, torch.optim.Optimizer]:
    return {name: torch.optim.Adam(net.parameters(), lr=lr) for name, net in loss.networks().items()}


def weights(loss: Any) -> dict[str, list[Tensor]]:
    return {name: [p.detach().clone() for p in net.parameters()] for name, net in loss.networks().items()}


def same(a: dict[str, list[Tensor]], b: dict[str, list[Tensor]], name: str) -> bool:
    return all(torch.equal(old, new) for old, new in zip(a[name], b[name], strict=True))


@pytest.mark.parametrize("mover", ["encoder", "generator", "discriminator", "latent_ratio"])
def test_each_player_moves_itself_alone(mover: str) -> None:
    loss = alpha_gan()
    chosen: dict[str, Any] = {name: opt if name == mover else None for name, opt in optimizers(loss).items()}
    before = weights(loss)
    svi = AdversarialSVI(loss, chosen)
    losses = svi.step(torch.randn(16, 3))
    after = weights(loss)
    assert losses.keys() == {mover}
    for name, network in loss.networks().items():
        assert same(before, after, name) is (name != mover)
        assert all(p.grad is None for p in network.parameters())


def test_a_step_follows_the_players_own_losses() -> None:
    """A player moves along the gradient of its own loss, after the moves of the players before it."""
    x, first, second = torch.randn(16, 3), alpha_gan(), alpha_gan()
    for made in (first, second):
        made.discriminator.eval()
    svi = AdversarialSVI(
        first, {name: torch.optim.SGD(net.parameters(), lr=0.1) for name, net in first.networks().items()}
    )
    torch.manual_seed(5)
    svi.step(x)
    torch.manual_seed(5)
    for name, network in second.networks().items():
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(second.losses()[name](x), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.1 * gradient
    a, b = weights(first), weights(second)
    for name in a:
        for mine, theirs in zip(a[name], b[name], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_steps_and_order() -> None:
    calls = []

    class Recorder:
        def __init__(self, loss: HybridLoss) -> None:
            self.inner = loss

        def networks(self) -> Any:
            return self.inner.networks()

        def losses(self) -> Any:
            def recorded(name: str, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
                def call(*args: Any) -> Tensor:
                    calls.append(name)
                    return loss(*args)

                return call

            return {name: recorded(name, inner) for name, inner in self.inner.losses().items()}

    loss = alpha_gan()
    AdversarialSVI(Recorder(loss), optimizers(loss), steps={"encoder": 2, "generator": 3}).step(torch.randn(8, 3))
    assert calls == ["encoder"] * 2 + ["generator"] * 3 + ["discriminator", "latent_ratio"]


@pytest.mark.parametrize("tensor", [True, False])
def test_a_run_resumes_to_the_bit(tensor: bool, tmp_path: Path) -> None:
    x = torch.randn(96, 3)  # six batches, so that the break after twenty is in the middle of an epoch
    data: Any = x if tensor else DataLoader(TensorDataset(x), batch_size=16, shuffle=True)
    options: dict[str, Any] = {"batch_size": 16 if tensor else None, "progress": False}
    ends = []
    for breaks in ([12], [5, 12]):
        loss = alpha_gan()
        torch.manual_seed(3)
        for number, end in enumerate(breaks):
            if number:
                loss = alpha_gan(seed=99)  # another start, which the checkpoint overwrites
                torch.manual_seed(77)
            svi = AdversarialSVI(loss, optimizers(loss))
            path = tmp_path / f"{len(breaks)}.pt"
            assert svi.run(data, num_steps=end, checkpoint=path, **options) == end
        ends.append(weights(loss))
    assert all(same(*ends, name) for name in ends[0])


def test_a_checkpoint_of_another_objective_is_refused(tmp_path: Path) -> None:
    x, path = torch.randn(96, 3), tmp_path / "run"

    def run(loss: HybridLoss, data: Any = x, still: str = "", num_steps: int = 3, **options: Any) -> int:
        chosen: dict[str, Any] = optimizers(loss) | ({still: None} if still else {})
        settings = {"batch_size": 16, "checkpoint": path, "progress": False}
        svi = AdversarialSVI(loss, chosen, steps=options.pop("steps", None))
        return svi.run(data, num_steps=num_steps, **(settings | options))

    def other(**changes: Any) -> HybridLoss:
        return dataclasses.replace(alpha_gan(), **changes)

    run(alpha_gan(), num_steps=2)
    assert run(alpha_gan(seed=1)) == 3  # the control
    wide = dist.Normal(0.0, 2.0).expand([2]).to_event(1)
    cases: dict[str, tuple[HybridLoss, dict[str, Any]]] = {
        "loss as in .*reconstruction_weight=1.0.*reconstruction_weight=2.0": (other(reconstruction_weight=2.0), {}),
        "loss as in .*deviation 1.0.*; got .*deviation 2": (other(prior=wide), {}),
        "loss as in": (other(explicit_likelihood=ExplicitLikelihood("laplace", 2.0, reduction="sum")), {}),
        "data as in": (alpha_gan(), {"data": x + 1}),
        "batch_size as in the checkpoint, 16; got 8": (alpha_gan(), {"batch_size": 8}),
        "steps of player 'encoder' as in the checkpoint, 1; got 2": (alpha_gan(), {"steps": {"encoder": 2}}),
        "generator, which is held still, as in": (alpha_gan(), {"still": "generator"}),
    }
    for words, (loss, options) in cases.items():
        with pytest.raises(ValueError, match=words) as caught:
            run(loss, **({"num_steps": 5} | options))
        assert str(path) in str(caught.value)
    path.unlink()
    run(alpha_gan(), still="generator", num_steps=2)
    run(alpha_gan(), still="generator")
    with pytest.raises(ValueError, match="generator, which is held still, as in"):  # other weights, which no file has
        run(alpha_gan(seed=1), still="generator")


def test_a_run_leaves_networks_in_evaluation_mode() -> None:
    loss = alpha_gan()
    seen = []
    svi = AdversarialSVI(loss, optimizers(loss))
    svi.run(
        torch.randn(64, 3), num_steps=2, batch_size=8, progress=False,
        callback=lambda step, losses: seen.append((step, set(losses), loss.discriminator.training)),
    )  # fmt: skip
    assert seen == [(step, {"encoder", "generator", "discriminator", "latent_ratio"}, True) for step in (1, 2)]
    assert not any(network.training for network in loss.networks().values())


@pytest.mark.parametrize("culprit", ["encoder", "generator", "discriminator", "latent_ratio"])
def test_a_nan_names_its_player(culprit: str) -> None:
    loss = alpha_gan()

    class Broken:
        def networks(self) -> Any:
            return loss.networks()

        def losses(self) -> Any:
            return loss.losses() | {culprit: lambda x: loss.losses()[culprit](x) * float("nan")}

    before = weights(loss)
    with pytest.raises(NonFiniteLoss, match=f"'{culprit}'.*step 1"):
        AdversarialSVI(Broken(), optimizers(loss)).step(torch.randn(8, 3))
    assert same(before, weights(loss), culprit)


def test_evaluate_loss_moves_nothing() -> None:
    loss = alpha_gan()
    svi = AdversarialSVI(loss, optimizers(loss) | {"generator": None})
    before = weights(loss)
    found = svi.evaluate_loss(torch.randn(8, 3))
    assert found.keys() == loss.networks().keys()
    assert all(same(before, weights(loss), name) for name in before)


class Model(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", PRIOR)
            pyro.sample("x", dist.Normal(self.network(z), 0.5).to_event(1), obs=x)


def test_a_pyro_model_and_guide_play_against_their_ratio(tmp_path: Path) -> None:
    model, guide = Model(), ImplicitGuide(Joined(nn.Linear(5, 2)), PRIOR, event_shape=(2,))
    loss = RatioELBO({"z": ConditionalRatio(Joined(nn.Linear(5, 1)))})(model, guide)
    assert list(loss.networks()) == ["model", "guide", "z"]
    before = weights(loss)
    svi = AdversarialSVI(loss, optimizers(loss), steps={"z": 2})
    assert svi.run(torch.randn(64, 3), num_steps=3, batch_size=16, progress=False) == 3
    assert not any(same(before, weights(loss), name) for name in before)
    assert all(p.grad is None for network in loss.networks().values() for p in network.parameters())
    assert not len(list(pyro.get_param_store().keys())), "no global state is left"


class Scaled(Model):
    def __init__(self) -> None:
        super().__init__()
        self.sd = PyroParam(torch.tensor(0.5), constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", PRIOR)
            pyro.sample("x", dist.Normal(self.network(z), self.sd).to_event(1), obs=x)


def test_constrained_parameters_of_modules_train_and_bare_ones_are_refused() -> None:
    guide = ImplicitGuide(Joined(nn.Linear(5, 2)), PRIOR, event_shape=(2,))
    elbo = RatioELBO({"z": Joined(nn.Linear(5, 1))})
    model = Scaled()
    loss = elbo(model, guide)
    AdversarialSVI(loss, optimizers(loss)).step(torch.randn(8, 3))
    assert model.sd.item() != 0.5

    def bare(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", PRIOR)
            loc = pyro.param("loc", torch.zeros(()))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True) + loc, 1.0).expand([len(x), 3]).to_event(1), obs=x)

    loss = elbo(bare, guide)
    with pytest.raises(ValueError, match=r"pyro.param\('loc'\)"):
        AdversarialSVI(loss, optimizers(loss)).step(torch.randn(8, 3))


def test_modules_of_the_same_names_do_not_share_parameters() -> None:
    """Pyro's store would give a second model of the same class the parameters of the first."""
    for _ in range(2):
        model, guide = Model(), ImplicitGuide(Joined(nn.Linear(5, 2)), PRIOR, event_shape=(2,))
        loss = RatioELBO({"z": Joined(nn.Linear(5, 1))})(model, guide)
        before = weights(loss)
        AdversarialSVI(loss, optimizers(loss)).step(torch.randn(8, 3))
        assert not any(same(before, weights(loss), name) for name in before)
        pyro.module("model", model)
        pyro.module("", guide)


def test_it_fits_an_implicit_posterior(seed: int) -> None:
    """Adversarial variational Bayes with adaptive contrast on a linear Gaussian model with a known posterior.

    The limits are wide, because a game of networks has no standard error. The first guide is far outside of them.
    """
    prior = dist.Normal(0.0, 1.0).expand([1]).to_event(1)
    x = torch.linspace(-2, 2, 128)[:, None]

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    guide = ImplicitGuide(Joined(nn.Linear(2, 1)), prior, event_shape=(1,))
    network = Joined(nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1)))
    ratio = AdaptiveContrast(network, moments=guide.moments, prior=prior)
    loss = RatioELBO({"z": ratio})(model, guide)
    assert list(loss.networks()) == ["guide", "z"]  # a function has no parameters to train
    svi = AdversarialSVI(
        loss,
        {"guide": torch.optim.Adam(guide.parameters(), lr=0.02), "z": torch.optim.Adam(ratio.parameters(), lr=0.01)},
    )
    for _ in range(300):
        svi.step(x)
    z = guide.conditional(torch.tensor([[1.0]])).expand([2000]).sample()
    assert z.mean().item() == pytest.approx(0.8, abs=0.15)
    assert z.std().item() == pytest.approx(0.2**0.5, abs=0.12)


def test_doors() -> None:
    loss = alpha_gan()
    made = optimizers(loss)
    with pytest.raises(ValueError, match=r"got none for \['latent_ratio'\].*held still"):
        AdversarialSVI(loss, {name: opt for name, opt in made.items() if name != "latent_ratio"})
    with pytest.raises(ValueError, match=r"optimizers for the players .* got \['critic'\]"):
        AdversarialSVI(loss, made | {"critic": made["latent_ratio"]})
    with pytest.raises(ValueError, match=r"steps for the players"):
        AdversarialSVI(loss, made, steps={"critic": 2})
    shared = made | {"generator": torch.optim.Adam([*loss.generator.parameters(), *loss.encoder.parameters()])}
    with pytest.raises(ValueError, match="does not hold|belongs to players"):
        AdversarialSVI(loss, shared).step(torch.randn(8, 3))
    loss.generator.requires_grad_(False)
    with pytest.raises(ValueError, match="'generator' has no parameter"):
        AdversarialSVI(loss, made).step(torch.randn(8, 3))


def test_a_parameter_of_two_players_is_refused() -> None:
    loss = alpha_gan()
    loss.generator = nn.Sequential(nn.Linear(2, 3), loss.discriminator)
    with pytest.raises(ValueError, match="belongs to players 'generator' and 'discriminator'"):
        AdversarialSVI(loss, optimizers(loss)).step(torch.randn(8, 3))


def test_a_latent_site_with_a_players_name_is_refused() -> None:
    guide = ImplicitGuide(Joined(nn.Linear(5, 2)), PRIOR, event_shape=(2,), site="guide")
    with pytest.raises(ValueError, match="player's name"):
        RatioELBO({"guide": nn.Linear(2, 1)})(Model(), guide).networks()


def test_a_ratio_alone_is_not_fitted_to_a_guides_first_parameters() -> None:
    """The trained value of a bare parameter is in Pyro's store, which the players do not read."""

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).expand([len(x), 2]).to_event(1))

    ratio = AggregatedRatio(nn.Linear(2, 1))
    loss = RatioELBO({"z": ratio})(Scaled(), guide)
    svi = AdversarialSVI(loss, {"model": None, "z": torch.optim.SGD(ratio.parameters(), lr=0.1)})
    with pytest.raises(ValueError, match=r"pyro.param\('loc'\)"):
        svi.step(torch.randn(8, 3))


def test_evaluate_loss_leaves_batch_statistics() -> None:
    discriminator = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    loss = HybridLoss(HYBRIDS["DCGAN"], generator=nn.Linear(2, 3), prior=PRIOR, discriminator=discriminator)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    AdversarialSVI(loss, {"generator": None, "discriminator": None}).evaluate_loss(torch.randn(8, 3))
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())
