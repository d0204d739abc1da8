"""How the tests call the public functions of `pyro_gan.evaluate`; a new metric with a plain call needs no line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import torch
from sklearn.naive_bayes import GaussianNB
from torch import Tensor

from pyro_gan import evaluate
from pyro_gan.evaluate import Metric

__all__ = ["FUNCTIONS", "METRICS", "Measured", "call", "is_random", "measure", "takes_two_samples", "valid_arguments"]

#: The public functions, by name, and those of them that are marked as metrics.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(evaluate, name) for name in evaluate.__all__ if inspect.isfunction(getattr(evaluate, name))
}
METRICS = {name: function for name, function in FUNCTIONS.items() if hasattr(function, "metric")}


def first(x: Tensor) -> Tensor:
    """The first number of each row: a critic of slope 1, and the score of a row."""
    return x.flatten(1)[:, 0]


#: Arguments of a metric beside the two samples, if the plain call lacks one or takes long.
SETTINGS: dict[str, dict[str, Any]] = {
    "c2st": {"classifier": GaussianNB()},
    "critic_distance": {"critic": first, "lipschitz": 1.0},
    "mmd_test": {"num_permutations": 99},
    "projected_distance": {"num_projections": 4},
    "residual_auc": {"classifier": GaussianNB()},
    "total_variation_bound": {"classifier": GaussianNB()},
    "wasserstein_bound": {"num_steps": 2},
}
#: What a metric compares in place of rows.
SAMPLES: dict[str, Callable[[Tensor], Tensor]] = {"score_distance": first}


def temperatures() -> dict[str, Any]:
    return {"features": torch.randn(60, 2), "log_ratio": torch.randn(60), "real_features": torch.randn(60, 2)}


#: Arguments of the public functions that are no metrics.
ARGUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "assign_modes": lambda: {"samples": torch.randn(20, 2), "means": torch.zeros(1, 2), "sd": 1.0},
    "class_counts": lambda: {"log_probabilities": torch.randn(20, 4).log_softmax(-1)},
    "classifier_score": lambda: {"log_probabilities": torch.randn(20, 4).log_softmax(-1)},
    "closest_pairs": lambda: {"samples": torch.randn(20, 2)},
    "certify_temperature": lambda: temperatures() | {"inverse_temperatures": [0.5]},
    "choose_temperature": lambda: temperatures(),
    "collision_sample_size": lambda: {"support_size": 10, "distance": 0.5},
    "collision_test": lambda: {"samples": torch.randn(20, 2)},
    "compare": lambda: {
        "before": torch.randn(100, 2),
        "after": torch.randn(100, 2),
        "real": torch.randn(100, 2),
        "features": torch.clone,
        "classes": lambda x: (x[:, 0] > 0).long(),
        "classifier": GaussianNB(),
    },
    "expected_after_steps": lambda: {"log_weights": torch.randn(5, 4), "values": torch.randn(5, 4)},
    "extract_features": lambda: {"samples": torch.randn(20, 2), "network": torch.atleast_2d},
    "frechet_change": lambda: {
        "features": torch.randn(60, 3),
        "log_weights": torch.randn(60),
        "real": torch.randn(60, 3),
        "num_bootstrap": 20,
    },
    "lipschitz_constant": lambda: {"network": torch.nn.Linear(2, 1)},
    "lipschitz_mlp": lambda: {"num_features": 3},
    "mode_jsd": lambda: {"counts": torch.ones(4)},
    "mode_report": lambda: {"samples": torch.randn(20, 2), "means": torch.zeros(1, 2), "sd": 1.0},
    "ms_ssim": lambda: {"images": torch.rand(8, 11, 11)},
    "num_distinct": lambda: {"samples": torch.randn(20, 2)},
    "occupancy": lambda: {"log_weights": torch.randn(5, 4)},
    "pair_distance": lambda: {"samples": torch.randn(20, 2)},
    "plot_acceptance": lambda: {"sample_stats": {"accept_prob": torch.rand(3, 2), "moved": torch.ones(3, 2)}},
    "plot_before_after": lambda: {"before": torch.rand(4, 5, 5), "after": torch.rand(4, 5, 5)},
    "plot_expected": lambda: {"expected": evaluate.Estimate(torch.rand(5), torch.rand(5))},
    "plot_frontier": lambda: {"ess_fractions": [0.5, 0.1], "qualities": [0.6, 0.4]},
    "plot_images": lambda: {"images": torch.rand(4, 5, 5)},
    "plot_points": lambda: {"samples": torch.randn(9, 2)},
    "plot_reliability": lambda: {"table": (torch.rand(3), torch.rand(3), torch.ones(3))},
    "plot_scores": lambda: {"log_ratios": {"real": torch.randn(9)}},
    "projection_constant": lambda: {"num_features": 3},
    "total_variation": lambda: {"counts": torch.ones(3), "reference": torch.ones(3)},
}


class Measured(NamedTuple):
    """What a metric finds: its figure, and that figure's standard error (NaN if it states none)."""

    figure: float
    error: float


def valid_arguments(name: str) -> dict[str, Any]:
    """Return arguments with which a public function succeeds."""
    if name in ARGUMENTS:
        return ARGUMENTS[name]()
    assert name in METRICS, f"Say in {__name__}.ARGUMENTS how {name} is called, or mark it as a metric."
    compared = SAMPLES.get(name, torch.clone)
    samples = {side: compared(torch.randn(60, 3)) for side in ("outputs", "real")}
    return samples | SETTINGS.get(name, {})


def call(name: str, outputs: Tensor, real: Tensor, **settings: Any) -> Any:
    """Call a metric on two sets of rows."""
    compared = SAMPLES.get(name, torch.clone)
    return METRICS[name](compared(outputs), compared(real), **SETTINGS.get(name, {}) | settings)


def measure(name: str, outputs: Tensor, real: Tensor, *, seed: int = 0) -> Measured:
    """Return a metric's figure for two sets of rows; `seed` is that of a metric which takes one."""
    facts: Metric = METRICS[name].metric
    seeds = {"seed": seed} if is_random(name) else {}
    result = call(name, outputs, real, **seeds)
    if isinstance(result, float):
        return Measured(result, float("nan"))
    error = float("nan") if facts.error is None else getattr(result, facts.error)
    return Measured(getattr(result, facts.figure), error)


def is_random(name: str) -> bool:
    """Whether a metric deals its rows at random, so that only its mean is invariant."""
    return "seed" in inspect.signature(METRICS[name]).parameters


def takes_two_samples(function: Callable[..., Any]) -> bool:
    """Whether the first two parameters are tensors whose first axis is one of draws, or has no name."""
    if "Axes" in str(inspect.signature(function).return_annotation):
        return False
    hints = get_type_hints(function)
    types = [hints.get(parameter) for parameter in [*inspect.signature(function).parameters][:2]]
    axes = [getattr(kind, "dim_str", "draw" if kind is Tensor else "") for kind in types]
    return len(axes) == 2 and all(axis.strip().startswith("draw") for axis in axes)
