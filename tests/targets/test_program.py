"""Any Pyro model as a target: Pyro's potential and gradient, prior and weight, and errors that name the cure."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.mcmc.util import initialize_model
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor, nn

from pyro_gan import LatentPosterior
from pyro_gan.targets import ProgramTarget, Target, TemperedTarget, make_target
from tests.exact_targets import affine_toy
from tests.statistics import assert_mean, assert_same_distribution

NUM_ROWS = 6
Model = Callable[..., Any]


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def schools(y: Tensor, *, sd: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(number(0), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(number(5)))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sd), obs=y)


def regression(x: Tensor, y: Tensor) -> Tensor:
    slope = pyro.sample("slope", dist.Normal(number(0), 1.0).expand([x.shape[1]]).to_event(1))
    intercept = pyro.sample("intercept", dist.Normal(number(0), 2.0))
    with pyro.plate("row", len(x)):
        # This mean fails in an outer plate: prior draws must not need the likelihood.
        return pyro.sample("y", dist.Bernoulli(logits=intercept + x @ slope), obs=y)


def dirichlet(counted: Tensor) -> None:
    p = pyro.sample("p", dist.Dirichlet(numbers(1, 2, 3)))
    with pyro.plate("row", len(counted)):
        pyro.sample("x", dist.Categorical(p), obs=counted)


def correlation() -> None:
    factor = pyro.sample("factor", dist.LKJCholesky(3, number(2)))
    sd = pyro.sample("sd", dist.HalfNormal(torch.ones(3, dtype=torch.float64)).to_event(1))
    with pyro.plate("row", 4):
        normal = dist.MultivariateNormal(numbers(0, 0, 0), scale_tril=sd.unsqueeze(-1) * factor)
        pyro.sample("x", normal, obs=torch.ones(4, 3, dtype=torch.float64))


def bounded() -> None:
    u = pyro.sample("u", dist.Uniform(numbers(-1, 2), numbers(1, 5)).to_event(1))
    pyro.sample("x", dist.Normal(u.sum(), 1.0), obs=number(2))


def nested_plates() -> None:
    with pyro.plate("outer", 3, dim=-2):
        a = pyro.sample("a", dist.Normal(number(0), 1.0))
        with pyro.plate("inner", 2, dim=-1):
            b = pyro.sample("b", dist.Gamma(a.exp(), 1.0))
            pyro.sample("x", dist.Exponential(b), obs=torch.ones(3, 2, dtype=torch.float64))


def weighed() -> None:
    with poutine.scale(scale=3.0):
        a = pyro.sample("a", dist.Normal(number(0), 1.0))
    mask = torch.tensor([True, False, True, True])
    with pyro.plate("row", 10, subsample=torch.arange(4)), poutine.mask(mask=mask):
        pyro.sample("x", dist.Normal(a, 1.0), obs=torch.arange(4.0).double())
    pyro.factor("tail", -a.abs())
    pyro.deterministic("twice", 2 * a)


def mixture() -> None:
    parts = dist.Normal(numbers(-2, 2), 1.0)
    z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(numbers(0.3, 0.7)), parts))
    pyro.sample("x", dist.Normal(z, 1.0), obs=number(0.5))


def unplated() -> None:
    """A site with as many rows as there are draws in the check."""
    b = pyro.sample("b", dist.Normal(torch.zeros(16, dtype=torch.float64), 1.0))
    pyro.sample("x", dist.Normal(b, 1.0), obs=torch.ones(16, dtype=torch.float64))


def gan_inside() -> Model:
    toy = affine_toy()
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)

    def model(y: Tensor) -> None:
        x = gan()
        pyro.sample("y", dist.Normal(x[..., :2], 0.5).to_event(1), obs=y)

    return model


class Module(pyro.nn.PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = pyro.nn.PyroModule[nn.Linear](2, 1)
        self.layer.weight = pyro.nn.PyroSample(dist.Normal(number(0), 1.0).expand([1, 2]).to_event(2))
        self.layer.bias = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> None:
        mean = self.layer(x).squeeze(-1)
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.ones(len(x), dtype=torch.float64))


def _rows(num: int, dim: int) -> Tensor:
    return torch.linspace(-1, 2, num * dim, dtype=torch.float64).reshape(num, dim).sin()


Y, SD = numbers(28, 8, -3, 7), numbers(15, 10, 16, 11)
# name -> model, args, kwargs
MODELS: dict[str, tuple[Model, tuple[Any, ...], dict[str, Any]]] = {
    "schools": (schools, (Y,), {"sd": SD}),
    "schools non-centred": (poutine.reparam(schools, config={"theta": LocScaleReparam(0.0)}), (Y,), {"sd": SD}),
    "regression": (regression, (_rows(9, 3), (torch.arange(9) % 2).double()), {}),
    "Dirichlet": (dirichlet, (torch.arange(8) % 3,), {}),
    "LKJ": (correlation, (), {}),
    "Uniform": (bounded, (), {}),
    "nested plates": (nested_plates, (), {}),
    "scaled, masked, factor": (weighed, (), {}),
    "mixture": (mixture, (), {}),
    "unplated": (unplated, (), {}),
    "GAN": (gan_inside(), (numbers(0.3, -0.5),), {}),
    "PyroModule": (Module(), (_rows(4, 2),), {}),
}


def target_of(name: str) -> ProgramTarget:
    model, args, kwargs = MODELS[name]
    target = make_target(model, args=args, context=kwargs)
    assert isinstance(target, ProgramTarget)
    return target


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mixture"])
def test_potential_and_gradient_are_pyros(name):
    model, args, kwargs = MODELS[name]
    target = target_of(name)
    _, potential_fn, transforms, _ = initialize_model(model, args, kwargs)
    z = target.sample_prior(NUM_ROWS)
    assert set(transforms) == set(target.transforms)

    leaf = z.clone().requires_grad_(True)
    expected = torch.stack([potential_fn(_row(target, leaf, i)) for i in range(NUM_ROWS)])
    (expected_grad,) = torch.autograd.grad(expected.sum(), leaf)
    value, grad = target.potential_and_grad(z)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(target.potential(z), expected.detach(), rtol=1e-9, atol=1e-9)


def test_a_mixture_prior_has_its_own_density():
    # Pyro itself does not find a transform for a mixture's support.
    target = target_of("mixture")
    z = target.sample_prior(NUM_ROWS)
    prior = MODELS["mixture"][0]
    trace = [poutine.trace(poutine.condition(prior, {"z": row[0]})).get_trace() for row in z]
    torch.testing.assert_close(target.potential(z), -torch.stack([t.log_prob_sum() for t in trace]))


@pytest.mark.parametrize("name", MODELS)
def test_prior_and_weight_are_the_potential(name):
    target = target_of(name)
    z = target.sample_prior(NUM_ROWS)
    assert z.shape == (NUM_ROWS, target.dim)
    log_prior, log_weight = target.log_prior(z), target.log_weight(z)
    torch.testing.assert_close(-log_prior - log_weight, target.potential(z))
    value, grad = target.log_prior_and_grad(z)
    torch.testing.assert_close(value, log_prior)
    half, half_grad = TemperedTarget(target, 0.5).potential_and_grad(z)
    torch.testing.assert_close(half, -log_prior - 0.5 * log_weight)
    torch.testing.assert_close(half_grad, 0.5 * (target.potential_and_grad(z)[1] - grad))


def test_weight_is_what_is_observed():
    target = target_of("scaled, masked, factor")
    z = target.sample_prior(NUM_ROWS)
    a = z[:, 0]
    seen = torch.stack([dist.Normal(a, 1.0).log_prob(number(k)) for k in (0, 2, 3)]).sum(0)
    own = dist.Normal(number(0), 1.0).log_prob(a)
    # A plate of ten rows of which four are given, and a latent site scaled by three that is drawn once.
    torch.testing.assert_close(target.log_weight(z), 2.5 * seen - a.abs() + 2 * own)
    torch.testing.assert_close(target.log_prior(z), own)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("together", [True, False])
def test_prior_draws_are_the_models(name, together):
    model, args, kwargs = MODELS[name]
    target = target_of(name)
    assert target._draws_together, f"{name} fell back to one run a draw"
    target._draws_together = together
    num = 400
    traces = [poutine.trace(model).get_trace(*args, **kwargs) for _ in range(num)]
    expected = {
        site: target.transforms[site](torch.stack([trace.nodes[site]["value"] for trace in traces]))
        for site in target.shapes
    }
    assert_same_distribution(target.sample_prior(num), target.pack(expected), name)


def test_rows_that_an_outer_plate_would_mix_are_drawn_one_by_one():
    def model() -> None:
        a = pyro.sample("a", dist.Normal(number(0), 1.0))
        # In a plate of draws this would be the mean over all draws.
        pyro.sample("b", dist.Normal(a.mean(), 0.1))

    target = ProgramTarget(model, (), {})
    assert not target._draws_together
    a, b = target.sample_prior(300).T
    assert_mean(b - a, 0.0)
    assert (b - a).std() < 0.2


def test_prior_runs_no_network_after_the_last_latent():
    calls = []

    def model() -> None:
        z = pyro.sample("z", dist.Normal(numbers(0, 0), 1.0).to_event(1))
        calls.append(1)
        pyro.factor("f", -z.square().sum(-1))

    target = ProgramTarget(model, (), {})
    calls.clear()
    z = target.sample_prior(5)
    target.log_prior(z)
    TemperedTarget(target, 0.0).potential_and_grad(z)
    assert not calls


def test_building_a_target_leaves_the_generator_alone():
    state = torch.get_rng_state()
    target_of("schools")
    assert torch.equal(state, torch.get_rng_state())


def test_chunks_change_nothing():
    target = target_of("regression")
    z = target.sample_prior(7)
    value, grad = target.potential_and_grad(z)
    target._chunk_size = 2
    torch.testing.assert_close(target.potential_and_grad(z), (value, grad))
    torch.testing.assert_close(target.potential(z), value)


def test_rows_keep_their_dtype():
    def model() -> None:
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=number(1))

    target = ProgramTarget(model, (), {})
    z = target.sample_prior(3)
    assert z.dtype == torch.float32
    assert [value.dtype for value in target.potential_and_grad(z)] == [torch.float32] * 2


def test_values_checked_by_distributions_made_outside():
    prior = dist.Normal(number(0), 1.0, validate_args=True).expand([2]).to_event(1)

    def model() -> None:
        z = pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(z[0], 1.0, validate_args=False), obs=number(1))

    target = ProgramTarget(model, (), {})
    z = target.sample_prior(3)
    torch.testing.assert_close(target.log_prior(z), prior.log_prob(z))
    with pytest.raises(ValueError):
        prior.log_prob(torch.full((2,), torch.nan, dtype=torch.float64))


def latent() -> Tensor:
    return pyro.sample("z", dist.Normal(number(0), 1.0))


def branches() -> None:
    z = latent()
    pyro.factor("f", z if z > 0 else -z)


def leaves_torch() -> None:
    pyro.factor("f", number(np.sin(float(latent()))))


def picks_rows() -> None:
    z = pyro.sample("z", dist.Normal(numbers(0, 0, 0), 1.0).to_event(1))
    pyro.factor("f", -z[z > 0].sum())


def draws_noise() -> None:
    pyro.factor("f", -(latent() + torch.randn(())).square())


def draws_other_noise() -> None:
    pyro.factor("f", -(latent() + 5 * np.random.default_rng().normal()).square())


def drops_out() -> None:
    pyro.factor("f", nn.functional.dropout(latent(), 0.5, training=True))


def normalises() -> None:
    z = pyro.sample("z", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
    pyro.factor("f", nn.BatchNorm1d(2)(z).sum())


def writes_in_place() -> None:
    z, both = latent(), torch.zeros(2, dtype=torch.float64)
    both[0] = z
    pyro.factor("f", -both.square().sum())


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def own_function() -> None:
    pyro.factor("f", -Double.apply(latent()).square())


def multinomial() -> None:
    p = pyro.sample("p", dist.Dirichlet(numbers(1, 1)))
    pyro.sample("x", dist.Multinomial(3, p), obs=numbers(1, 2))


def subsamples() -> None:
    z = latent()
    with pyro.plate("row", 10, subsample_size=4):
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(4).double())


def masked() -> None:
    with poutine.mask(mask=torch.tensor([True, False])):
        pyro.sample("z", dist.Normal(numbers(0, 0), 1.0))


def masked_inside() -> None:
    pyro.sample("z", dist.Normal(numbers(0, 0), 1.0).mask(torch.tensor([True, False])).to_event(1))


def moving_support() -> None:
    pyro.sample("b", dist.Uniform(0.0, latent().exp()))


def comes_and_goes() -> None:
    z = latent()
    pyro.sample("w", dist.Normal(z, 1.0).expand([int(1e6 * z.abs())]).to_event(1))


def two_dtypes() -> None:
    latent()
    pyro.sample("w", dist.Normal(torch.tensor(0.0), 1.0))


def improper() -> None:
    pyro.sample("z", dist.ImproperUniform(constraints.real, (), ()))


def a_point() -> None:
    pyro.sample("z", dist.Delta(number(1)))


def nothing_latent() -> None:
    pyro.sample("x", dist.Normal(number(0), 1.0), obs=number(0))


def impossible_data() -> None:
    pyro.sample("x", dist.Bernoulli(logits=latent()), obs=number(2))


def data_of_another_shape() -> None:
    pyro.sample("x", dist.Normal(latent(), 1.0).expand([3]).to_event(1), obs=numbers(1, 2))


BAD: dict[Model, str] = {
    impossible_data: r"observed at the site 'x' does not fit its distribution.*support",
    data_of_another_shape: r"observed at the site 'x' does not fit its distribution",
    branches: r"branches in Python on a latent.*torch\.where.*NUTS",
    leaves_torch: r"takes one out of torch.*torch\.where",
    picks_rows: r"branches in Python on a latent, or takes one out.*x\[x > 0\]",
    draws_noise: r"draws noise outside its latent sites.*Make the noise a latent site",
    draws_other_noise: r"depends on more than its sites.*make the noise a latent site",
    drops_out: r"draws noise outside its latent sites.*\.eval\(\)",
    normalises: r"BatchNorm in training mode.*\.eval\(\)",
    writes_in_place: r"writes a latent into a tensor.*torch\.stack",
    own_function: r"autograd\.Function that has no vmap.*generate_vmap_rule",
    multinomial: r"at the site 'x' \(Multinomial\).*pyro\.factor",
    subsamples: r"plate 'row' draws 4 of 10 rows at random.*subsample=",
    masked: r"latent site 'z' is masked.*without a mask",
    masked_inside: r"latent site 'z' is masked.*without a mask",
    moving_support: r"support of the latent site 'b' moves.*fixed interval",
    comes_and_goes: r"same latent sites in each run",
    two_dtypes: r"of one dtype.*float32.*float64.*Build the priors",
    improper: r"ImproperUniform.*wide proper one",
    a_point: r"'z' is a Delta.*pyro\.deterministic",
    nothing_latent: r"Expected a model with a latent site",
}


@pytest.mark.parametrize("model", BAD, ids=lambda model: model.__name__)
def test_a_bad_model_raises_and_the_error_names_the_cure(model):
    with pytest.raises(ValueError, match="(?s)" + BAD[model]):
        ProgramTarget(model, (), {})


@pytest.mark.parametrize("model", [branches, own_function, multinomial], ids=lambda model: model.__name__)
def test_an_error_names_the_line_of_the_users_code(model):
    """Not a line of torch, of Pyro or of this package; a helper that the model calls counts as the user's code."""
    with pytest.raises(ValueError) as caught:
        ProgramTarget(model, (), {})
    file, line = re.search(r", in (\S+), line (\d+): ", str(caught.value)).groups()
    source, first = inspect.getsourcelines(model)
    assert file == __file__ and first <= int(line) < first + len(source)


def test_a_models_own_error_comes_through():
    def model() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ProgramTarget(model, (), {})


def test_arguments_go_where_they_are_taken():
    toy = affine_toy()
    gan = LatentPosterior(toy.generator, toy.log_ratio, toy.prior)
    target = make_target(gan)
    with pytest.raises(ValueError, match="as keywords; got 1 positional"):
        make_target(gan, args=(1,))
    with pytest.raises(ValueError, match="model to be a function or a network; got 'model'"):
        make_target("model")
    with pytest.raises(ValueError, match="no arguments for a bare potential_fn; got 1 positional and 0 keyword"):
        make_target(None, lambda p: p["z"], args=(1,))
    with pytest.raises(ValueError, match="no arguments for a target; got 0 positional and 1 keyword"):
        make_target(target, context={"y": 1})
    with pytest.raises(ValueError, match="exactly one of model and potential_fn; got neither"):
        make_target(None)
    assert make_target(target) is target


def test_training_mode_is_seen():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self) -> None:
            latent()

    with pytest.raises(ValueError, match=r"model in evaluation mode.*model\.eval\(\)"):
        ProgramTarget(Net(), (), {})


def _row(target: Target, z: Tensor, i: int) -> dict[str, Tensor]:
    return {name: value[i] for name, value in target.unpack(z).items()}
