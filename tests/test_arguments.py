"""Wrong arguments are refused where they are given, with the argument, what came, and the cure."""

from __future__ import annotations

import functools
import inspect
import math
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ExpTransform
from torch.utils.data import DataLoader, Dataset

from pyro_gan import LatentPosterior, LogRatio, VectorizedMCMC, calibrate, checks, evaluate, fit_log_ratio, toys
from pyro_gan.checks.calls import takes_context
from pyro_gan.latent import LatentPrior
from pyro_gan.mcmc import MALA
from pyro_gan.objectives import Bernoulli, fit_gan
from pyro_gan.ratio import MeanLogRatio
from pyro_gan.vi import AggregatedRatio, ConditionalRatio, GaussianGuide, ImplicitGuide, Joined, encoder_starts

PRIOR = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
GENERATOR = nn.Linear(2, 3)
ROWS = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))


def score(x: Tensor) -> Tensor:
    return -x.square().sum(-1)


def refused(call: Callable[[], Any], *words: str) -> str:
    """Return the error of a call, which is a ValueError with these words, what came, and a cure after it."""
    with pytest.raises(ValueError) as caught:
        call()
    text = str(caught.value)
    assert all(word in text for word in words), text
    _, got, rest = text.partition("; got ")
    assert got, f"the error says nothing of what came: {text}"
    assert len(rest.split(". ")) > 1, f"the error has no cure: {text}"
    return text


# What is no network.


class Named(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


NO_NETWORKS: dict[str, Any] = {
    "name": "generator", "none": None, "class": Named, "number": 3, "tensor": torch.zeros(2), "list": [Named()],
}  # fmt: skip
# Each door that takes a network: its argument, and a call with it.
DOORS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "LatentPrior": ("generator", lambda network: LatentPrior(network, PRIOR)),
    "LatentPosterior": ("generator", lambda network: LatentPosterior(network, score, PRIOR)),
    "its ratio": ("log_ratio", lambda network: LatentPosterior(GENERATOR, network, PRIOR)),
    "LogRatio": ("critic", lambda network: LogRatio(network, Bernoulli())),
    "from_probability": ("discriminator", LogRatio.from_probability),
    "calibrate": ("critic", lambda network: calibrate(network, ROWS, ROWS + 1)),
    "fit_log_ratio": ("generator", lambda network: fit_log_ratio(network, PRIOR, ROWS, nn.Linear(3, 1))),
    "Joined": ("network", Joined),
    "AggregatedRatio": ("network", AggregatedRatio),
    "ConditionalRatio": ("network", ConditionalRatio),
    "GaussianGuide": ("network", lambda network: GaussianGuide(network, dim=2)),
    "ImplicitGuide": ("network", lambda network: ImplicitGuide(network, PRIOR, event_shape=(2,))),
}


@pytest.mark.parametrize("bad", NO_NETWORKS)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_network_is_refused(door: str, bad: str) -> None:
    name, call = DOORS[door]
    text = refused(lambda: call(NO_NETWORKS[bad]), name)
    if bad == "class":
        assert "Make an instance of the class first: Named(...)" in text
    if bad == "name":
        assert "not its name" in text


# Networks with a fault. Their error must name the network, and come when the posterior is built.

FAULTY: dict[str, tuple[Callable[..., Any], str]] = {
    "adds None": (lambda x: x + None, "TypeError"),
    "divides by zero": (lambda x: 1 // 0, "ZeroDivisionError"),
    "has no attribute": (lambda x: x.missing, "AttributeError"),
    "has no key": (lambda x: {}["key"], "KeyError"),
    "asserts": (lambda x: _fail(x), "AssertionError"),
    "takes nothing": (lambda: 0, "TypeError"),
    "has no forward": (nn.Module(), "NotImplementedError"),
    "has another width": (nn.Linear(7, 1), "RuntimeError"),
    "indexes too far": (lambda x: x[999], "IndexError"),
}


def _fail(x: Tensor) -> Tensor:
    assert not len(x), "no rows are wanted"
    return x


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_faulty_network_is_named_at_construction(fault: str, wrapped: bool) -> None:
    network, error = FAULTY[fault]
    refused(lambda: LatentPrior(network, PRIOR), "generator", "latents of shape (8, 2)", error)
    refused(lambda: LatentPosterior(network, score, PRIOR), "generator", "latents of shape (8, 2)", error)
    # A LogRatio takes any keyword and passes it on, so its own signature tells nothing.
    ratio = LogRatio(network, Bernoulli()) if wrapped else network
    refused(lambda: LatentPosterior(GENERATOR, ratio, PRIOR), "log_ratio", "data of shape (8, 3)", error)


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda x: (x, x), "dict": lambda x: {"x": x}, "list": lambda x: [x], "none": lambda x: None,
    "array": lambda x: x.detach().numpy(), "text": lambda x: "x",
}  # fmt: skip


class Returns(nn.Module):
    def __init__(self, sizes: tuple[int, int], output: str) -> None:
        super().__init__()
        self.layer, self.output = nn.Linear(*sizes), output

    def forward(self, x: Tensor) -> Any:
        return OUTPUTS[self.output](self.layer(x))


@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_that_are_no_tensor_are_refused(output: str) -> None:
    generator, critic = Returns((2, 3), output), Returns((3, 1), output)
    adam = functools.partial(torch.optim.Adam, lr=0.1)
    settings: dict[str, Any] = {"prior": PRIOR, "data": ROWS, "objective": Bernoulli(), "num_steps": 1, "batch_size": 4}

    def train(generator: nn.Module, critic: nn.Module) -> Any:
        optimizers = {
            "generator_optimizer": adam(generator.parameters()),
            "critic_optimizer": adam(critic.parameters()),
        }
        return fit_gan(generator, critic, progress=False, **settings, **optimizers)

    kind = {"none": "None", "array": "ndarray", "text": "'x'"}.get(output, output)
    for call in (
        lambda: LatentPrior(generator, PRIOR), lambda: LatentPosterior(generator, score, PRIOR),
        lambda: fit_log_ratio(generator, PRIOR, ROWS, nn.Linear(3, 1)), lambda: train(generator, nn.Linear(3, 1)),
    ):  # fmt: skip
        refused(call, "genera", kind)
    for call in (
        lambda: LatentPosterior(GENERATOR, critic, PRIOR), lambda: calibrate(critic, ROWS, ROWS + 1),
        lambda: fit_log_ratio(GENERATOR, PRIOR, ROWS, critic), lambda: train(nn.Linear(2, 3), critic),
    ):  # fmt: skip
        refused(call, "critic", "critic(x)[0]")


def test_scores_of_patches_are_refused_with_their_mean_as_the_cure() -> None:
    patches = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 1, 1))
    for call in (lambda: LatentPosterior(GENERATOR, patches, PRIOR), lambda: calibrate(patches, ROWS, ROWS + 1)):
        refused(call, "critic(x).flatten(1).mean(1)")
    LatentPosterior(GENERATOR, lambda x: patches(x).flatten(1).mean(1), PRIOR)


# Priors.

BAD_PRIORS: dict[str, Any] = {
    "none": None, "name": "normal", "list": [PRIOR, PRIOR], "class": dist.Normal, "tensor": torch.zeros(2),
    "function": lambda: PRIOR, "of one number": dist.Normal(0.0, 1.0), "of many": dist.Normal(torch.zeros(3, 2), 1.0),
    "of no dimensions": dist.Normal(torch.zeros(0), 1.0).to_event(1),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PRIORS)
def test_priors_that_are_none_are_refused(name: str) -> None:
    prior = BAD_PRIORS[name]
    cure = "dist.Normal(0., 1.).expand([dim]).to_event(1)"
    refused(lambda: LatentPosterior(GENERATOR, score, prior), "prior", cure)
    refused(lambda: LatentPrior(nn.Identity(), prior), "prior", cure)
    if name not in ("of one number", "of many"):  # which have other generators
        optimizer = torch.optim.Adam(GENERATOR.parameters())
        refused(lambda: fit_log_ratio(GENERATOR, prior, ROWS, nn.Linear(3, 1)), "prior")
        refused(
            lambda: fit_gan(
                GENERATOR, None, prior=prior, data=ROWS, objective=_distance(), generator_optimizer=optimizer,
                num_steps=1, batch_size=4, progress=False,
            ), "prior",
        )  # fmt: skip


def _distance() -> Any:
    from pyro_gan.objectives import MMD, GaussianKernel

    return MMD(GaussianKernel([1.0]))


# Data of other libraries.


class Table:
    """Stands for a data frame: it has `to_numpy`."""

    def to_numpy(self) -> np.ndarray:
        return ROWS.numpy()


class Items(Dataset[Tensor]):
    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> Tensor:
        return ROWS[index]


SETS: dict[str, Any] = {
    "array": ROWS.numpy(), "list": ROWS.tolist(), "table": Table(), "dataset": Items(), "none": None, "text": "rows",
    "loader": DataLoader(Items(), batch_size=10), "tensors": list(ROWS), "dict": {"x": ROWS}, "number": 3.0,
}  # fmt: skip
GAN = LatentPosterior(GENERATOR, score, PRIOR)
DATA_DOORS: dict[str, Callable[[Any], Any]] = {
    "calibrate real": lambda rows: calibrate(nn.Linear(3, 1), rows, ROWS),
    "calibrate generated": lambda rows: calibrate(nn.Linear(3, 1), ROWS, rows),
    "fit_log_ratio": lambda rows: fit_log_ratio(GENERATOR, PRIOR, rows, nn.Linear(3, 1)),
    "decode": GAN.decode,
    "check": lambda rows: GAN.check(rows, num_draws=200),
}
METRICS = [
    getattr(evaluate, name)
    for name in evaluate.__all__
    if inspect.isfunction(getattr(evaluate, name))
    and list(inspect.signature(getattr(evaluate, name)).parameters)[:2] == ["outputs", "real"]
]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("door", DATA_DOORS)
def test_other_containers_are_refused_with_the_conversion(door: str, name: str) -> None:
    # None means: without real rows. A dict may hold latents by name.
    if (door, name) not in (("check", "none"), ("decode", "dict")):
        text = refused(lambda: DATA_DOORS[door](SETS[name]), "to be a torch.Tensor", "torch.as_tensor(")
        assert ("to_numpy" in text) == (name == "table") and ("in loader" in text) == (name == "loader")


def test_there_are_metrics_to_try() -> None:
    assert len(METRICS) >= 8


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
def test_metrics_refuse_other_containers(metric: Any) -> None:
    right = ROWS[:, 0] if metric is evaluate.score_distance else ROWS
    needed = {"critic": nn.Linear(3, 1), "lipschitz": 1.0} if metric is evaluate.critic_distance else {}
    for rows in SETS.values():
        refused(lambda rows=rows: metric(rows, right, **needed), "outputs", "torch.as_tensor(")
        refused(lambda rows=rows: metric(right, rows, **needed), "real", "torch.as_tensor(")


def test_the_conversions_that_errors_name_work() -> None:
    for code in (
        "torch.as_tensor(table.to_numpy())",
        "torch.cat([torch.as_tensor(batch) for batch in loader])",
        "torch.stack([torch.as_tensor(row) for row in dataset])",
    ):
        names = {"torch": torch, "table": Table(), "loader": SETS["loader"], "dataset": Items()}
        assert torch.equal(eval(code, names), ROWS)


def test_latents_of_another_dtype_are_refused() -> None:
    for z in (torch.zeros(5, 2).double(), torch.zeros(5, 2).long()):
        refused(lambda z=z: GAN.decode(z), "latents", str(z.dtype), ".to(")
    assert GAN.decode(torch.zeros(0, 2)).shape == (0, 3)


# Conditional networks.


class Conditional(nn.Module):
    def __init__(self, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.layer = nn.Linear(sizes[0] + 1, sizes[1])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.layer(torch.cat([x, label[:, None].to(x)], 1))


@pytest.mark.parametrize("call", ["decode", "check", "potential", "model", "validate"])
@pytest.mark.parametrize(
    "context", [{}, {"lable": torch.tensor(1.0)}, {"label": 1}], ids=["none", "misspelt", "number"]
)
def test_a_wrong_label_is_named(call: str, context: dict[str, Any]) -> None:
    gan = LatentPosterior(Conditional((2, 3)), Conditional((3, 1)), PRIOR)
    calls: dict[str, Callable[..., Any]] = {
        "decode": lambda **context: gan.decode(torch.zeros(5, 2), **context),
        "check": lambda **context: gan.check(ROWS, num_draws=200, **context),
        "potential": lambda **context: gan.potential_fn({"z": torch.zeros(5, 2)}, **context),
        "model": gan,
        "validate": gan.validate,
    }
    text = refused(lambda: calls[call](**context), "generator", "label=...")
    assert ("the keywords " + "".join(context) if context else "no keywords") in text


def test_a_label_that_a_network_does_not_take_is_named() -> None:
    refused(lambda: GAN.decode(torch.zeros(5, 2), label=torch.tensor(1)), "generator", "keywords label")
    gan = LatentPosterior(Conditional((2, 3)), score, PRIOR)
    refused(lambda: gan.validate(label=torch.tensor(1.0)), "log_ratio", "lambda x, label: critic(x)")


def test_signatures_tell_what_may_take_context() -> None:
    plain, conditional = nn.Linear(2, 1), Conditional((2, 1))
    for network, answer in (
        (plain, False), (conditional, True), (lambda z: z, False), (lambda z, label=None: z, True),
        (lambda z, **context: z, True), (nn.Sequential(plain), False), (toys.MLP([2, 1]), False),
        (LogRatio(plain, Bernoulli()), False), (LogRatio(conditional, Bernoulli()), True),
        (LogRatio(lambda x: x, Bernoulli()), False), (MeanLogRatio([plain, plain]), False),
        (MeanLogRatio([plain, conditional]), True), (functools.partial(conditional, label=3), True), (torch.sin, True),
    ):  # fmt: skip
        assert takes_context(network) is answer, network


# The rest of the list.


def test_starts_of_another_size_are_refused() -> None:
    wide = GaussianGuide(nn.Linear(3, 6), dim=3)
    refused(lambda: encoder_starts(wide, torch.zeros(5, 3), model=GAN), "latents of the encoder", "(5, 3)")
    before = torch.get_rng_state()
    torch.manual_seed(0)
    starts = encoder_starts(GaussianGuide(nn.Linear(3, 4), dim=2), torch.zeros(5, 3), model=GAN)
    torch.manual_seed(0)
    torch.randn(5, 2)  # the draws of the encoder, and no others
    assert starts["z"].shape == (5, 2) and not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 2**64, 1.5, None, "0", True, math.nan])
def test_seeds_have_one_range(seed: Any) -> None:
    for call in (
        lambda: GAN.check(ROWS, num_draws=200, seed=seed), lambda: toys.swiss_roll(seed=seed),
        lambda: calibrate(nn.Linear(3, 1), ROWS, ROWS + 1, seed=seed), lambda: evaluate.c2st(ROWS, ROWS + 1, seed=seed),
    ):  # fmt: skip
        refused(call, "seed", "between 0 and 4294967295", str(seed))
    evaluate.pair_distance(ROWS, seed=2**32 - 1)


def potential(params: Any) -> Tensor:
    """Return minus the log density of log z for a standard exponential z, with the Jacobian."""
    return params["z"].exp().sum(-1) - params["z"].sum(-1)


def runner(transforms: Any, model: Any = None) -> VectorizedMCMC:
    kernel = MALA(potential_fn=potential) if model is None else MALA(model)
    starts = {"z": torch.zeros(50, 1)} if model is None else None
    return VectorizedMCMC(
        kernel, 50, 50, num_chains=50, initial_params=starts, transforms=transforms, disable_progbar=True
    )


def test_transforms_belong_to_a_bare_potential() -> None:
    right = {"z": ExpTransform().inv}
    refused(lambda: runner(right, GAN), "transforms", "beside a model", "Jacobians")
    refused(lambda: runner({"y": right["z"]}), "['z']", "['y']")
    for bad in ("z", [1], 3, {"z": 3}, {"z": ExpTransform}, {"z": torch.log}, {"z": None}):
        refused(lambda bad=bad: runner(bad), "transform")
    mcmc = runner(right)
    mcmc.run()
    z = mcmc.get_samples(group_by_chain=True)["z"].mean((1, 2))
    assert abs(float(z.mean()) - 1) < 4.4 * float(z.std()) / 50**0.5  # one of 100 000 sets of exact chains fails


# The validators, on random values: each returns a valid value, or an error with the name and what came.

VALUES: list[Callable[[], Any]] = [
    lambda: random.randint(-5, 10), lambda: random.uniform(-2, 2), lambda: 10.0 ** random.randint(-300, 300),
    lambda: random.choice([math.nan, math.inf, -math.inf, -0.0, None, True, False, "", "3", b"3", [], [1], {}, 1j]),
    lambda: torch.tensor(random.randint(-3, 3)), lambda: torch.randn(random.randint(0, 3)), lambda: np.float32(0.5),
    lambda: np.int64(random.randint(-3, 3)), lambda: object(), lambda: int, lambda: 10**random.randint(0, 400),
    lambda: torch.tensor(math.nan), lambda: np.array([1.0, 2.0]), lambda: torch.tensor(1j),
]  # fmt: skip


def validators(low: int | None, high: int | None) -> list[tuple[Callable[[Any], Any], Callable[[Any], bool]]]:
    """Return checks with what holds of each value that they return."""
    least, most = low or 0, math.inf if high is None else high
    return [
        (lambda v: checks.count("n", v, minimum=least, maximum=high), lambda n: type(n) is int and least <= n <= most),
        (lambda v: checks.real("n", v, above=low, below=high), lambda n: math.isfinite(n) and n < most),
        (lambda v: checks.real("n", v, minimum=low, maximum=high), lambda n: low is None or low <= n),
        (checks.random_seed, lambda n: 0 <= n < 2**32),
        (lambda v: checks.tensor("n", v), lambda n: isinstance(n, Tensor)),
        (lambda v: checks.rows("n", v), lambda n: len(n) > 0 and bool(torch.isfinite(n).all())),
        (lambda v: checks.choice("n", v, ("a", "3")), lambda n: n in ("a", "3")),
        (lambda v: checks.function("n", v), callable),
        (lambda v: checks.instance("n", v, float, str), lambda n: isinstance(n, float | str)),
    ]


def test_validators_return_a_valid_value_or_name_what_came() -> None:
    valid = refusals = 0
    for _ in range(3000):
        value = random.choice(VALUES)()
        bounds = random.choice([None, random.randint(-3, 3)]), random.choice([None, random.randint(4, 8)])
        for check, holds in validators(*bounds):
            try:
                found = check(value)
            except ValueError as error:
                refusals += 1
                assert re.match(
                    r"Expected (a |finite |a finite |a positive, finite )?(n|seed)\b.*; got ", str(error)
                ), error
            else:
                valid += 1
                assert holds(found), (value, found)
    assert valid > 1000 and refusals > 1000
