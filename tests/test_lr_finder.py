"""The range test's curve: what is read from synthetic ones of known shape."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest

from traiNNer.lr_finder import (
    Curve,
    diverges,
    evened,
    growing_rates,
    report,
    smooth,
    suggestion,
    times,
    valley,
    written,
)


def curve_of(losses: list[float]) -> Curve:
    return Curve(growing_rates()[: len(losses)], losses, smooth(losses))


def falling_and_rising(low: float, high: float) -> list[float]:
    """1 at small rates, half of the fall at `low`, 0.2 in between, back at half at `high`, then beyond."""
    return [1 - 0.8 / (1 + (low / rate) ** 2) / (1 + (rate / high) ** 2) for rate in growing_rates()]


def test_rates_grow_by_one_factor_from_the_lowest_to_the_highest() -> None:
    rates = growing_rates()
    factors = [after / before for before, after in pairwise(rates)]
    assert len(rates) == 100
    assert (rates[0], rates[-1]) == (1e-7, pytest.approx(10))
    assert min(factors) == pytest.approx(max(factors)) == pytest.approx(1e8 ** (1 / 99))


def test_smoothing_keeps_a_line_and_shifts_no_dip() -> None:
    line = [float(number) for number in range(20)]
    assert smooth(line)[4:-4] == pytest.approx(line[4:-4])
    dip = [1.0] * 30
    dip[17] = 0.0
    smoothed = smooth(dip)
    assert smoothed.index(min(smoothed)) == 17
    assert smoothed[10:25] == pytest.approx(smoothed[24:9:-1])
    assert smooth([]) == []


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-2), (1e-3, 3e-2), (1e-2, 1.0)])
def test_the_valley_is_where_half_of_the_fall_is_made(low: float, high: float) -> None:
    found = valley(curve_of(falling_and_rising(low, high)))
    assert found is not None
    assert found == (pytest.approx(low, rel=0.25), pytest.approx(high, rel=0.25))


def test_the_suggestion_is_two_fifths_of_the_way_through_it() -> None:
    suggested = suggestion(curve_of(falling_and_rising(1e-5, 1e-2)))
    assert suggested == pytest.approx(1.6e-4, rel=0.25)


def test_a_loss_below_zero_has_a_valley_of_its_own_too() -> None:
    losses = [30 * (value - 1.5) for value in falling_and_rising(1e-5, 1e-2)]
    assert suggestion(curve_of(losses)) == pytest.approx(1.6e-4, rel=0.25)


@pytest.mark.parametrize("losses", [[1.0] * 100, [1.0 + step / 10 for step in range(20)]])
def test_nothing_is_suggested_where_the_loss_does_not_fall(losses: list[float], tmp_path: Path) -> None:
    curve = curve_of(losses)
    assert suggestion(curve) is None
    assert "lowers the loss" in report(curve, tmp_path / "plot.png")


def test_batches_that_differ_do_not_hide_the_curve() -> None:
    """Batches up to 100 times as hard as others: their own losses before any training are known."""
    hardness = random.Random(0)
    untrained = [math.exp(hardness.uniform(-2.3, 2.3)) for _ in range(100)]
    relative = falling_and_rising(1e-5, 1e-2)
    losses = [before * value for before, value in zip(untrained, relative, strict=True)]
    rates = growing_rates()
    clean = Curve(rates, losses, smooth(evened(losses, untrained)))
    assert suggestion(clean) == pytest.approx(1.6e-4, rel=0.25)
    assert suggestion(curve_of(losses)) != pytest.approx(1.6e-4, rel=0.25)


def test_losses_below_zero_are_evened_by_difference() -> None:
    assert evened([-3.0, -1.0], [-2.0, 0.0, 2.0]) == [-1.0, -1.0]


def test_one_loss_counts_for_ten_times_the_untrained_at_most() -> None:
    assert evened([1e30, 1.0], [2.0, 2.0]) == [20.0, 1.0]
    assert times(10, -2.0) == 16.0


def test_it_diverges_far_above_the_smallest_and_not_before() -> None:
    assert not diverges([1.0, 0.5, 1.9])
    assert diverges([1.0, 0.5, 2.1])
    assert not diverges([-10.0, 10.0])
    assert diverges([-10.0, 20.1])


def test_a_rate_is_written_as_in_an_option_file() -> None:
    assert [written(rate) for rate in (3.21e-4, 1e-10, 0.25, 10.0)] == ["3.2e-4", "1.0e-10", "2.5e-1", "1.0e1"]
