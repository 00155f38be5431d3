"""IntelligentEarlyStopping on synthetic validations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.automations.validation_traces import EVERY, FAMILIES, LENGTH, Family, gain, noisy, training_loss, truth
from traiNNer.training_automations.base import RunFacts, StepFacts, StopTraining, ValidationFacts
from traiNNer.training_automations.intelligentearlystopping_automation import IntelligentEarlyStopping
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import AUTOMATIONS

PATIENCE = 15
"""Validations."""

RUN: dict[str, Any] = {
    "total_iter": 1_000_000,
    "val_freq": EVERY,
    "better": {"val/psnr": "higher", "val/ssim": "higher", "val/lpips": "lower"},
    "perceptual": frozenset({"val/lpips"}),
    "trend_losses": frozenset({"l_g_pix"}),
}
FALLING = tuple(0.99**number for number in range(400))


def started(run: dict[str, Any] | None = None, **options: Any) -> IntelligentEarlyStopping:
    automation = IntelligentEarlyStopping(**{"warmup_iterations": 0, **options})
    automation.start(RunFacts(**{**RUN, **(run or {})}))
    return automation


def drive(
    automation: IntelligentEarlyStopping,
    values: Iterable[float],
    losses: Iterable[float] = FALLING,
    first: int = 1,
    metric: str = "val/psnr",
) -> tuple[StopTraining, int] | None:
    """The first decision, with its iteration; values are those of validations `first`, `first` + 1, ..."""
    for number, (value, loss) in enumerate(zip(values, losses, strict=False), first):
        iteration = number * EVERY
        automation.observe_step(StepFacts(iteration=iteration, losses={"l_g_pix": loss, "l_g_gan": -5.0}))
        automation.observe_validation(ValidationFacts(iteration=iteration, metrics={metric: value}))
        for decision in automation.decide(iteration):
            assert isinstance(decision, StopTraining)
            return decision, iteration
    return None


def trial(family: Family, seed: int) -> dict[str, Any]:
    """A random run of the family: where it stopped, which checkpoint it leaves, and what is true of that."""
    rng = np.random.default_rng(seed)
    curve = truth(family, rng)
    seen, losses = noisy(curve, rng), training_loss(rng)
    found = drive(started({"total_iter": LENGTH * EVERY}, patience=PATIENCE * EVERY), seen.tolist(), losses.tolist())
    stop = LENGTH if found is None else found[1] // EVERY
    chosen = int(np.argmax(seen[:stop])) + 1
    return {
        "family": family,
        "stopped": found is not None,
        "lost": curve.max() - curve[chosen - 1],
        "after chosen": stop - chosen,
        "after best": stop - 1 - int(np.argmax(curve)),
        "gain": gain(curve, stop - 1, PATIENCE),
    }


def test_what_is_chosen_is_near_the_best_and_little_is_spent_after_it() -> None:
    trials = [trial(FAMILIES[seed % 3], seed) for seed in range(200)]
    assert np.mean([each["lost"] <= 0.02 for each in trials]) >= 0.95
    assert max(each["after chosen"] for each in trials) <= 1.3 * PATIENCE
    humps = [each for each in trials if each["family"] == "overfit hump"]
    assert all(each["stopped"] for each in humps)
    assert np.mean([each["after best"] <= 1.3 * PATIENCE for each in humps]) >= 0.95
    assert all(each["stopped"] for each in trials if each["family"] == "noisy rise")
    slow = [each for each in trials if each["family"] == "slow rise"]
    assert [each["gain"] for each in slow if each["stopped"] and each["gain"] > 0.002] == []


@pytest.mark.parametrize("name", ["IntelligentEarlyStopping", "intelligent_early_stopping", "early_stopping"])
def test_it_is_found_by_all_its_names(name: str) -> None:
    assert AUTOMATIONS.get(name) is IntelligentEarlyStopping


def test_the_line_of_the_guide() -> None:
    found = drive(started(), [20.0, 21.0, 22.0, 21.9, 22.0005])  # 0.0005 more is no improvement
    assert found is not None
    decision, iteration = found
    assert (iteration, decision.reason) == (5000, "patience")
    assert decision.text == "Early stopping triggered - no improvement in val/psnr for 2000 iterations"
    assert dict(decision.evidence) == {
        "metric": "val/psnr",
        "best": 22.0005,
        "best_iteration": 5000,
        "iterations": 2000,
    }


def test_equality_is_no_improvement() -> None:
    found = drive(started(min_improvement=0.0), [20.0, 20.0, 20.0])
    assert found is not None
    assert found[1] == 3000


def test_convergence_is_told_of_eight_validations_at_the_earliest() -> None:
    rising = [30 + 0.0005 * number for number in range(20)]
    found = drive(started(patience=100_000, max_no_improvement=2000), rising)
    assert found is not None
    assert (found[1], found[0].reason) == (8000, "convergence")
    assert found[0].text == ("Early stopping triggered - val/psnr has converged: gain below 0.002 per 2000 iterations")
    steeper = [30 + 0.0011 * number for number in range(60)]
    assert drive(started(patience=100_000, max_no_improvement=2000), steeper) is None


def test_overfitting_is_told_within_three_validations_if_the_training_loss_still_falls() -> None:
    wobble = 0.005 * np.random.default_rng(2).standard_normal(40)
    hump = (30 - 0.3 * np.abs(np.arange(40) - 20) + wobble).tolist()
    found = drive(started(patience=100_000), hump)
    assert found is not None
    assert found[1] == 24_000  # the top is at 21,000
    assert found[0].reason == "overfitting"
    assert found[0].text == (
        "Early stopping triggered - overfitting: val/psnr worse than its best for 3 validations while the training "
        "loss falls"
    )
    noise = np.exp(0.01 * np.random.default_rng(1).standard_normal(40))
    assert drive(started(patience=100_000), hump[:36], losses=noise) is None


def test_noise_on_a_plateau_is_not_called_overfitting() -> None:
    """In a hundred validations of a run; at most a tenth of the runs, a plain comparison with the best most of them."""
    reasons = []
    for seed in range(30):
        plateau = 30 + 0.2 * np.random.default_rng(seed).standard_normal(100)
        found = drive(started(patience=1_000_000, improvement_threshold=0.0, max_no_improvement=1), plateau.tolist())
        reasons.append(found and found[0].reason)
    assert reasons.count("overfitting") <= 3


def test_validations_of_the_warm_up_do_not_set_the_best() -> None:
    found = drive(started(warmup_iterations=4000), [50.0, 50.0, 50.0, 20.0, 21.0, 22.0, 22.0, 22.0])
    assert found is not None
    assert (found[1], found[0].evidence["best"]) == (8000, 22.0)


@pytest.mark.parametrize(
    ("options", "earliest"), [({"min_iterations": 7000}, 7000), ({"min_epochs": 4}, 10_000), ({}, 3000)]
)
def test_nothing_stops_before_all_minima_have_passed(options: dict[str, int], earliest: int) -> None:
    found = drive(started({"iterations_per_epoch": 2500}, **options), [20.0] * 20)
    assert found is not None
    assert found[1] == earliest


def test_lines_at_the_start() -> None:
    automation = IntelligentEarlyStopping(min_epochs=1000, patience=2500)
    facts = RunFacts(**{**RUN, "iterations_per_epoch": 1200})
    assert automation.start(facts) == [
        "watches val/psnr (higher is better); stops after 2500 iterations (3 validations) without an improvement by "
        "more than 0.001",
        "cannot stop this run of 1000000 iterations: min_epochs 1000 last until iteration 1200000",
    ]
    assert len(IntelligentEarlyStopping().start(facts)) == 1
    assert IntelligentEarlyStopping().start(RunFacts(total_iter=10)) == [
        "cannot stop this run: it has no validation that computes a metric"
    ]


def test_a_metric_that_is_not_computed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"monitor_metric: found val/psnr_y; accepted: val/psnr, .*did you mean"):
        started(monitor_metric="val/psnr_y")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best(bad: float) -> None:
    found = drive(started(), [20.0, 21.0, bad, bad])
    assert found is not None
    assert (found[1], found[0].evidence["best"]) == (4000, 21.0)
    found = drive(started(), [bad] * 9)
    assert found is not None
    assert found[1] == 2000


def test_lower_is_better_where_the_metric_says_so() -> None:
    automation = started(monitor_metric="val/lpips")
    found = drive(automation, [0.5, 0.4, 0.3, 0.31, 0.45], metric="val/lpips")
    assert found is not None
    assert (found[1], found[0].evidence["best"]) == (5000, 0.3)
    assert found[0].text.endswith("no improvement in val/lpips for 2000 iterations")


def test_a_perceptual_metric_is_watched_while_a_gan_loss_is_live() -> None:
    def watched(**facts: Any) -> list[str]:
        automation = started(facts)
        metrics = []
        for iteration in (1000, 2000, 3000):
            automation.observe_validation(ValidationFacts(iteration=iteration, metrics={}))
            metrics.append(automation.state_dict()["metric"])
        return metrics

    assert watched() == ["val/psnr"] * 3
    assert watched(adversarial_from=1) == ["val/lpips"] * 3
    assert watched(adversarial_from=2001) == ["val/psnr", "val/psnr", "val/lpips"]
    assert watched(adversarial_from=1, perceptual=frozenset()) == ["val/psnr"] * 3
    assert watched(better={"val/ssim": "higher"}) == ["val/ssim"] * 3


def test_a_phase_starts_patience_again_and_keeps_the_best() -> None:
    automation = started()
    assert drive(automation, [20.0, 25.0, 24.0]) is None
    automation.observe_phase(3500, "losses")
    found = drive(automation, [22.0, 22.5, 22.0, 22.0], first=4)
    assert found is not None
    assert found[1] == 7000
    assert (found[0].evidence["best"], found[0].evidence["best_iteration"]) == (25.0, 2000)


def test_it_judges_validations_only_and_not_the_last_one() -> None:
    automation = started()
    assert drive(automation, [20.0, 20.0]) is None
    assert automation.decide(3100) == []
    assert drive(started({"total_iter": 3000}), [20.0] * 3) is None


def test_patience_lasts_longer_while_the_metric_certainly_rises() -> None:
    rising = [*(20 + 0.1 * np.arange(9)), 30.0, *(20.9 + 0.1 * np.arange(30))]  # one lucky validation
    found = drive(started(patience=10_000), rising, losses=[0.1] * 40)
    assert found is not None
    assert found[1] == 23_000
    assert found[0].text.endswith("no improvement in val/psnr for 13000 iterations")


def test_a_stopped_run_goes_on_with_more_patience() -> None:
    first, second = started(), started(patience=5000)
    values = [20.0, 21.0, 21.0, 21.0, 21.0, 21.0, 21.0]
    assert drive(first, values) is not None
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found = drive(second, values[4:], first=5)
    assert found is not None
    assert found[1] == 7000
    assert not found[0].counts  # else max_adjustments 1 would be used up


def test_another_metric_in_the_options_starts_anew() -> None:
    first, second = started(), started(monitor_metric="val/ssim")
    drive(first, [20.0, 21.0])
    before = second.state_dict()
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == before


def events(rng: np.random.Generator) -> list[tuple[str, int, float]]:
    """Steps, validations, questions and phases of a run in order."""
    found: list[tuple[str, int, float]] = []
    level = 30 - 0.2 * np.abs(np.arange(45) - rng.integers(5, 45)) + 0.05 * rng.standard_normal(45)
    for number, value in enumerate(level.tolist(), 1):
        for part in (250, 500, 750, 1000):
            iteration = (number - 1) * EVERY + part
            found.append(("step", iteration, 0.98**number * rng.uniform(0.9, 1.1)))
            if part == 500 and rng.random() < 0.03:
                found.append(("phase", iteration, 0.0))
        found += [("validation", number * EVERY, math.nan if rng.random() < 0.1 else value)]
        found += [("decide", number * EVERY, 0.0)]
    return found


def play(automation: IntelligentEarlyStopping, what: Iterable[tuple[str, int, float]]) -> list[Any]:
    decisions: list[Any] = []
    for kind, iteration, value in what:
        if kind == "step":
            automation.observe_step(StepFacts(iteration=iteration, losses={"l_g_pix": value}))
        elif kind == "phase":
            automation.observe_phase(iteration, "losses")
        elif kind == "validation":
            metrics = {"val/psnr": value, "val/lpips": 1 - value / 100}
            automation.observe_validation(ValidationFacts(iteration=iteration, metrics=metrics))
        else:
            decisions += automation.decide(iteration)
    return decisions


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), adversarial=st.sampled_from([None, 1, 9_600]))
def test_a_resume_at_any_point_decides_alike(seed: int, share: float, adversarial: int | None) -> None:
    what = events(np.random.default_rng(seed))
    run, options = {"adversarial_from": adversarial}, {"patience": 6000, "warmup_iterations": 3000}
    straight, first, second = (started(run, **options) for _ in range(3))
    expected = play(straight, what)
    cut = int(share * len(what))
    before = play(first, what[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + play(second, what[cut:]) == expected
    assert second.state_dict() == straight.state_dict()


def test_the_state_does_not_grow() -> None:
    sizes = []
    for length in (100, 1000):
        automation = started({"total_iter": 1}, patience=10**9)
        drive(automation, [30.125] * length, losses=[0.1] * length)
        sizes.append(len(json.dumps(automation.state_dict(), allow_nan=False)))
        assert automation.state_dict()["curve"]["count"] == length
    assert sizes[1] < 1.1 * sizes[0]


def test_the_fallback_is_the_full_duration() -> None:
    assert started().fallback() == []
