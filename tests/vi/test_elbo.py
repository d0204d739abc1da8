"""RatioELBO: equal to Trace_ELBO if the ratio is exact, gradients for the right parameters, clear errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    EnergyDistance,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_gan.distributions.implicit import Implicit
from pyro_gan.vi import AggregatedRatio, ConditionalRatio, GaussianGuide, ImplicitGuide, Joined, RatioELBO
from tests.vi.programs import DIM, KINDS, NOISE, Encoder, ExactRatio, data, likelihood, prior, program

PARTICLES: dict[str, dict[str, Any]] = {
    "one": {},
    "five": {"num_particles": 5},
    "five vectorised": {"num_particles": 5, "vectorize_particles": True},
    "five vectorised, nesting given": {"num_particles": 5, "vectorize_particles": True, "max_plate_nesting": 2},
}


def encoder_ratio(encoder: Encoder) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact ratio as a plain function: its gradient reaches the encoder, as the gradient of log q does."""
    exact = ExactRatio(encoder)

    def ratio(x: Tensor, z: Tensor) -> Tensor:
        return exact(x, z)

    return ratio


def gradients(parameters: Any) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


@pytest.mark.parametrize("particles", PARTICLES)
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_exact_ratio_it_is_trace_elbo(kind: str, particles: str, seed: int) -> None:
    """Value and gradient, for the implicit guide, and for the explicit guide with a ratio in place of its density."""
    x, results = data(), []
    for guide_name, objective in (
        ("explicit", lambda encoder, **kw: Trace_ELBO(**kw)),
        ("explicit", lambda encoder, **kw: RatioELBO({"z": encoder_ratio(encoder)}, **kw)),
        ("implicit", lambda encoder, **kw: RatioELBO({"z": encoder_ratio(encoder)}, **kw)),
    ):
        pyro.clear_param_store()
        encoder = Encoder()
        made = program(kind, encoder)
        guide = getattr(made, guide_name)
        elbo = objective(encoder, **PARTICLES[particles])
        elbo.loss(made.model, guide, x)  # finds the plate nesting
        pyro.set_rng_seed(seed)
        value = elbo.loss(made.model, guide, x)
        pyro.set_rng_seed(seed)
        differentiable = elbo.differentiable_loss(made.model, guide, x)
        differentiable.backward()
        stored = dict(pyro.get_param_store().named_parameters())
        results.append((value, differentiable.item(), gradients(stored.values())))
    stock = results[0]
    for ours in results[1:]:
        assert ours[0] == pytest.approx(stock[0], abs=1e-10)
        assert ours[1] == pytest.approx(stock[1], abs=1e-10)
        for mine, theirs in zip(ours[2], stock[2], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)


def test_the_equality_can_fail(seed: int) -> None:
    """Negative control: a ratio with an error of .01 nats for each data point, and one of the wrong sign."""
    encoder = Encoder()
    made = program("subsample", encoder)
    exact = ExactRatio(encoder)
    values = []
    for elbo in (
        Trace_ELBO(),
        RatioELBO({"z": lambda x, z: exact(x, z) + 0.01}),
        RatioELBO({"z": lambda x, z: -exact(x, z)}),
    ):
        pyro.set_rng_seed(seed)
        values.append(elbo.loss(made.model, made.explicit, data()))
    assert values[1] - values[0] == pytest.approx(0.64, abs=1e-10)
    assert abs(values[2] - values[0]) > 1


def test_svi_step_is_that_of_trace_elbo(seed: int) -> None:
    losses = []
    for guide_name in ("explicit", "implicit"):
        pyro.clear_param_store()
        encoder = Encoder()
        made = program("subsample", encoder)
        elbo = Trace_ELBO() if guide_name == "explicit" else RatioELBO({"z": encoder_ratio(encoder)})
        svi = SVI(made.model, getattr(made, guide_name), pyro.optim.SGD({"lr": 1e-4}), elbo)
        pyro.set_rng_seed(seed)
        losses.append([svi.step(data()) for _ in range(5)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-10)


class Model(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(DIM, DIM).double()

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(self.network(z)), obs=x)


def implicit_guide(**options: Any) -> ImplicitGuide:
    return ImplicitGuide(Joined(nn.Linear(2 * DIM, DIM)).double(), NOISE, event_shape=(DIM,), **options)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("conditional", [False, True])
def test_neither_interface_touches_the_ratio_network(conditional: bool, vectorize: bool) -> None:
    """The ratio's weights keep their bits and have no gradient; model and guide move."""
    network = nn.Linear(DIM * (2 if conditional else 1), 1).double()
    ratio = ConditionalRatio(Joined(network)) if conditional else AggregatedRatio(network)
    model, guide = Model(), implicit_guide()
    before = [p.detach().clone() for p in network.parameters()]
    elbo = RatioELBO({"z": ratio}, num_particles=3, vectorize_particles=vectorize, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), elbo)
    moving = [p.detach().clone() for p in [*model.parameters(), *guide.parameters()]]
    svi.step(data())
    assert all(p.grad is None for p in network.parameters())
    for old, new in zip(moving, [*model.parameters(), *guide.parameters()], strict=True):
        assert not torch.equal(old, new)
    pyro.clear_param_store()
    module = elbo(model, guide)
    assert {id(p) for p in module.parameters()}.isdisjoint({id(p) for p in network.parameters()})
    module(data()).backward()
    assert all(p.grad is None for p in network.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in guide.parameters())
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, new)


def test_ratio_losses_reach_the_ratio_alone() -> None:
    ratio = ConditionalRatio(Joined(nn.Linear(2 * DIM, 1)).double())
    model, guide = Model(), implicit_guide()
    losses = RatioELBO({"z": ratio}).ratio_losses(model, guide, data())
    losses["z"].backward()
    assert losses.keys() == {"z"} and losses["z"].shape == ()
    assert all(p.grad is not None for p in ratio.parameters())
    assert all(p.grad is None for p in [*model.parameters(), *guide.parameters()])


def test_ratio_losses_leave_masked_rows_out() -> None:
    """A latent of a masked data point does not enter the objective."""
    seen = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            seen.append((x, z))
            return z.sum(-1)

    made = program("handler mask", Encoder())
    RatioELBO({"z": Recorder()}).ratio_losses(made.model, made.implicit, data())
    kept = data()[torch.arange(len(data())) % 3 != 0]
    assert [len(z) for _, z in seen] == [len(kept)] * 2
    assert all(torch.equal(x, kept) for x, _ in seen)


def test_vectorised_particles_are_distinct() -> None:
    model, guide = Model(), implicit_guide()
    elbo = RatioELBO({"z": nn.Linear(DIM, 1).double()}, num_particles=4, vectorize_particles=True)
    model_trace, guide_trace = next(iter(elbo._get_traces(model, guide, (data(),), {})))
    z = guide_trace.nodes["z"]["value"]
    assert z.shape == (4, len(data()), DIM)
    assert len(z.flatten().unique()) == z.numel()
    assert model_trace.nodes["z"]["value"] is z


def test_images_as_context_and_latents() -> None:
    """Networks get contexts and latents of several dimensions as rows, with particles to the left."""
    x = torch.randn(6, 3, 4, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2, 5]).to_event(2))
            pyro.sample("x", dist.Normal(z.sum((-2, -1))[..., None, None, None], 1.0).expand(
                [*z.shape[:-2], 3, 4, 4]).to_event(3), obs=x)  # fmt: skip

    def network(x: Tensor, e: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 4, 4) and e.shape[1:] == (2, 5) and len(x) == len(e)
        return x.mean((1, 2, 3))[:, None, None] + e

    noise = dist.Normal(0.0, 1.0).expand([2, 5]).to_event(2)
    guide = ImplicitGuide(network, noise, event_shape=(2, 5), x_event_dim=3)
    ratio = Joined(nn.Linear(48 + 10, 1))
    for options in PARTICLES.values():
        if "max_plate_nesting" not in options:
            assert RatioELBO({"z": ratio}, **options).loss(model, guide, x) > 0


def test_ratio_of_a_number_of_latent_sites_and_others_with_densities() -> None:
    """Two implicit sites and one with a density; each keeps its terms."""
    x = data()

    def model(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros((), dtype=torch.float64), 0.5))
        with pyro.plate("data", len(x)):
            u, v = pyro.sample("u", prior()), pyro.sample("v", prior())
            pyro.sample("x", dist.Normal(u + v, scale).to_event(1), obs=x)

    first, second = Encoder(), Encoder()
    second.b.data.fill_(0.9)

    def guide(x: Tensor, implicit: bool) -> None:
        pyro.sample("scale", dist.LogNormal(torch.tensor(0.1, dtype=torch.float64), 0.2))
        with pyro.plate("data", len(x)):
            pyro.sample("u", first.implicit(x) if implicit else first.explicit(x))
            pyro.sample("v", second.implicit(x) if implicit else second.explicit(x))

    pyro.set_rng_seed(3)
    ours = RatioELBO({"u": ExactRatio(first), "v": ExactRatio(second)}).loss(model, lambda x: guide(x, True), x)
    pyro.set_rng_seed(3)
    assert ours == pytest.approx(Trace_ELBO().loss(model, lambda x: guide(x, False), x), abs=1e-10)


def test_energy_distance_and_predictive_take_an_implicit_guide() -> None:
    model, guide = Model(), implicit_guide()
    energy = EnergyDistance(num_particles=4)
    loss = energy(model, guide, data())
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad is not None for p in guide.parameters())
    for parallel in (False, True):
        drawn = Predictive(model, guide=guide, num_samples=3, parallel=parallel)(data())
        assert drawn["z"].shape == (3, len(data()), DIM)
        assert len(drawn["z"].flatten().unique()) == drawn["z"].numel()


def test_energy_distance_trains_through_an_implicit_likelihood() -> None:
    """EnergyDistance reads draws of an observed site and no density."""
    shift = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", Implicit(lambda z, e: z + shift + e, NOISE, event_shape=(DIM,), context=z), obs=x)

    guide = implicit_guide()
    EnergyDistance(num_particles=4)(model, guide, data()).backward()
    assert shift.grad is not None and shift.grad > 0  # the data's mean is 0
    drawn = Predictive(model, guide=guide, num_samples=3)(data())
    assert drawn["x"].shape == (3, len(data()), DIM)


@pytest.mark.parametrize("stock", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, RenyiELBO])
def test_stock_elbos_name_the_remedy(stock: Any) -> None:
    with pytest.raises(NotImplementedError, match="RatioELBO"):
        stock().loss(Model(), implicit_guide(), data())


def test_a_delta_that_carries_log_density_is_refused() -> None:
    """TraceMeanField_ELBO ignores it without a warning, and in RatioELBO it would count twice."""
    encoder, x = Encoder(), data()
    exact = ExactRatio(encoder)

    def delta_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = encoder(x, torch.ones_like(x))
            log_q = exact(x, z) + prior().log_prob(z)
            pyro.sample("z", dist.Delta(z, log_density=log_q, event_dim=1))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", likelihood(pyro.sample("z", prior())), obs=x)

    right = Trace_ELBO().loss(model, delta_guide, x)
    assert abs(TraceMeanField_ELBO().loss(model, delta_guide, x) - right) > 1  # Pyro 1.9 ignores it
    with pytest.raises(ValueError, match="log_density"):
        RatioELBO({"z": ExactRatio(encoder)}).loss(model, delta_guide, x)


def model_of(name: str = "z", **terms: Any) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=terms.get("scale", 1.0)), poutine.mask(mask=terms.get("mask", True)):
                z = pyro.sample(name, terms.get("prior", prior()), obs=terms.get("obs"))
            pyro.sample("x", likelihood(z), obs=x)

    return model


def refuse(match: str, model: Any, guide: Any, ratios: Any) -> None:
    with pytest.raises(ValueError, match=match):
        RatioELBO(ratios).loss(model, guide, data())


def test_doors() -> None:
    linear = nn.Linear(DIM, 1).double()
    guide = implicit_guide()
    with pytest.raises(ValueError, match="Trace_ELBO"):
        RatioELBO({})
    with pytest.raises(ValueError, match="ratio network"):
        RatioELBO({"z": 3})
    with pytest.raises(ValueError, match=r"AggregatedRatio\(network\)"):
        RatioELBO({"z": lambda a, b, c: a})
    refuse("Expected the guide to sample 'w'", model_of(), guide, {"w": linear})
    refuse("among the model's latent sites", model_of("y"), guide, {"z": linear})
    refuse("among the model's latent sites", model_of(obs=torch.zeros(64, 1).double()), guide, {"z": linear})
    refuse("critic output of shape", model_of(), guide, {"z": nn.Linear(DIM, 2).double()})
    refuse("one scale and mask at 'z'", model_of(scale=2.0), guide, {"z": linear})
    refuse("one scale and mask at 'z'", model_of(mask=torch.arange(64) > 3), guide, {"z": linear})
    wide = dist.Normal(torch.zeros(2).double(), 1.0).to_event(1)
    with pytest.raises(ValueError, match="(?i)event.shape|event_dim|shape"):
        RatioELBO({"z": linear}).loss(model_of(prior=wide), guide, data())


def test_a_mask_of_the_model_alone_is_refused_if_scales_are_one_object() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with poutine.mask(mask=torch.arange(len(x)) > 3):
                z = pyro.sample("z", prior())
            pyro.sample("x", likelihood(z), obs=x)

    refuse("one scale and mask at 'z'", model, implicit_guide(), {"z": nn.Linear(DIM, 1).double()})


def test_an_implicit_site_without_a_ratio_is_named() -> None:
    def guide(x: Tensor) -> None:
        encoder = Encoder()
        with pyro.plate("data", len(x)):
            pyro.sample("u", encoder.implicit(x))
            pyro.sample("z", encoder.implicit(x))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("u", prior())
            pyro.sample("x", likelihood(pyro.sample("z", prior())), obs=x)

    refuse("site 'u' is implicit and has no ratio", model, guide, {"z": nn.Linear(DIM, 1).double()})


def test_an_implicit_likelihood_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", Implicit(lambda z, e: z + e, NOISE, event_shape=(DIM,), context=z), obs=x)

    refuse(
        "site 'x' is implicit and has no ratio.*SyntheticLikelihood",
        model,
        implicit_guide(),
        {"z": nn.Linear(DIM, 1).double()},
    )


def test_draws_without_a_gradient_are_refused() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.VonMises(torch.zeros(1).double(), 1.0).to_event(1))

    refuse("reparametrised", model_of(), guide, {"z": nn.Linear(DIM, 1).double()})


def test_a_ratio_of_data_needs_data() -> None:
    guide = GaussianGuide(nn.Linear(DIM, 2 * DIM).double(), dim=DIM)
    refuse("infer={'context': x}", model_of(), guide, {"z": Joined(nn.Linear(2 * DIM, 1)).double()})


def test_a_part_of_an_event_cannot_be_masked() -> None:
    encoder = Encoder()

    def guide(x: Tensor) -> None:
        masked = dist.Normal(encoder.a * x, 1.0).mask(torch.ones(len(x), 1).bool()).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", masked)

    refuse(r"Mask after to_event\(\)", model_of(), guide, {"z": nn.Linear(DIM, 1).double()})


def test_it_calls_nothing_a_bound() -> None:
    assert RatioELBO({"z": nn.Linear(1, 1)}).is_bound is False
    assert AggregatedRatio(nn.Linear(1, 1)).is_bound is False


def test_an_auxiliary_site_has_no_ratio() -> None:
    """The model has no such site."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            noise = dist.Normal(0.0, 1.0).expand([len(x), 2]).to_event(1)
            pyro.sample("z", dist.Delta(pyro.sample("a", noise, infer={"is_auxiliary": True}), event_dim=1))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x), 2]).to_event(1))

    elbo = RatioELBO({"z": nn.Linear(2, 1), "a": nn.Linear(2, 1)})
    with pytest.raises(ValueError, match="'a'"):
        elbo.loss(model, guide, torch.zeros(5, 2))


def test_contexts_within_an_event_are_not_taken_for_rows() -> None:
    """Three contexts, one for each part of an event, in a plate of three."""
    context = torch.arange(3.0)[:, None]

    def guide() -> None:
        with pyro.plate("data", 3):
            noise = dist.Normal(0.0, 1.0).expand([1]).to_event(1)
            implicit = Implicit(lambda x, e: x + e, noise, event_shape=(1,), context=context)
            pyro.sample("z", implicit.to_event(1))

    def model() -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0).expand([3, 3, 1]).to_event(2))

    with pytest.raises(ValueError, match="context at 'z'"):
        RatioELBO({"z": lambda x, z: z.flatten(1).sum(-1)}).loss(model, guide)
