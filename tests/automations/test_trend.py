"""Whether a loss still falls: the detector on synthetic trainings, against what is true of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import numpy as np
import pytest

from tests.automations.traces import ONSET, Family, curve, gain, noisy, truth
from traiNNer.training_automations.trend import WINDOWS, Trend, Verdict, slopes

HORIZON, THRESHOLD = 4000, 0.01


def trend() -> Trend:
    return Trend(block=100, horizon=HORIZON, threshold=THRESHOLD)


def verdicts(values: Iterable[float], detector: Trend | None = None) -> list[tuple[int, Verdict]]:
    """Each block's verdict with the index of its last value."""
    detector = detector or trend()
    each = ((index, detector.add(value)) for index, value in enumerate(values))
    return [(index, verdict) for index, verdict in each if verdict is not None]


def first_flat(values: Iterable[float]) -> int | None:
    detector = trend()
    return next((index for index, value in enumerate(values) if detector.add(value) == "flat"), None)


def test_a_plateau_is_found_soon_and_not_before() -> None:
    curve = truth("plateau", 36_000)
    found = [first_flat(noisy(curve, seed).tolist()) for seed in range(30)]
    delays = [index + 1 - ONSET for index in found if index is not None]
    assert len(delays) >= 0.95 * len(found)
    assert min(delays) > 0
    assert np.median(delays) <= 6000


@pytest.mark.parametrize(
    ("family", "length", "seeds"),
    [("exponential", 100_000, 8), ("power 0.35", 60_000, 10), ("power 0.1", 60_000, 8), ("spike", 40_000, 10)],
)
def test_a_curve_that_gains_twice_the_threshold_is_not_called_flat(family: Family, length: int, seeds: int) -> None:
    """At most 5 %: of so few, none."""
    curve = truth(family, length)
    for seed in range(100, 100 + seeds):
        index = first_flat(noisy(curve, seed).tolist())
        assert index is None or gain(curve, index, HORIZON) < 2 * THRESHOLD


@pytest.mark.parametrize("seed", [5, 7])
def test_what_is_not_known_sharply_is_not_called_flat(seed: int) -> None:
    """Three times the threshold at a noise that hides it: a wide interval lies below the threshold by chance."""
    detector = Trend(block=10, horizon=100, threshold=0.01, windows=(16, 22, 30, 40, *WINDOWS))
    found = [verdict for _, verdict in verdicts(curve(-0.03, 1000, seed, noise=0.2), detector)]
    assert "flat" not in found


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_scale_does_not_matter(factor: float) -> None:
    values = noisy(truth("plateau", 30_000), 7)
    assert verdicts((factor * values).tolist()) == verdicts(values.tolist())


def test_a_loss_that_rises_is_worsening() -> None:
    rising = noisy(0.1 * 1.05 ** (np.arange(20_000) / HORIZON), 1)
    found = [verdict for _, verdict in verdicts(rising.tolist())]
    assert "worsening" in found
    assert "improving" not in found


def test_a_jump_starts_the_window_again() -> None:
    """Without that, what heals after a spike looks like an improvement, and what was before it like the opposite."""
    calm = noisy(np.full(8000, 0.1), 3)
    jump = noisy(np.full(6000, 0.4), 4)
    found = dict(verdicts([*calm.tolist(), *jump.tolist()]))
    assert {found[index] for index in range(8099, 13_900, 100)} == {"undecided"}


def test_what_is_no_number_is_left_out() -> None:
    values = noisy(truth("plateau", 12_000), 5).tolist()
    spoiled = [each for value in values for each in (value, math.nan, math.inf, 0.0)]
    assert [verdict for _, verdict in verdicts(spoiled)] == [verdict for _, verdict in verdicts(values)]


def test_a_resume_at_any_point_decides_alike() -> None:
    values = noisy(truth("plateau", 30_000), 9).tolist()
    expected = verdicts(values)
    for cut in (1, 99, 100, 5_050, 17_777):
        first, second = trend(), trend()
        before = verdicts(values[:cut], first)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        after = [(index + cut, verdict) for index, verdict in verdicts(values[cut:], second)]
        assert before + after == expected


def test_the_state_does_not_grow() -> None:
    sizes: list[int] = []
    for length in (17_050, 60_050):
        detector = trend()
        verdicts(noisy(truth("power 0.2", length), 2).tolist(), detector)
        sizes.append(sum(len(each) for each in detector.state_dict().values()))
    assert sizes == [210, 210]


def test_the_slope_is_theil_and_sens_and_lies_within_its_bounds() -> None:
    line = 3 - 0.25 * np.arange(40)
    line[7] = 100.0  # one of forty does not move it
    low, slope, high = slopes(line)
    assert slope == pytest.approx(-0.25)
    assert low <= slope <= high
    covered = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).standard_normal(60)
        low, _, high = slopes(0.05 * np.arange(60) + noise)
        covered += low <= 0.05 <= high
    assert covered >= 90
