"""IntelligentLearningRateScheduler on synthetic trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.automations.traces import ONSET, Family, curve, gain, noisy, truth
from traiNNer.training_automations.base import (
    Decision,
    Note,
    RunFacts,
    SetLearningRateFactor,
    SetSchedule,
    StepFacts,
    ValidationFacts,
)
from traiNNer.training_automations.intelligentlearningratescheduler_automation import IntelligentLearningRateScheduler
from traiNNer.utils.errors import ConfigError

SHORT = {"plateau_patience": 100, "improvement_threshold": 0.01}
SPEC = {"plateau_patience": 4000, "improvement_threshold": 0.01}

Told = list[tuple[int, Decision]]


def automation(run: Mapping[str, Any] | None = None, **options: Any) -> IntelligentLearningRateScheduler:
    """One that has been started on a run with one pixel loss."""
    made = IntelligentLearningRateScheduler(**options)
    made.start(RunFacts(**{"total_iter": 100_000, "trend_losses": frozenset({"l1loss"}), **(run or {})}))
    return made


def drive(
    made: IntelligentLearningRateScheduler,
    losses: Sequence[float],
    *,
    start: int = 1,
    rate: Callable[[int], float] = lambda _: 1e-4,
    weight: Callable[[int], float] = lambda _: 1.0,
    norm: Callable[[int], float] = lambda _: 1.0,
    metric: Callable[[int], float] | None = None,
    val_freq: int = 20,
) -> Told:
    """What is decided at which iteration, asked for every 10 iterations."""
    told: Told = []
    for iteration, loss in enumerate(losses, start):
        made.observe_step(
            StepFacts(
                iteration=iteration,
                losses={"l1loss": loss, "ganloss": -3.0 * iteration},
                weights={"l1loss": weight(iteration)},
                scheduled_rate=rate(iteration),
                norms={"net_g": norm(iteration)},
            )
        )
        if metric is not None and iteration % val_freq == 0:
            made.observe_validation(ValidationFacts(iteration=iteration, metrics={"val/psnr": metric(iteration)}))
        if iteration % 10 == 0:
            told += [(iteration, decision) for decision in made.decide(iteration)]
    return told


def factors(told: Told) -> list[tuple[int, float]]:
    return [(at, each.factor) for at, each in told if isinstance(each, SetLearningRateFactor)]


FLAT, RISING, FALLING = curve(0.0, 2000), curve(0.2, 1000), curve(-0.1, 1000)


def first_cut(values: np.ndarray) -> int | None:
    made = automation({"has_schedule": True}, **SPEC)
    for iteration, loss in enumerate(values.tolist(), 1):
        made.observe_step(StepFacts(iteration=iteration, losses={"l1loss": loss}, scheduled_rate=1e-4))
        if iteration % 100 == 0 and any(each.reason == "plateau detection" for each in made.decide(iteration)):
            return iteration - 1
    return None


def delays(seeds: int) -> list[int]:
    found = [first_cut(noisy(truth("plateau", 36_000), seed)) for seed in range(seeds)]
    return [index + 1 - ONSET for index in found if index is not None]


def early(family: Family, length: int, seeds: int) -> float:
    """The share of runs that are cut while they still gain twice the threshold."""
    clean = truth(family, length)
    found = [first_cut(noisy(clean, seed)) for seed in range(seeds)]
    return sum(at is not None and gain(clean, at, 4000) >= 0.02 for at in found) / seeds


def test_a_plateau_is_cut_soon_and_not_before() -> None:
    found = delays(4)
    assert len(found) == 4
    assert 0 < np.median(found) <= 6000


def test_a_curve_that_still_improves_is_not_cut() -> None:
    assert early("power 0.35", 40_000, 1) == early("spike", 30_000, 1) == 0


@pytest.mark.slow
def test_plateaus_of_30_trainings() -> None:
    found = delays(30)
    assert len(found) >= 0.95 * 30
    assert sum(delay <= 0 for delay in found) <= 0.05 * 30
    assert np.median(found) <= 6000


@pytest.mark.slow
@pytest.mark.parametrize(  # for as long as each gains 2 % per 4,000; the long ones are dear
    ("family", "length", "seeds"),
    [
        ("exponential", 60_000, 12),
        ("power 0.5", 100_000, 6),
        ("power 0.1", 20_000, 30),
        ("spike", 28_000, 30),
    ],
)
def test_at_most_5_percent_of_trainings_that_improve_are_cut(family: Family, length: int, seeds: int) -> None:
    assert early(family, length, seeds) <= 0.05


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_scale_does_not_matter(factor: float) -> None:
    losses = np.array([*FLAT, *RISING])
    plain = drive(automation(**SHORT), losses.tolist())
    assert len(factors(plain)) >= 3
    scaled = drive(automation(**SHORT), (factor * losses).tolist())
    assert [(at, each.text) for at, each in scaled] == [(at, each.text) for at, each in plain]


@pytest.mark.parametrize(
    ("losses", "line", "factor"),
    [
        (FLAT, "Suggested LR multiplier 0.80 for reason: plateau detection", 0.8),
        (RISING, "Suggested LR multiplier 0.50 for reason: divergence", 0.5),
        (FALLING, "Suggested LR multiplier 1.25 for reason: steady improvement", 1.25),
    ],
)
def test_lines_as_in_the_guide(losses: list[float], line: str, factor: float) -> None:
    told = drive(automation({"has_schedule": True}, **SHORT), losses)
    assert told[0][1].text == line
    assert told[0][1].counts
    assert factors(told)[0][1] == factor


def test_divergence_and_a_rise_take_two_windows_that_do_not_overlap() -> None:
    for losses in (RISING, FALLING):
        assert factors(drive(automation(**SHORT), losses))[0][0] >= 2 * 160


def test_factors_end_at_their_bounds() -> None:
    told = factors(drive(automation({"has_schedule": True}, **SHORT), curve(0.0, 6000)))
    assert told[-1][1] == 0.1
    assert len(told) == 11
    told = factors(drive(automation({"has_schedule": True}, **SHORT, max_lr_factor=1.5), curve(-0.1, 3000)))
    assert [factor for _, factor in told] == [1.25, 1.5]


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from([0.0, 0.2, -0.1]), st.sampled_from([150, 400])), min_size=1, max_size=5),
    strategy=st.sampled_from(["plateau", "adaptive"]),
    bounds=st.tuples(st.floats(0.05, 1.0), st.floats(1.0, 3.0)),
)
def test_nothing_is_done_within_plateau_patience_or_beyond_the_bounds(
    parts: list[tuple[float, int]], strategy: Any, bounds: tuple[float, float]
) -> None:
    options = {**SHORT, "min_lr_factor": bounds[0], "max_lr_factor": bounds[1], "strategy": strategy}
    losses = [value for index, (slope, length) in enumerate(parts) for value in curve(slope, length, index)]
    told = factors(drive(automation(**options), losses))
    assert all(bounds[0] <= factor <= bounds[1] for _, factor in told)
    assert all(later - sooner >= 100 for (sooner, _), (later, _) in pairwise(told))
    assert all(at >= 100 for at, _ in told)


def test_patience_counts_from_the_last_change_even_if_a_statement_stands() -> None:
    """A window takes longer than that, so it is forced here."""
    made = automation({"has_schedule": True}, **SHORT)
    drive(made, FLAT[:155])
    made._now.statement, made._now.changed = "plateau detection", 60
    assert made.decide(159) == []
    assert factors([(160, each) for each in made.decide(160)]) == [(160, 0.8)]


@pytest.mark.parametrize(
    "what",
    [
        {"rate": lambda at: 1e-4 if at < 150 else 0.79e-4},
        {"weight": lambda at: 1.0 if at < 150 else 1.21},
        {"weight": lambda at: 0.0 if at < 150 else 0.1},
    ],
)
def test_a_rate_or_a_weight_that_moves_starts_the_window_again(what: dict[str, Any]) -> None:
    usual = factors(drive(automation({"has_schedule": True}, **SHORT), FLAT[:500]))[0][0]
    assert usual < 300
    later = factors(drive(automation({"has_schedule": True}, **SHORT), FLAT[:600], **what))[0][0]
    assert later >= 150 + 160
    small = {"rate": lambda at: 1e-4 if at < 150 else 0.81e-4, "weight": lambda at: 1.0 if at < 150 else 1.19}
    assert factors(drive(automation({"has_schedule": True}, **SHORT), FLAT[:500], **small))[0][0] == usual


def test_a_phase_a_jump_and_its_own_change_start_the_window_again() -> None:
    made = automation({"has_schedule": True}, **SHORT)
    drive(made, FLAT[:150])
    made.observe_phase(150, "batch size")
    assert factors(drive(made, FLAT[150:600], start=151))[0][0] >= 150 + 160
    jumped = [*FLAT[:150], *(4 * np.array(FLAT[150:600])).tolist()]
    assert factors(drive(automation({"has_schedule": True}, **SHORT), jumped))[0][0] >= 150 + 160
    told = factors(drive(automation({"has_schedule": True}, **SHORT), FLAT[:1000]))
    assert min(later - sooner for (sooner, _), (later, _) in pairwise(told)) >= 160


def test_no_rise_above_1_once_the_schedule_has_begun_to_decay() -> None:
    rate = lambda at: 1e-4 * min(at / 50, 1) if at < 60 else 0.99e-4  # noqa: E731 - a warm-up is no decay
    assert factors(drive(automation({"has_schedule": True}, **SHORT), FALLING, rate=rate)) == []
    made = automation({"has_schedule": True}, **SHORT)
    drive(made, RISING, rate=rate)
    low = made.state_dict()["now"]["factor"]
    told = factors(drive(made, curve(-0.1, 4000), start=1001, rate=rate))
    assert low < 1
    assert max(factor for _, factor in told) == 1.0


@pytest.mark.parametrize("norm", [lambda at: 1.003**at, lambda at: 1.0 + 3 * (at // 10 % 2), lambda _: math.nan])
def test_no_rise_without_steady_gradient_norms(norm: Callable[[int], float]) -> None:
    assert factors(drive(automation({"has_schedule": True}, **SHORT), FALLING, norm=norm)) == []


RUN = {"better": {"val/psnr": "higher", "val/ssim": "higher"}, "val_freq": 20, "has_schedule": True}


def test_a_metric_that_improves_holds_a_cut_back_and_one_that_worsens_a_rise() -> None:
    rising, falling, still = (lambda at, s=s: 30 + s * 0.003 * at + 0.01 * math.sin(at) for s in (1, -1, 0))
    few, flat = {**SHORT, "improvement_threshold": 0.005}, curve(0, 2000, noise=0.02)
    assert factors(drive(automation(RUN, **few), flat, metric=still)) != []
    assert factors(drive(automation(RUN, **few), flat, metric=rising)) == []
    assert factors(drive(automation(RUN, **few, monitor_validation=False), flat, metric=rising)) != []
    assert factors(drive(automation(RUN, **few, monitor_metric="val/ssim"), flat, metric=rising)) != []
    assert factors(drive(automation(RUN, **few), FALLING, metric=still)) != []
    assert factors(drive(automation(RUN, **few), FALLING, metric=falling)) == []
    lower = {**RUN, "better": {"val/psnr": "lower"}}
    assert factors(drive(automation(lower, **few), flat, metric=falling)) == []


def test_without_the_loss_the_metric_decides() -> None:
    for slope, reason in ((0.0, "plateau detection"), (-0.01, "divergence"), (0.01, "steady improvement")):
        told = drive(
            automation(RUN, **SHORT, monitor_loss=False),
            RISING,
            metric=lambda at, s=slope: 30 + s * at + 0.01 * (at % 3),
        )
        assert told[0][1].reason == reason


@pytest.mark.parametrize(
    ("strategy", "total", "kind", "line"),
    [
        ("adaptive", 1600, "plateau", "no schedule is set and the loss is flat with 90% of the run left: cuts of 0.80"),
        ("adaptive", 300, "cosine", "no schedule is set and the loss is flat with 47% of the run left: cosine to 0.1"),
        ("adaptive", 180, "exponential", "no schedule is set and the loss is flat with 11% of the run left: exponent"),
        ("cosine", 1600, "cosine", "the loss is flat with 90% of the run left: cosine to 0.1 over the rest"),
        ("exponential", 1600, "exponential", "the loss is flat with 90% of the run left: exponential to 0.1 over"),
    ],
)
def test_strategies_begin_at_the_first_plateau(strategy: Any, total: int, kind: str, line: str) -> None:
    told = drive(automation({"total_iter": total}, **SHORT, strategy=strategy), FLAT[:total])
    at, note = told[0]
    assert note.text.startswith(line)
    assert not note.counts
    if kind == "plateau":
        assert told[1][1].text == "Suggested LR multiplier 0.80 for reason: plateau detection"
        assert sum(isinstance(each, Note) for _, each in told if each.reason.startswith("strategy")) == 1
        return
    decay = [(when, each) for when, each in told if each.reason == f"{kind} decay"]
    assert not any(each.counts for _, each in decay)
    assert factors(decay) == factors(told)
    for when, factor in factors(decay):
        part = (when - at) / (total - at)
        shape = 0.1 + 0.9 * (1 + math.cos(math.pi * part)) / 2 if kind == "cosine" else 0.1**part
        assert factor == pytest.approx(shape)
    assert factors(decay)[-1][1] == pytest.approx(0.1)


def test_a_fixed_strategy_of_cuts_chooses_nothing() -> None:
    told = drive(automation(**SHORT, strategy="plateau"), FLAT[:800])
    assert {each.reason for _, each in told} == {"plateau detection"}


def test_a_decay_is_halved_by_divergence() -> None:
    made = automation({"total_iter": 50_000}, **SHORT, strategy="cosine")
    told = drive(made, [*FLAT[:300], *RISING])
    halved = next(each for _, each in told if each.reason == "divergence")
    assert halved.text == "Suggested LR multiplier 0.50 for reason: divergence"
    assert all(later < sooner for (_, sooner), (_, later) in pairwise(factors(told)))
    assert made.state_dict()["now"]["decay"][1] == pytest.approx(0.5 ** sum(each.counts for _, each in told))


def test_after_2000_iterations_the_wait_that_the_noise_demands_is_told_once() -> None:
    told = drive(automation({"has_schedule": True}), noisy(truth("power 0.1", 5000), 0).tolist())
    assert [at for at, _ in told] == [2000]
    note = told[0][1]
    assert isinstance(note, Note)
    assert not note.counts
    assert 14_000 <= note.evidence["wait"] <= 18_000  # type: ignore[operator]
    assert note.text.startswith("the loss varies by 18% from one iteration to the next: ")
    assert "after about 16,000 iterations (a gain below 0.1 % per 1,000)" in note.text
    loud = [value**3 for value in noisy(truth("power 0.1", 2000), 0).tolist()]
    assert "more than the 16,000 that are looked at" in drive(automation({"has_schedule": True}), loud)[0][1].text


@pytest.mark.parametrize(
    ("parameters", "written", "expected"), [(500_000, None, 1000), (500_001, None, 2000), (500_001, 1000, 1000)]
)
def test_large_networks_wait_twice_as_long_by_default(parameters: int, written: int | None, expected: int) -> None:
    assert automation({"parameters": parameters}, plateau_patience=written).patience == expected


MIXED = [*FLAT[:330], *(0.5 * np.array(RISING[:420])).tolist(), *FALLING[:500], math.nan, *FLAT[:300]]


@settings(max_examples=8, deadline=None)
@given(cut=st.integers(1, len(MIXED) - 1), strategy=st.sampled_from(["adaptive", "cosine"]), schedule=st.booleans())
def test_a_resume_at_any_point_decides_alike(cut: int, strategy: Any, schedule: bool) -> None:
    run = {**RUN, "has_schedule": schedule, "total_iter": len(MIXED)}
    made, first, second = (automation(run, **SHORT, strategy=strategy) for _ in range(3))
    observed = {"metric": lambda at: 30 + math.sin(at), "norm": lambda at: 1 + 0.1 * math.sin(at)}
    straight = drive(made, MIXED, **observed)
    assert len(straight) > 3
    before = drive(first, MIXED[:cut], **observed)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert before + drive(second, MIXED[cut:], start=cut + 1, **observed) == straight
    assert second.state_dict() == made.state_dict()


@pytest.mark.parametrize(
    "options", [{**SHORT, "plateau_patience": 500}, {**SHORT, "monitor_metric": "val/ssim"}, {**SHORT}]
)
def test_blocks_and_points_of_other_options_are_forgotten_on_a_resume(options: dict[str, Any]) -> None:
    """A hundred blocks of 10 iterations are no hundred blocks of 50, and PSNR is not SSIM."""
    first, second = automation(RUN, **SHORT), automation(RUN, **options)
    drive(first, curve(-0.005, 1000), metric=lambda at: 30 + 0.001 * at)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    state = second.state_dict()
    kept = options == SHORT
    assert bool(state["trend"]["means"]) is bool(state["metric"]["points"]) is bool(state["window"]["seen"]) is kept
    assert state["now"]["factor"] == first.state_dict()["now"]["factor"]


def test_a_loaded_factor_lies_within_the_present_bounds() -> None:
    made, other = automation(**SHORT), automation(**SHORT, min_lr_factor=0.9)
    drive(made, RISING)
    assert made.state_dict()["now"]["factor"] < 0.9
    other.load_state_dict(made.state_dict())
    assert other.state_dict()["now"]["factor"] == 0.9


def test_the_state_does_not_grow() -> None:
    sizes: list[int] = []
    for length in (1650, 4000):
        made = automation(RUN, **SHORT, min_lr_factor=1.0, max_lr_factor=1.0)
        drive(made, curve(0, length), metric=lambda at: 30 + math.sin(at))
        sizes.append(len(json.dumps(made.state_dict())))
    assert max(sizes) < 1.05 * min(sizes)


def test_what_is_no_number_is_left_out() -> None:
    plain, spoiled = automation(**SHORT), automation(**SHORT)
    for iteration, loss in enumerate(FLAT[:400], 1):
        for made in (plain, spoiled):
            made.observe_step(StepFacts(iteration=iteration, losses={"l1loss": loss}, norms={"net_g": 1.0}))
        for bad in (math.nan, math.inf, 0.0):
            spoiled.observe_step(StepFacts(iteration=iteration, losses={"l1loss": bad}, norms={"net_g": math.nan}))
        spoiled.observe_step(StepFacts(iteration=iteration, losses={"l1loss": 7.0}, applied=False))
        spoiled.observe_validation(ValidationFacts(iteration=iteration, metrics={"val/psnr": math.nan}))
        told = plain.decide(iteration)
        assert spoiled.decide(iteration) == told
    assert plain.state_dict()["now"]["factor"] < 1


def test_fallback_is_the_configured_schedule_or_another_from_here() -> None:
    back = automation({"has_schedule": True}, fallback_scheduler_type="cosine").fallback()
    assert [type(each) for each in back] == [SetLearningRateFactor]
    assert factors([(0, back[0])]) == [(0, 1.0)]
    options = {"fallback_scheduler_type": "cosine", "fallback_scheduler_params": {"eta_min": 1e-5, "T_max": 50_000}}
    _, schedule = automation(**options).fallback()
    assert isinstance(schedule, SetSchedule)
    assert schedule.scheduler == {"type": "CosineAnnealingLR", "eta_min": 1e-5, "T_max": 50_000}
    _, schedule = automation().fallback()
    assert isinstance(schedule, SetSchedule)
    assert schedule.scheduler == {"type": "CosineAnnealingLR", "eta_min_factor": 0.01}


def test_what_cannot_be_is_refused_or_told() -> None:
    with pytest.raises(ConfigError, match="val/lpips is not computed; accepted: val/psnr, val/ssim"):
        automation(RUN, monitor_metric="val/lpips")
    with pytest.raises(ConfigError, match=r"^fallback_scheduler_type: unknown scheduler 'cosin'"):
        automation(fallback_scheduler_type="cosin")
    with pytest.raises(ConfigError, match=r"^fallback_scheduler_type: found ReduceLROnPlateau; accepted: a schedule"):
        automation(fallback_scheduler_type="plateau")
    uneven = {"periods": [50, 50], "restart_weights": [1.0, 1.0, 1.0]}
    with pytest.raises(ConfigError, match=r"^fallback_scheduler_params\.restart_weights: found 3 for 2"):
        automation(fallback_scheduler_type="CosineAnnealingRestartLR", fallback_scheduler_params=uneven)
    with pytest.raises(ConfigError, match=r"^fallback_scheduler_params: found parameters without"):
        automation(fallback_scheduler_params={"T_max": 5})
    with pytest.raises(ConfigError, match=r"^fallback_scheduler_params\.T_mx: unknown key; .*did you mean T_max"):
        automation(fallback_scheduler_type="cosine", fallback_scheduler_params={"T_mx": 5})
    run = RunFacts(total_iter=100, trend_losses=frozenset({"l1loss"}), better={"val/psnr": "higher"}, val_freq=5000)
    assert IntelligentLearningRateScheduler().start(run)[1:] == [
        "8 validations take more than 16,000 iterations: the training loss alone decides"
    ]
    assert IntelligentLearningRateScheduler().start(RunFacts(total_iter=100)) == [
        "neither a training loss nor a metric is watched: the factor stays at 1"
    ]
