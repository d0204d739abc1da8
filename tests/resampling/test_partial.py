"""What samplers without a chain, and those on a ladder, keep when an exception ends a call; its weights are right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_gan import LatentPosterior, toys
from pyro_gan.annealing import AIS, SMC, linear
from pyro_gan.importance import systematic, weight_tail
from pyro_gan.resampling import ImportanceResampler, RejectionSampler

# The prior is N(0, 1), the latent posterior about N(1, 1).
TOY = toys.gaussian_shift(auc=0.76)
MEAN = float(TOY.posterior.mean)


class Breaks(nn.Module):
    """A log ratio that does something in a chosen call."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.act = 10**9, lambda: None

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            self.act()
        return TOY.log_ratio(x)


def fail() -> None:
    raise MemoryError("out of memory")


def sampler(name: str) -> tuple[Any, Callable[[], Any], Breaks]:
    gan = LatentPosterior(TOY.generator, Breaks(), TOY.prior, chunk_size=100_000)
    made: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "importance": (ImportanceResampler(gan), lambda each: each(100, 8000)),
        "rejection": (RejectionSampler(gan, log_bound=6.0), lambda each: each(100, max_draws=8000)),
        "SMC": (SMC(gan, 1500, num_moves=2, ess_threshold=0.9, num_draws=1500), lambda each: each()),
        "AIS": (AIS(gan, linear(10), num_particles=1500), lambda each: each()),
    }
    each, call = made[name]
    return each, lambda: call(each), gan.log_ratio


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("draws", "rejection"):
        monkeypatch.setattr(f"pyro_gan.resampling.{module}.BLOCK_DRAWS", 1000)


pytestmark = pytest.mark.filterwarnings("ignore:Only .* outputs were accepted")

NAMES = ["importance", "rejection", "SMC", "AIS"]


@pytest.mark.parametrize("name", NAMES)
def test_finished_work_represents_the_target(name: str) -> None:
    """The call fails in the second half. The weighted mean of what is left is that of the target, at 5 errors."""
    each, call, log_ratio = sampler(name)
    call()
    assert each.partial is None
    log_ratio.left, start = 10**9, 10**9
    call()
    calls = start - log_ratio.left
    log_ratio.left, log_ratio.act = max(2, round(0.8 * calls)), fail
    with pytest.raises(MemoryError, match="out of memory") as caught:
        call()
    partial = each.partial
    assert "as `partial` of the " in caught.value.__notes__[-1]
    z, log_weights = partial.samples["z"].squeeze(-1), partial.log_weights
    assert z.shape == log_weights.shape and len(z) >= 10
    assert (partial.beta in (0, 1)) == (name in ("importance", "rejection")) and 0 <= partial.beta <= 1
    share = log_weights.double().softmax(0)
    ess = weight_tail(log_weights).ess
    # Particles of SMC share ancestors, so their error is larger than that of as many draws.
    error = (3 if name == "SMC" else 1) / ess**0.5
    assert abs(float(share @ z.double()) - MEAN) < 5 * error
    if partial.beta < 1:
        # Negative control: without the weights they are draws of the prior, or of a rung.
        assert abs(float(z.mean()) - MEAN) > 3 * error
    assert len(systematic(log_weights, 10)) == 10
    log_ratio.act = lambda: None
    call()
    assert each.partial is None


@pytest.mark.parametrize("name", NAMES)
def test_sigterm_is_as_good_as_ctrl_c(name: str) -> None:
    each, call, log_ratio = sampler(name)
    call()
    log_ratio.left = 10**9
    call()
    log_ratio.left = max(2, round(0.8 * (10**9 - log_ratio.left)))
    log_ratio.act = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        call()
    assert each.partial is not None and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("name", NAMES)
def test_nothing_finished_is_nothing(name: str) -> None:
    each, call, log_ratio = sampler(name)
    log_ratio.act = fail
    log_ratio.left = 8  # the probe of the setup takes seven
    with pytest.raises((MemoryError, ValueError)):
        call()
    assert each.partial is None


def test_too_few_effective_draws_are_kept() -> None:
    gan = LatentPosterior(TOY.generator, TOY.log_ratio, TOY.prior)
    each = ImportanceResampler(gan, min_ess=1e6)
    with pytest.raises(ValueError, match="effective draws"):
        each(100, 5000)
    assert torch.allclose(each.partial.log_weights, TOY.log_ratio(TOY.generator(each.partial.samples["z"])))
    assert len(each.partial.log_weights) == 5000
