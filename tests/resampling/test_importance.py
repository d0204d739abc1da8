"""The resampler: copies are shares of the weight, order is random, the report is true, bad input is refused."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_gan import ImportanceResampler, LatentPosterior, toys
from pyro_gan.importance import smooth, weight_tail
from pyro_gan.resampling import Resamples, draws
from tests.exact_targets import uniform_latents
from tests.statistics import (
    NUM_SE,
    assert_close_in_se,
    assert_different,
    assert_follows,
    assert_mean,
    assert_same_distribution,
)


class Table:
    """A model whose prior counts 0, 1, 2, ... and whose log weights are the rows of a table, repeated.

    As many prior draws as the table has rows meet each of them once, in order.
    """

    chunk_size = None

    def __init__(self, log_weights: Tensor) -> None:
        self.table = log_weights
        self.transforms: dict[str, Any] = {}
        self.blocks: list[int] = []
        self.count = 0

    def __call__(self) -> None:
        raise NotImplementedError

    def validate(self) -> None:
        # A run begins. The target takes the first draw, to find the shape.
        self.blocks, self.count = [], -1

    def row(self, params: dict[str, Tensor]) -> Tensor:
        return params["z"][:, 0].long() % len(self.table)

    def potential_fn(self, params: dict[str, Tensor]) -> Tensor:
        return -self.log_weight(params)

    def log_prior(self, params: dict[str, Tensor]) -> Tensor:
        return torch.zeros_like(params["z"][:, 0])

    def log_weight(self, params: dict[str, Tensor]) -> Tensor:
        return self.table[self.row(params)]

    def sample_prior(self, num_draws: int) -> dict[str, Tensor]:
        self.blocks.append(num_draws)
        z = torch.arange(self.count, self.count + num_draws, dtype=self.table.dtype)
        self.count += num_draws
        return {"z": z[:, None]}

    def resample(self, num_outputs: int, **kwargs: Any) -> tuple[Resamples, Tensor]:
        """Return the result, and how often every row of the table was chosen."""
        result = ImportanceResampler(self, **kwargs)(num_outputs, len(self.table))
        return result, torch.bincount(self.row(result.samples), minlength=len(self.table))


def shift(auc: float = 0.8, dtype: torch.dtype = torch.float64) -> tuple[LatentPosterior, toys.Toy]:
    toy = toys.gaussian_shift(auc, dtype=dtype)
    return LatentPosterior(toy.generator, toy.log_ratio, toy.prior), toy


# Copies


@pytest.mark.parametrize("block", [1_000_000, 7])
@pytest.mark.parametrize("num_outputs", [1, 700, 3000])
@pytest.mark.parametrize(
    "log_weights",
    [
        torch.arange(1, 4, dtype=torch.float64).repeat(100).log(),  # no tail to smooth
        torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["steps", "tail"],
)
def test_a_draw_is_copied_its_share_rounded_up_or_down(
    log_weights: Tensor, num_outputs: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draws, "BLOCK_DRAWS", block)
    model = Table(log_weights)
    result, copies = model.resample(num_outputs)
    share = num_outputs * smooth(log_weights)[0].softmax(0)
    assert copies.sum() == num_outputs == len(result.log_ratio)
    assert (copies >= (share - 1e-6).floor()).all() and (copies <= (share + 1e-6).ceil()).all()
    torch.testing.assert_close(result.log_ratio, model.log_weight(result.samples), rtol=0, atol=0)
    assert sum(model.blocks[1:]) == len(log_weights) and max(model.blocks) <= block


def test_on_average_copies_are_the_exact_share() -> None:
    num_outputs, num_runs = 450, 2000
    model = Table(torch.arange(1, 4, dtype=torch.float64).repeat(100).log())
    copies = torch.stack([model.resample(num_outputs)[1] for _ in range(num_runs)]).double()
    share = num_outputs * model.table.softmax(0)
    # A share is rounded up with the probability of its fraction. Neighbours are dependent, but each mean is right.
    fraction = share - share.floor()
    assert_close_in_se(copies.mean(0), share, (fraction * (1 - fraction) / num_runs).sqrt(), "copies")


def test_single_precision_weights_lose_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    num = 200_000
    # A point lies just beyond every bound: a bound that is rounded upwards would take it.
    monkeypatch.setattr(torch, "rand", lambda *size, dtype: torch.tensor(1e-3, dtype=dtype))
    _, copies = Table(torch.zeros(num)).resample(num)
    assert (copies == 1).all()


def test_draws_without_weight_are_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first point lies on the bound between the first draw, which has weight zero, and the second.
    monkeypatch.setattr(torch, "rand", lambda *size, dtype: torch.zeros((), dtype=dtype))
    log_weights = torch.zeros(1000).index_fill(0, torch.arange(0, 1000, 2), -math.inf)
    log_weights[-10:] = -math.inf
    _, copies = Table(log_weights).resample(5000)
    assert (copies[log_weights.isneginf()] == 0).all() and (copies[log_weights == 0] >= 10).all()


def test_outputs_come_in_random_order() -> None:
    model = Table(torch.zeros(100))
    orders = []
    for _ in range(2):
        result, copies = model.resample(3000, min_ess=50)
        assert (copies == 30).all()
        order = model.row(result.samples)
        # Of 2999 pairs of neighbours 29 are copies of one draw by chance; if sorted, 2900 are.
        assert int((order[1:] == order[:-1]).sum()) < 29 + 2 * NUM_SE * math.sqrt(29)
        orders.append(order)
    assert not torch.equal(*orders)


# Report


def test_the_report_tells_cost_and_worth() -> None:
    model = Table(torch.randn(1000))
    result, copies = model.resample(400)
    report = result.report
    assert (report.num_draws, report.num_outputs) == (1000, 400)
    assert report.distinct == int((copies > 0).sum()) < 400
    # The rows come in another order, which changes the last digits.
    for ours, theirs in zip(report.tail, weight_tail(model.table), strict=True):
        assert ours is theirs is None or ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_log_normaliser_is_the_ratios_own(offset: float) -> None:
    _, toy = shift()
    gan = LatentPosterior(toy.generator, lambda x: toy.log_ratio(x) + offset, toy.prior)
    tail = ImportanceResampler(gan)(10, 200_000).report.tail
    assert 0 < tail.log_mean_weight_se < 0.01
    assert_close_in_se(tail.log_mean_weight, offset, tail.log_mean_weight_se, "log normaliser")


def test_it_refuses_below_min_ess() -> None:
    gan, _ = shift(0.95)
    with pytest.raises(ValueError, match=r"at least 5001 effective draws; got \d+\.\d of 5000 \(largest share"):
        ImportanceResampler(gan, min_ess=5001)(10, 5000)
    # Kong's figure for one draw of weight w beside n of weight 1 is (w + n)^2 / (w^2 + n).
    model = Table(torch.zeros(1001).index_fill(0, torch.tensor(3), math.log(1000.0)))
    ess = 2000**2 / (1000**2 + 1000)
    with pytest.raises(ValueError, match=rf"got {ess:.1f} of 1001 \(largest share 0.5"):
        model.resample(10)
    result, copies = model.resample(10, min_ess=3.99)
    assert copies[3] == 5 and result.report.tail.ess == pytest.approx(ess)


# Distribution


def test_blocks_do_not_change_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    gan, toy = shift()
    whole = ImportanceResampler(gan)(3000, 200_000)
    monkeypatch.setattr(draws, "BLOCK_DRAWS", 777)
    blocks = ImportanceResampler(gan)(3000, 200_000)
    assert blocks.report.tail.num_draws == 200_000
    z = blocks.samples["z"]
    torch.testing.assert_close(blocks.log_ratio, gan.log_weight({"z": z}))
    assert_same_distribution(z, whole.samples["z"], "blocks against whole")
    assert_same_distribution(z, toy.posterior.sample((3000,)), "blocks against the posterior")
    assert_different(z, toy.prior.sample((3000,)), "blocks against the prior")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_follow_the_models_dtype(dtype: torch.dtype) -> None:
    gan, _ = shift(dtype=dtype)
    result = ImportanceResampler(gan)(500, 20_000)
    assert result.samples["z"].shape == (500, 1) and result.samples["z"].dtype == dtype
    assert result.log_ratio.shape == (500,) and result.log_ratio.dtype == dtype
    assert not result.samples["z"].requires_grad and not result.log_ratio.requires_grad
    torch.testing.assert_close(result.log_ratio, gan.log_weight(result.samples))


def test_a_bounded_prior_gives_constrained_samples() -> None:
    gan = uniform_latents()
    model = LatentPosterior(gan.generator, gan.log_ratio, gan.prior)
    result = ImportanceResampler(model)(2000, 400_000)
    z = result.samples["z"]
    assert (z.abs() <= 1).all()
    assert_follows(z, gan.law.cdf, "bounded latents")
    torch.testing.assert_close(result.log_ratio, gan.log_ratio(gan.generator(z)))


def test_context_reaches_both_networks() -> None:
    class Shifted(nn.Module):
        def forward(self, z: Tensor, *, label: Tensor) -> Tensor:
            return z + label[:, None]

    class Ratio(nn.Module):
        def forward(self, x: Tensor, *, label: Tensor) -> Tensor:
            # Data N(2 label, 1) over generated N(label, 1).
            return label * x[:, 0] - 1.5 * label.square()

    prior = dist.Normal(torch.zeros(1), torch.ones(1)).to_event(1)
    resampler = ImportanceResampler(LatentPosterior(Shifted(), Ratio(), prior))
    for label in (0.0, -0.8):
        result = resampler(3000, 200_000, label=torch.tensor(label))
        assert_mean(result.samples["z"], label, f"label {label}")
        tail = result.report.tail
        assert_close_in_se(tail.log_mean_weight, 0.0, tail.log_mean_weight_se + 1e-9, "log normaliser")


# Bad input


@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_are_not_positive_raise(value: int) -> None:
    gan, _ = shift()
    with pytest.raises(ValueError, match=rf"num_outputs of at least 1; got {value}"):
        ImportanceResampler(gan)(value, 1000)
    with pytest.raises(ValueError, match=rf"num_draws of at least 1; got {value}"):
        ImportanceResampler(gan)(10, value)
    with pytest.raises(ValueError, match=rf"min_ess of at least 1; got {value}"):
        ImportanceResampler(gan, min_ess=value)


def test_a_min_ess_that_is_nan_raises() -> None:
    with pytest.raises(ValueError, match="min_ess of at least 1; got nan"):
        ImportanceResampler(shift()[0], min_ess=math.nan)


def test_no_model_raises() -> None:
    with pytest.raises(ValueError, match="posterior to be a function .*; got None. .* such as LatentPosterior"):
        ImportanceResampler(None)


def test_a_model_without_latents_raises() -> None:
    with pytest.raises(ValueError, match="latent"):
        ImportanceResampler(lambda: None)(10, 1000)


def test_any_pyro_model_will_do() -> None:
    def model(y: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 2.0), obs=y)

    y = torch.tensor([1.0, 2.0, 0.5, 3.0])
    means = ImportanceResampler(model)(4000, 40_000, y).samples["mean"]
    # Conjugate: precision 1 + 4 / 4, mean sum(y) / 4 over it; outputs are nearly independent.
    assert abs(float(means.mean()) - 0.8125) < 4.4 * (0.5 / len(means)) ** 0.5 * 1.3
    assert abs(float(means.var()) - 0.5) < 4.4 * 0.5 * (2 / len(means)) ** 0.5 * 1.3


def test_weights_that_are_all_zero_raise() -> None:
    gan = LatentPosterior(nn.Identity(), lambda x: torch.full_like(x[:, 0], -math.inf), shift()[1].prior)
    with pytest.raises(ValueError, match="all -inf"):
        ImportanceResampler(gan)(10, 2000)


def test_a_single_draw_is_all_there_is() -> None:
    gan, _ = shift()
    result = ImportanceResampler(gan, min_ess=1)(5, 1)
    assert result.report.distinct == 1 and result.samples["z"].unique().numel() == 1
