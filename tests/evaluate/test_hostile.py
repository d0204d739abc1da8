"""Every argument of every public function refuses hostile values with a `ValueError` that says what it expects."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from tests.evaluate.members import FUNCTIONS, valid_arguments

#: Values that are wrong for every argument.
WRONG: dict[str, Any] = {
    "NaN": math.nan,
    "infinity": math.inf,
    "array": np.zeros((60, 3)),
    "empty list": [],
    "tuple": (1, 2, 3),
    "mapping": {},
    "minus one": -1,
    "bool": True,
    "class": dict,
    "object": object(),
    "empty tensor": torch.zeros(0),
    "no rows": torch.zeros(0, 3),
    "NaN rows": torch.full((60, 3), math.nan),
    "complex rows": torch.zeros(60, 3, dtype=torch.complex64),
}
#: Values that are right for some arguments and wrong for the others.
SOMETIMES_WRONG: dict[str, Any] = {
    "None": None,
    "text": "x",
    "list": [1, 2],
    "zero": 0,
    "half": 0.5,
    "scalar tensor": torch.tensor(0.5),
    "one dimension": torch.zeros(7),
    "three dimensions": torch.zeros(3, 2, 2),
    "function": lambda *_, **__: None,
    "network": torch.nn.Identity(),
}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    yield
    plt.close("all")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hostile_values_are_refused(name: str) -> None:
    FUNCTIONS[name](**valid_arguments(name))
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        for label, value in (WRONG | SOMETIMES_WRONG).items():
            try:
                FUNCTIONS[name](**(valid_arguments(name) | {parameter: value}))
            except ValueError as error:
                assert str(error).startswith("Expected "), f"{parameter} = {label}: {error}"
            except Exception as error:
                pytest.fail(f"{parameter} = {label} reached deeper code: {type(error).__name__}: {error}")
            else:
                assert label in SOMETIMES_WRONG, f"{parameter} = {label} was accepted"
