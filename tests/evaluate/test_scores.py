"""The classifier score against its definition, its error against repeats, and histograms of classes."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gan.evaluate import class_counts, classifier_score, total_variation
from tests.statistics import assert_close_in_se, sample_sd


def test_score_is_its_definition() -> None:
    p = torch.distributions.Dirichlet(torch.full((5,), 0.3, dtype=torch.float64)).sample((200,)).clamp(min=1e-9)
    p = p / p.sum(-1, keepdim=True)
    divergence = (p * (p / p.mean(0)).log()).sum(-1)
    score = classifier_score(p.log())
    assert score.value == pytest.approx(float(divergence.mean().exp()), rel=1e-12)
    assert score.standard_error == pytest.approx(score.value * float(divergence.std()) / math.sqrt(200), rel=1e-12)


def test_score_lies_between_one_and_the_number_of_classes() -> None:
    assert classifier_score(torch.zeros(50, 4).log_softmax(-1)).value == pytest.approx(1.0)
    # A certain classifier: log 0 = -inf adds nothing.
    assert classifier_score(torch.eye(4).repeat(5, 1).log()).value == pytest.approx(4.0)
    # No sample is in two of the classes.
    certain = torch.eye(4)[torch.tensor([0, 1]).repeat(10)].log()
    assert classifier_score(certain).value == pytest.approx(2.0)


def test_standard_error_is_that_of_repeats() -> None:
    repeats, n = 400, 500
    logits = 2 * torch.randn(repeats, n, 6) + torch.tensor([1.0, 0, 0, 0, 0, -1])
    scores = [classifier_score(x.log_softmax(-1)) for x in logits]
    value = torch.tensor([score.value for score in scores], dtype=torch.float64)
    stated = torch.tensor([score.standard_error for score in scores], dtype=torch.float64)
    observed = sample_sd(value)
    assert_close_in_se(observed.value, stated.mean(), observed.standard_error, "standard error")


def test_counts_and_total_variation() -> None:
    log_p = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [4.0, 1.0, 0.0]]).log_softmax(-1)
    counts = class_counts(log_p)
    assert counts.tolist() == [2, 1, 0]
    assert total_variation(counts, torch.ones(3)) == pytest.approx(1 / 3)
    assert total_variation(counts, 7 * counts) == 0
    assert total_variation(torch.tensor([1, 0]), torch.tensor([0, 5])) == 1


@pytest.mark.parametrize(
    "log_p, words",
    [
        (torch.randn(5, 3), "log_softmax"),
        (torch.rand(5, 3).softmax(-1), "log_softmax"),
        (torch.full((5, 3), math.nan), "without NaN"),
        (torch.zeros(1, 3).log_softmax(-1), r"\(1, 3\)"),
        (torch.zeros(5), r"\(5,\)"),
        (torch.zeros(5, 1), r"\(5, 1\)"),
    ],
)
def test_score_refuses_what_is_no_log_probability(log_p: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classifier_score(log_p)
    with pytest.raises(ValueError, match=words):
        class_counts(log_p)


@pytest.mark.parametrize(
    "counts, reference",
    [
        (torch.ones(3), torch.ones(4)),
        (torch.ones(3, 1), torch.ones(3, 1)),
        (torch.zeros(3), torch.ones(3)),
        (torch.ones(3), torch.tensor([1.0, -1.0, 1.0])),
        (torch.ones(3), torch.tensor([1.0, math.nan, 1.0])),
    ],
)
def test_total_variation_refuses_what_is_no_histogram(counts: torch.Tensor, reference: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="Expected"):
        total_variation(counts, reference)
