"""`RandomFeatures`: tables in mixed units, rows far out, constant columns, few different rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gan.ratio import RandomFeatures, moment_change


def table(num_rows: int, shift: float = 0.0) -> Tensor:
    """Incomes, a number near 0, and a constant."""
    income, number = torch.randn(2, num_rows)
    return torch.stack([5e4 + 1e4 * income, number + shift, torch.full_like(income, 3.0)], 1)


def gap(features: RandomFeatures, real: Tensor, generated: Tensor) -> float:
    """The largest difference of means, in standard deviations of the real rows."""
    one, other = features(real), features(generated)
    return float(((one.mean(0) - other.mean(0)) / one.std(0).clamp(min=1e-3)).abs().max())


def test_a_column_in_small_units_is_seen_beside_one_in_large_ones() -> None:
    features = RandomFeatures(table(2000))
    assert gap(features, table(2000), table(2000)) < 0.3
    assert gap(features, table(2000), table(2000, shift=1.0)) > 0.6
    x = table(1000, shift=1.0)
    assert moment_change(features(table(1000)), features(x), -x[:, 1]).verdict == "better"


def test_a_column_that_is_rarely_lit_has_its_own_unit_too() -> None:
    def rows(share: float) -> Tensor:
        return torch.stack([1e4 * torch.randn(2000), (torch.rand(2000) < share).float()], 1)

    features = RandomFeatures(real := rows(0.006))
    one, same, other = (features(x)[:, :2].mean(0) for x in (real, rows(0.006), rows(0.12)))
    # Projections have a standard deviation of 1 over the real rows; that of this column is .08.
    assert float((same - one).abs().max()) < 0.3 < 0.6 < float((other - one).abs().max())


def test_pixels_share_one_unit() -> None:
    """A pixel that hardly varies stays small; as columns of a table both would count alike."""
    rows = torch.randn(2000, 1, 1, 2) * torch.tensor([1.0, 0.01])
    other = rows + torch.tensor([0.0, 0.05])
    assert gap(RandomFeatures(rows), rows, other) < 0.3 < 2 < gap(RandomFeatures(rows.flatten(1)), *_flat(rows, other))


def _flat(*sets: Tensor) -> list[Tensor]:
    return [rows.flatten(1) for rows in sets]


@pytest.mark.parametrize("event", [(2,), (1, 1, 2)])
def test_one_row_far_out_blinds_nothing(event: tuple[int, ...]) -> None:
    real = torch.randn(2000, *event)
    real[0] = 1e12
    features = RandomFeatures(real)
    assert gap(features, real, torch.randn(2000, *event) + 1) > 0.6
    assert float(features(real)[:, :2].abs().max()) < 20


def test_columns_of_unit_spread_whatever_they_are() -> None:
    """A rarely lit column, a constant one, and one that is constant up to rounding give finite features."""
    real = torch.randn(3000, 4)
    real[:, 1] = (torch.rand(3000) < 0.004).float()
    real[:, 2], real[:, 3] = 7.0, 1e5 + 1e-3 * real[:, 3]
    found = RandomFeatures(real)(real)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found[:, :4].std(0), torch.ones(4, dtype=torch.float64))


@pytest.mark.filterwarnings("error")
def test_fewer_clusters_where_fewer_rows_differ() -> None:
    features = RandomFeatures(torch.randint(2, (500, 2)).float())
    assert features(torch.zeros(3, 2)).shape == (3, 2 + 4)


def test_rows_of_one_number() -> None:
    assert RandomFeatures(torch.randn(200))(torch.randn(4)).shape == (4, 21)


def test_equal_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="real data that vary; got 100 equal rows"):
        RandomFeatures(torch.ones(100, 2))


def test_directions_have_unit_length_and_all_numbers_are_spanned() -> None:
    features = RandomFeatures(torch.randn(300, 5))
    torch.testing.assert_close(features.directions.norm(dim=0), torch.ones(5, dtype=torch.float64))
    assert RandomFeatures(torch.randn(300, 100)).directions.shape == (100, 64)
