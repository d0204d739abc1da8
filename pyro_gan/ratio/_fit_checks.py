"""What is checked before a fresh critic is trained: that rows, generator and network fit each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gan import checks
from pyro_gan._networks import critic_scores
from pyro_gan.checks.calls import TRIAL_FAULTS, called

__all__ = [
    "MIN_ROWS",
    "check_generated",
    "check_network",
    "check_settings",
    "held_out_number",
    "make_networks",
    "range_complaint",
]

#: With fewer rows the noise of a held-out loss exceeds its changes.
MIN_ROWS = 50
#: Ranges whose widths differ by more are taken for ranges of different units.
MAX_WIDTHS = 4
#: Ranges are compared on so many numbers at most.
MAX_NUMBERS = 1_000_000


def check_settings(settings: dict[str, Any]) -> None:
    """Raise unless the numbers of a run are in range."""
    for name in ("num_steps", "batch_size", "eval_every", "patience", "num_networks"):
        checks.count(name, settings[name])
    checks.count("num_bridges", settings["num_bridges"], minimum=0, cure="0 fits one network, without bridges.")
    checks.real("max_seconds", settings["max_seconds"], above=0, cure="Training ends after so many seconds.")
    few = "The effective share of fewer draws is not reliable."
    checks.count("num_validation_draws", settings["num_validation_draws"], minimum=MIN_ROWS, cure=few)
    overlap = "It is the effective share of draws that the ratio must leave; only a constant ratio leaves 1."
    checks.real("min_ess_fraction", settings["min_ess_fraction"], minimum=0, below=1, cure=overlap)
    share = "It is the share of the data held out to choose a state, and again to judge it."
    checks.real("validation_fraction", settings["validation_fraction"], above=0, below=1, cure=share)


def held_out_number(data: Tensor, validation_fraction: float) -> int:
    """Return the number of rows to hold out for choosing, and again for judging; raise if too few are left."""
    cure = "Scale images as the generator does, for instance x.float() / 127.5 - 1."
    checks.rows("real data", data, cure=cure)
    held_out = round(validation_fraction * len(data))
    trained = len(data) - 2 * held_out
    if min(held_out, trained) < MIN_ROWS:
        raise ValueError(
            f"Expected at least {MIN_ROWS} rows to choose a state, {MIN_ROWS} to judge it and {MIN_ROWS} to train on; "
            f"{len(data)} rows with {validation_fraction=} give {held_out}, {held_out} and {max(trained, 0)}. "
            "Collect more, or hold out another share."
        )
    return held_out


def make_networks(network: Any, number: int) -> list[nn.Module]:
    """Return so many networks: the one given, or those that the function given makes."""
    if isinstance(network, nn.Module):
        if number > 1:
            raise ValueError(
                f"Expected network to be a function that makes one, for {number} networks of different random starts; "
                f"got a {type(network).__name__}. Give it as lambda: MyNetwork(...)."
            )
        return [network]
    if not callable(network):
        raise ValueError(f"Expected a network, or a function that makes one; got {checks.shown(network)}.")
    try:
        made = [network() for _ in range(number)]
    except TypeError as error:
        raise ValueError(
            f"Expected a network, or a function without arguments that makes one; got the error: {error}."
        ) from error
    for one in made:
        checks.instance("each network", one, nn.Module)
    if len(set(map(id, made))) < number:
        raise ValueError("Expected a function that makes a new network at each call; got the same one twice.")
    return made


def check_network(network: nn.Module, data: Tensor) -> None:
    """Raise unless the network can be trained on such data. It is in evaluation mode afterwards."""
    parameter = next((p for p in checks.instance("network", network, nn.Module).parameters() if p.requires_grad), None)
    if parameter is None:
        raise ValueError("Expected a network with parameters that require a gradient; got a network without.")
    if parameter.device != data.device or parameter.dtype != data.dtype:
        raise ValueError(
            f"Expected network and data of one dtype and device; got {parameter.dtype} on {parameter.device} and "
            f"{data.dtype} on {data.device}. Move one with .to(...)."
        )
    network.eval()
    takes = f"a batch of data, of shape {tuple(data[:2].shape)}"
    with torch.no_grad(), called("network", network, takes, faults=TRIAL_FAULTS):
        critic_scores(network, data[:2])


def check_generated(draw_generated: Callable[[int], Tensor], data: Tensor) -> None:
    """Raise unless draws look like data."""
    generated = draw_generated(2)
    if not isinstance(generated, Tensor):
        raise ValueError(
            f"Expected generated data in one tensor; got {checks.shown(generated)}. Wrap the generator in a function "
            "that returns the data alone, such as lambda z: generator(z)[0]."
        )
    cure = "That is the shape of 2 real rows. Reshape the data, or wrap the generator."
    checks.shaped("generated data", generated, data[:2].shape, cure=cure)
    if generated.dtype != data.dtype or generated.device != data.device:
        raise ValueError(
            f"Expected data of the generator's dtype and device, {generated.dtype} on {generated.device}; got "
            f"{data.dtype} on {data.device}. Move the data with .to(...)."
        )


def range_complaint(data: Tensor, generated: Tensor) -> str:
    """Return what is wrong if data and draws seem to be in different units, or an empty string.

    The ranges are those of all numbers of all rows, with and without a thousandth on either side: pixels may be nearly
    all zero, and tails heavy. Both widths may differ by a factor of four, more than a generator that has learnt
    anything is off. Of the ranges of images, [0, 1] beside [-1, 1] is noticed too.
    """
    some = (rows[: max(MAX_NUMBERS // rows[0].numel(), 1)] for rows in (data, generated))
    numbers = [rows.flatten().double().sort().values for rows in some]
    whole = [(float(ordered[0]), float(ordered[-1])) for ordered in numbers]
    inner = [(float(ordered[len(ordered) // 1000]), float(ordered[-1 - len(ordered) // 1000])) for ordered in numbers]
    halved = any(_is_near(a, (0.0, 1.0)) and _is_near(b, (-1.0, 1.0)) for a, b in (whole, whole[::-1]))
    if not (halved or (_differ(*whole) and _differ(*inner))):
        return ""
    (low, high), (other_low, other_high) = whole
    return (
        f"Data and generated rows have different ranges, {low:.4g} to {high:.4g} and {other_low:.4g} to "
        f"{other_high:.4g}: they seem to be in different units, and every critic tells them apart. Scale the data as "
        "the generator does, for instance x.float() / 127.5 - 1."
    )


def _differ(one: tuple[float, float], other: tuple[float, float]) -> bool:
    narrow, wide = sorted([one[1] - one[0], other[1] - other[0]])
    return wide > MAX_WIDTHS * narrow


def _is_near(found: tuple[float, float], wanted: tuple[float, float]) -> bool:
    """Return whether a range ends where a range of pixels ends; a sigmoid or tanh stops just before."""
    return all(abs(a - b) <= 0.05 for a, b in zip(found, wanted, strict=True))
