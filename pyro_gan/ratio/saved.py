"""A log ratio in a file, whole: weights, map, guard, constant, objective, report; arrays and JSON, no pickle."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from pyro_gan import checks, files, objectives
from pyro_gan._typing import Critic
from pyro_gan.importance import WeightTail
from pyro_gan.objectives import Objective
from pyro_gan.ratio import maps
from pyro_gan.ratio.calibrators import CalibratedLogRatio, CalibrationReport, RowCounts
from pyro_gan.ratio.diagnostics import FrontierPoint, RatioReport, Reliability
from pyro_gan.ratio.ensemble import MeanLogRatio
from pyro_gan.ratio.heads import LogOdds, LogRatio
from pyro_gan.ratio.maps import Calibrator
from pyro_gan.ratio.maps.base import Fitted
from pyro_gan.ratio.reference import Reference
from pyro_gan.ratio.telescope import SumLogRatio, Telescoping

__all__ = ["load_log_ratio", "save_log_ratio"]

#: What a file says that it is; the number rises when its content changes.
KIND = "log ratio"

#: The records of a report, by name.
_RECORDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        CalibrationReport,
        FrontierPoint,
        RatioReport,
        Reference,
        Reliability,
        RowCounts,
        Telescoping,
        WeightTail,
    )
}

#: What a `LogRatio` knows beside its critic and objective.
_KNOWN = ("report", "frontier", "ended", "reference", "telescoping")


def save_log_ratio(log_ratio: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a log ratio to a file: its networks' weights and all that was found in data, and the report.

    The file is JSON and arrays, in the layout of safetensors. A crash leaves the old file or the new one. What a plain
    function computes cannot be written: give it again to `load_log_ratio`.

    Args:
        log_ratio: A `LogRatio`, or what `calibrate` or `fit_log_ratio` returned.
        path: The file, in an existing folder.

    Raises:
        ValueError: for something else, an objective or a map of your own, or a folder that does not exist.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from pyro_gan.objectives import Bernoulli
        >>> log_ratio = LogRatio(nn.Linear(2, 1), Bernoulli(class_prior=0.2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_log_ratio(log_ratio, f"{folder}/ratio.safetensors")
        ...     loaded = load_log_ratio(f"{folder}/ratio.safetensors", nn.Linear(2, 1))
        >>> x = torch.randn(5, 2)
        >>> torch.equal(loaded(x), log_ratio(x)), loaded.objective
        (True, Bernoulli(class_prior=0.2))
    """
    checks.instance("log_ratio", log_ratio, LogRatio, CalibratedLogRatio, cure="Wrap the critic: LogRatio(critic, ...)")
    described = _described(log_ratio)
    files.save(path, {"log_ratio": described, "state": dict(log_ratio.state_dict())}, kind=KIND)


def load_log_ratio(path: str | os.PathLike[str], critic: Critic | Sequence[Critic]) -> LogRatio | CalibratedLogRatio:
    """Build the log ratio that `save_log_ratio` wrote, around networks like those that were in it.

    Args:
        path: The file.
        critic: A network of the same layers; it gets the weights of the file, and is shared. Several networks in their
            order if the log ratio was a mean of several. If the critic was a function, that function.

    Returns:
        The log ratio, which gives the same values, with its report.

    Raises:
        ValueError: if the file is damaged or no log ratio, or the networks are not of its layers. No network has
            changed then.
    """
    content = files.load(path, kind=KIND)
    given = list(critic) if isinstance(critic, Sequence) and not isinstance(critic, nn.Module) else [critic]
    critics = iter([checks.function("critic", each) for each in given])
    built = _built(content["log_ratio"], critics)
    if next(critics, None) is not None:
        raise ValueError(f"Expected fewer networks than {len(given)}: the log ratio has not so many. Leave some out.")
    there, here = content["state"], built.state_dict()
    # Maps take over the shapes of the numbers that were found; networks have theirs.
    fitted = {name for name, module in built.named_modules() if isinstance(module, Fitted)}
    for name in {**here, **there}:
        if _shape(there, name) != _shape(here, name) and not (name in there and name.rpartition(".")[0] in fitted):
            raise ValueError(
                f"Expected a critic with the weights of the file; {name!r} is {_shape(there, name)} there and "
                f"{_shape(here, name)} here. Build the network that was saved."
            )
    built.load_state_dict(there)
    return built


def _described(module: Any) -> dict[str, Any]:
    """Return what is needed to build a log ratio again, without its weights."""
    if isinstance(module, LogRatio):
        known = {name: _plain(getattr(module, name)) for name in _KNOWN}
        return {"class": "LogRatio", "objective": _plain(module.objective), **known, "of": [_described(module.critic)]}
    if isinstance(module, CalibratedLogRatio):
        method = type(module.calibrator).__name__
        if getattr(maps, method, None) is not type(module.calibrator):
            raise ValueError(
                f"Expected a map of pyro_gan.ratio; got {method}, which a file cannot name. Use its state."
            )
        report = _plain(module.report)
        return {"class": "CalibratedLogRatio", "method": method, "report": report, "of": [_described(module.critic)]}
    if isinstance(module, MeanLogRatio | SumLogRatio):
        return {"class": type(module).__name__, "of": [_described(member) for member in module.members]}
    if isinstance(module, LogOdds):
        return {"class": "LogOdds", "of": [_described(module.discriminator)]}
    return {"class": "network", "layers": _layers(module), "of": []}


def _built(saved: dict[str, Any], critics: Iterator[Critic]) -> Any:
    """Build what `_described` described, around the networks that are given, in their order."""
    kind = saved["class"]
    if kind == "network":
        critic = next(critics, None)
        if critic is None:
            raise ValueError("Expected a network for each of a mean of several; got too few. Pass them all, in order.")
        if _layers(critic) != saved["layers"]:
            raise ValueError(
                f"Expected a critic of the layers that were saved, {saved['layers'] or 'a plain function'}; got "
                f"{_layers(critic) or 'a plain function'}. Build the same network."
            )
        return critic
    inner = [_built(each, critics) for each in saved["of"]]
    if kind in ("MeanLogRatio", "SumLogRatio"):
        return MeanLogRatio(inner) if kind == "MeanLogRatio" else SumLogRatio(inner)
    if kind == "LogOdds":
        return LogOdds(inner[0])
    if kind == "CalibratedLogRatio":
        method: Calibrator = getattr(maps, checks.choice("method", saved["method"], tuple(maps.__all__)))()
        calibrated = CalibratedLogRatio(inner[0], method=method)
        calibrated.report = _record(saved["report"])
        return calibrated
    log_ratio = LogRatio(inner[0], _record(saved["objective"]))
    log_ratio.report, frontier = _record(saved["report"]), _record(saved["frontier"])
    log_ratio.frontier, log_ratio.ended = tuple(frontier), saved["ended"]
    log_ratio.reference, log_ratio.telescoping = _record(saved["reference"]), _record(saved["telescoping"])
    return log_ratio


def _plain(value: Any) -> Any:
    """Return a record or an objective as a dictionary of its class and its fields."""
    if isinstance(value, Objective):
        names = list(inspect.signature(type(value)).parameters)
        if getattr(objectives, type(value).__name__, None) is not type(value) or not all(
            hasattr(value, n) for n in names
        ):
            raise ValueError(
                f"Expected an objective of pyro_gan.objectives; got {checks.shown(value)}, which a file cannot name. "
                "Save log_ratio.state_dict(), and build LogRatio(critic, objective) again."
            )
        return {"record": type(value).__name__, "fields": {name: _plain(getattr(value, name)) for name in names}}
    if type(value) in _RECORDS.values():
        names = list(inspect.signature(type(value)).parameters)
        return {"record": type(value).__name__, "fields": {name: _plain(getattr(value, name)) for name in names}}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _record(value: Any) -> Any:
    """Return what `_plain` was given; lists that were tuples stay lists."""
    if isinstance(value, list):
        return [_record(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {key: _record(item) for key, item in value.get("fields", value).items()}
    if "record" not in value:
        return fields
    kind = _RECORDS.get(value["record"]) or getattr(objectives, value["record"], None)
    if not isinstance(kind, type) or not (value["record"] in _RECORDS or issubclass(kind, Objective)):
        raise ValueError(
            f"Expected an objective or a report; got a file that names {value['record']!r}. Write it again."
        )
    return kind(**fields)


def _layers(critic: Any) -> str:
    """Return the layers of a network, and nothing for a function."""
    return repr(critic) if isinstance(critic, nn.Module) else ""


def _shape(state: Any, name: str) -> str:
    return f"of shape {tuple(state[name].shape)}" if name in state else "absent"
