"""AdaptiveGradientClipping on synthetic gradient norms."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traiNNer.training_automations.adaptivegradientclipping_automation import AdaptiveGradientClipping
from traiNNer.training_automations.base import Decision, Note, SetClipThreshold, StepFacts
from traiNNer.utils.errors import ConfigError

WIDE = {"initial_threshold": 1.0, "min_threshold": 1e-3, "max_threshold": 1e3}


def norms(seed: int, length: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Decaying norms with correlated noise of 0.25, 0.4 % spikes of 10 to 200 times, and six times as large from half
    time on; and which of them are spikes."""
    rng = np.random.default_rng(seed)
    noise = np.zeros(length)
    for index in range(1, length):
        noise[index] = 0.8 * noise[index - 1] + 0.25 * 0.6 * rng.standard_normal()
    values = 2 * (1 + np.arange(length) / 200) ** -0.3 * np.exp(noise)
    values[length // 2 :] *= 6
    spikes = rng.random(length) < 0.004
    values[spikes] *= rng.uniform(10, 200, int(spikes.sum()))
    return values, spikes


def drive(automation: AdaptiveGradientClipping, values: Any, start: int = 1) -> tuple[list[float], list[Decision]]:
    """The threshold that holds at each iteration, and the decisions, asked for every 10 iterations."""
    threshold = automation.state_dict().get("net_g", {}).get("threshold", automation._initial)
    thresholds: list[float] = []
    decisions: list[Decision] = []
    for iteration, norm in enumerate(values, start):
        thresholds.append(threshold)
        automation.observe_step(StepFacts(iteration=iteration, norms={"net_g": float(norm)}))
        if iteration % 10 == 0:
            for decision in automation.decide(iteration):
                decisions.append(decision)
                threshold = decision.threshold if isinstance(decision, SetClipThreshold) else threshold
    return thresholds, decisions


def test_normal_steps_pass_spikes_do_not_and_a_new_level_is_learned() -> None:
    clipped, left, learned = [], [], []
    for seed in range(8):
        values, spikes = norms(seed)
        thresholds = np.array(drive(AdaptiveGradientClipping(**WIDE), values)[0])
        half = len(values) // 2
        usual = np.where(spikes, np.nan, values)
        for part in (slice(200, half), slice(half + 50, None)):
            clipped.append(np.nanmean(usual[part] > thresholds[part]))
            at = np.flatnonzero(spikes[part]) + part.start
            medians = np.array([np.nanmedian(usual[max(index - 50, part.start) : index + 50]) for index in at])
            left.extend(np.minimum(values[at], thresholds[at]) / medians)
        after = usual[half : half + 200] > thresholds[half : half + 200]
        learned.append(int(np.flatnonzero(after).max(initial=0)))
    assert max(clipped) < 0.01
    assert np.percentile(left, 95) < 5
    assert np.median(learned) <= 50


def test_lines_as_in_the_guide() -> None:
    automation = AdaptiveGradientClipping()
    rng = np.random.default_rng(0)
    _, decisions = drive(automation, 0.6 * np.exp(0.3 * rng.standard_normal(20)))
    assert [decision.text for decision in decisions] == [
        "grad_clip_threshold adjusted from 1.0 to 1.2 due to optimization"
    ]
    _, decisions = drive(automation, [*([0.6] * 9), 80.0], start=21)
    assert [type(decision) for decision in decisions][:1] == [Note]
    assert decisions[0].text.startswith("gradient norm of 80 clipped to 1.2")
    _, low = drive(AdaptiveGradientClipping(), [*([0.06] * 29), 0.7])
    told = [decision.text for decision in low if isinstance(decision, Note)]
    assert told[0].startswith("gradient norm of 0.7 is below the threshold, 0.833, 10 times the median is 0.6")
    assert decisions[0].text.endswith("due to exploding gradients")
    _, decisions = drive(automation, [6.0 + number % 2 for number in range(20)], start=31)
    shift = next(decision for decision in decisions if decision.reason == "level shift")
    assert shift.text.startswith("grad_clip_threshold adjusted from ")
    assert shift.text.endswith("due to level shift")
    assert isinstance(shift, SetClipThreshold)
    assert 6 < shift.threshold <= 10


def test_each_network_has_its_own() -> None:
    automation = AdaptiveGradientClipping(**WIDE)
    for iteration in range(1, 201):
        wobble = 1 + 0.1 * (iteration % 3)
        automation.observe_step(StepFacts(iteration=iteration, norms={"net_g": 0.1 * wobble, "net_d": 50.0 * wobble}))
        decisions = automation.decide(iteration) if iteration % 10 == 0 else []
        assert all("of net_d" in each.text for each in decisions if getattr(each, "network", "") == "net_d")
    thresholds = {network: level["threshold"] for network, level in automation.state_dict().items()}
    assert 0.1 < thresholds["net_g"] < 0.3
    assert 50 < thresholds["net_d"] < 120


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(st.floats(1e-8, 1e8), st.sampled_from([np.nan, np.inf, 0.0, 1.0])), max_size=120),
    bounds=st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 100.0)),
    factor=st.floats(1.01, 3.0),
)
def test_thresholds_stay_in_their_bounds_and_move_by_one_factor(
    values: list[float], bounds: tuple[float, float], factor: float
) -> None:
    lowest, highest = bounds
    automation = AdaptiveGradientClipping(
        min_threshold=lowest, max_threshold=highest, initial_threshold=1.0, adjustment_factor=factor
    )
    threshold = 1.0
    for decision in drive(automation, values)[1]:
        if isinstance(decision, SetClipThreshold):
            assert lowest <= decision.threshold <= highest
            if decision.reason == "optimization":
                assert 1 / factor - 1e-9 <= decision.threshold / threshold <= factor + 1e-9
            threshold = decision.threshold


def test_steps_that_were_not_applied_do_not_count() -> None:
    automation = AdaptiveGradientClipping()
    for iteration in range(1, 60):
        automation.observe_step(StepFacts(iteration=iteration, norms={"net_g": 7.0}, applied=False))
        automation.observe_step(StepFacts(iteration=iteration, norms={"net_g": float("nan")}))
    assert automation.state_dict() == {}


@pytest.mark.parametrize("cut", [1, 9, 15, 20, 25, 2995, 3015, 3020])
def test_a_resume_at_any_point_decides_alike(cut: int) -> None:
    values, _ = norms(3)
    straight = drive(AdaptiveGradientClipping(**WIDE), values[:3500])
    first, second = AdaptiveGradientClipping(**WIDE), AdaptiveGradientClipping(**WIDE)
    before = drive(first, values[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    after = drive(second, values[cut:3500], start=cut + 1)
    assert (before[0] + after[0], before[1] + after[1]) == straight


@pytest.mark.parametrize("cut", [55, 58, 74, 78])
def test_a_resume_between_an_event_and_its_decision(cut: int) -> None:
    """A spike at iteration 53, and a new level from 54 on, which 20 norms make at 73."""
    values = [0.5 + 0.01 * (number % 5) for number in range(52)] + [40.0] + [4.0 + number % 3 for number in range(60)]
    straight = drive(AdaptiveGradientClipping(), values)
    reasons = [decision.reason for decision in straight[1]]
    assert {"exploding gradients", "level shift"} <= set(reasons)
    first, second = AdaptiveGradientClipping(), AdaptiveGradientClipping()
    before = drive(first, values[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    after = drive(second, values[cut:], start=cut + 1)
    assert (before[0] + after[0], before[1] + after[1]) == straight


def test_a_threshold_that_is_near_enough_stays() -> None:
    rng = np.random.default_rng(4)
    _, decisions = drive(AdaptiveGradientClipping(), 0.5 * np.exp(0.2 * rng.standard_normal(3000)))
    assert len(decisions) < 60  # of 300 times that it was asked


def test_the_state_does_not_grow() -> None:
    sizes = []
    for length in (1_000, 20_000):
        automation = AdaptiveGradientClipping(**WIDE)
        drive(automation, norms(1, length)[0])
        sizes.append(len(json.dumps(automation.state_dict())))
    assert max(sizes) < 1.2 * min(sizes)


def test_a_threshold_outside_of_its_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match="accepted: between min_threshold and max_threshold"):
        AdaptiveGradientClipping(initial_threshold=20.0)
