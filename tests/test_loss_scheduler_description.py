"""The metric-driven loss scheduler against its description: a model written from the text, exact traces, properties.

Also a script: `PYTHONPATH=. python tests/test_loss_scheduler_description.py`.
"""

from __future__ import annotations

import json
import math
import random
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from traiNNer.losses.flexible_loss_scheduler import Adaptation, FlexibleLossScheduler, SchedulerParams

BAD = (math.nan, math.inf, -math.inf)
NEVER = 10**6
CURVES = {
    "linear": lambda q: q,
    "cosine": lambda q: (1 - math.cos(math.pi * q)) / 2,
    "exponential": lambda q: (math.exp(3 * q) - 1) / (math.exp(3) - 1),
}


def params(**options: Any) -> SchedulerParams:
    return SchedulerParams(**{"source_loss": "l1", "target_loss": "ff"} | options)


def build(better: Any = None, **options: Any) -> FlexibleLossScheduler:
    return FlexibleLossScheduler(params(**options), better)


def quick(**options: Any) -> FlexibleLossScheduler:
    """Without waiting times and smoothing, so that a trace can be followed by hand."""
    return build(**{"min_observations_before_adapt": 0, "warmup_observations": 0, "use_ema": False} | options)


def feed(scheduler: FlexibleLossScheduler, values: list[float], name: str = "ff", every: int = 1000) -> list[int]:
    """Give it the values, and say at which observations, counted from 1, it adapted."""
    return [n for n, value in enumerate(values, 1) if scheduler.step({name: value}, n * every) is not None]


def feed_at(scheduler: FlexibleLossScheduler, iterations: list[int]) -> list[float]:
    return [(scheduler.at(iteration), scheduler.progress)[1] for iteration in iterations]


def curve_with_noise(seed: int, slope: float, noise: float, length: int) -> list[float]:
    draw = random.Random(seed)
    return [(1 - slope) ** n * (1 + noise * draw.gauss(0, 1)) for n in range(length)]


@st.composite
def options(draw: st.DrawFn, *, auto: bool = True) -> dict[str, Any]:
    patience = draw(st.one_of(st.integers(1, 6), st.just("auto")) if auto else st.integers(1, 6))
    start = draw(st.floats(0, 0.8))
    return {
        "initial_weight_source": draw(st.floats(0.1, 2)),
        "initial_weight_target": start,
        "final_weight_source": draw(st.floats(0, 2)),
        "final_weight_target": draw(st.floats(0.1, 2)),
        "max_weight_target": draw(st.floats(max(start, 0.1), 2)),
        "adaptation_trigger": draw(st.sampled_from(["plateau", "increase"])),
        "patience": patience,
        "min_delta": draw(st.sampled_from([0.001, 0.1] if patience == "auto" else [0.0, 0.001, 0.1])),
        "threshold_mode": draw(st.sampled_from(["rel", "abs"])),
        "transition_step": draw(st.floats(0.05, 1)),
        "adaptive_step": draw(st.booleans()),
        "min_observations_before_adapt": draw(st.integers(0, 8)),
        "warmup_observations": draw(st.integers(0, 4)),
        "max_consecutive_adaptations": draw(st.integers(1, 4)),
        "use_ema": draw(st.booleans()),
        "ema_beta": draw(st.floats(0, 0.95)),
        "transition_schedule": draw(st.sampled_from(sorted(CURVES))),
    }


observed = st.lists(st.one_of(st.floats(0.01, 10), st.sampled_from([1.0, 0.5, *BAD])), min_size=1, max_size=60)


class Described:
    """Plateau and increase as the description says them, for losses, without brake and `auto`."""

    def __init__(self, options: SchedulerParams) -> None:
        self.options, self.progress, self.n, self.bad = options, 0.0, 0, 0
        self.best: float | None = None
        self.smoothed: float | None = None

    def step(self, value: float) -> bool:
        options = self.options
        self.n += 1
        if self.n <= options.warmup_observations:
            return False
        before, better = self.smoothed, False
        if math.isfinite(value):
            beta = options.ema_beta if options.use_ema else 0.0
            self.smoothed = value if before is None else beta * before + (1 - beta) * value
            better = self.best is None or self.smoothed < self.best - self.margin(self.best)
        self.bad = 0 if better else self.bad + 1
        if better:
            self.best = self.smoothed
        if options.adaptation_trigger == "plateau":
            due = not better and self.bad >= int(options.patience)
        else:
            due = before is not None and self.smoothed is not None and self.smoothed > before + self.margin(before)
        if not due or self.n <= options.min_observations_before_adapt or self.progress >= 1 - 1e-9:
            return False
        size = options.transition_step
        self.progress += max(0.05, size * (1 - self.progress)) if options.adaptive_step else size
        self.progress, self.bad, self.best = min(1.0, self.progress), 0, self.smoothed
        return True

    def margin(self, reference: float) -> float:
        return self.options.min_delta * (abs(reference) if self.options.threshold_mode == "rel" else 1.0)


@settings(max_examples=60)
@given(chosen=options(auto=False), first=st.floats(0.01, 10), values=observed)
def test_decisions_are_the_described_ones(chosen: dict[str, Any], first: float, values: list[float]) -> None:
    chosen |= {"max_consecutive_adaptations": NEVER}
    given_params = params(**chosen)
    scheduler, described = FlexibleLossScheduler(given_params), Described(given_params)
    for value in [first] * (chosen["warmup_observations"] + 1) + values:
        assert (scheduler.step({"ff": value}) is not None) == described.step(value)
        assert scheduler.progress == pytest.approx(described.progress, abs=1e-9)
        seen = described.smoothed
        assert scheduler.monitored == (None if seen is None else pytest.approx(seen, rel=1e-9))


@settings(max_examples=60)
@given(chosen=options(), values=observed)
def test_bounds_sum_and_direction_hold_for_any_values(chosen: dict[str, Any], values: list[float]) -> None:
    scheduler = build(**chosen)
    total = chosen["initial_weight_source"] + chosen["initial_weight_target"]
    progress, target, way = 0.0, scheduler.weight_target, 0.0
    assert target == pytest.approx(chosen["initial_weight_target"])
    for value in values:
        adapted = scheduler.step({"ff": value})
        assert progress <= scheduler.progress <= 1
        assert (adapted is not None) == (scheduler.progress > progress)
        assert scheduler.weight_source + scheduler.weight_target == pytest.approx(total)
        assert scheduler.weight_source >= -1e-12
        assert -1e-12 <= scheduler.weight_target <= chosen["max_weight_target"] + 1e-12
        moved = scheduler.weight_target - target
        if abs(moved) > 1e-9:
            assert moved * way >= 0, "the target went both ways"
            way = moved
        progress, target = scheduler.progress, scheduler.weight_target
        assert scheduler.get_loss_weights() == {"l1": scheduler.weight_source, "ff": scheduler.weight_target}


@settings(max_examples=60)
@given(chosen=options(), values=observed, cut=st.integers(0, 60))
def test_a_state_through_json_decides_alike(chosen: dict[str, Any], values: list[float], cut: int) -> None:
    whole = build(**chosen)
    feed(whole, values[:cut])
    resumed = build(**chosen)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict(), allow_nan=False)))
    assert resumed.state_dict() == whole.state_dict()
    assert resumed.get_loss_weights() == whole.get_loss_weights()
    for value in values[cut:] + [1.0] * 20:
        assert resumed.step({"ff": value}) == whole.step({"ff": value})
        assert resumed.get_loss_weights() == whole.get_loss_weights()


@pytest.mark.parametrize(
    ("chosen", "slope", "noise"),
    [
        ({"patience": 3, "max_consecutive_adaptations": 2}, 0.0, 0.0),
        ({"patience": "auto", "min_delta": 0.005, "ema_beta": 0.95}, 0.01, 0.003),
    ],
)
def test_a_state_from_any_point_of_a_trace_decides_alike(chosen: dict[str, Any], slope: float, noise: float) -> None:
    values = curve_with_noise(1, slope, noise, 40) + curve_with_noise(2, 0.0, 2 * noise, 60)
    whole = build(**chosen)
    states = [(whole.state_dict(), whole.step({"ff": value}))[0] for value in values]
    decided = [n for n, state in enumerate(states[1:]) if state["progress"] > states[n]["progress"]]
    assert len(decided) > 2
    for cut, state in enumerate(states):
        resumed = build(**chosen)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert [cut + n - 1 for n in feed(resumed, values[cut:-1])] == [n for n in decided if n >= cut]


@pytest.mark.parametrize("patience", [3, "auto"])
def test_a_state_has_a_bounded_size(patience: Any) -> None:
    scheduler, noise, sizes = build(patience=patience), random.Random(1), []
    for _ in range(3):
        feed(scheduler, [1 + noise.random() for _ in range(300)])
        sizes.append(len(json.dumps(scheduler.state_dict())))
    assert max(sizes) < 4096
    assert sizes[2] < sizes[0] * 1.1


def test_the_defaults_are_the_tables_and_fixed() -> None:
    table = {
        "enabled": True, "static_components": {}, "initial_weight_source": 1.0, "initial_weight_target": 0.0,
        "final_weight_source": 0.3, "final_weight_target": 0.7, "max_weight_target": 0.8,
        "adaptation_trigger": "plateau", "patience": 5, "min_delta": 0.001, "threshold_mode": "rel",
        "transition_step": 0.1, "adaptive_step": True, "min_observations_before_adapt": 10, "warmup_observations": 5,
        "max_consecutive_adaptations": 10, "monitor_metric": "target_loss", "use_ema": True, "ema_beta": 0.9,
        "transition_schedule": "linear", "schedule": None,
    }  # fmt: skip
    found = params()
    assert {name: getattr(found, name) for name in table} == table
    with pytest.raises(ValidationError):
        setattr(found, "patience", 3)  # noqa: B010 - a constant name would not type-check


def test_a_plateau_with_the_defaults() -> None:
    scheduler, seen = build(), []
    for n in range(1, 22):
        adapted = scheduler.step({"ff": 0.5, "l1": 0.1}, n)
        if adapted:
            assert isinstance(adapted, Adaptation)
            seen.append((n, adapted))
    assert [n for n, _ in seen] == [11, 16, 21]
    assert [a.progress for _, a in seen] == pytest.approx([0.1, 0.19, 0.271])
    assert (seen[0][1].weight_source, seen[0][1].weight_target) == pytest.approx((0.93, 0.07))
    assert seen[0][1].value == 0.5
    assert "plateau" in seen[0][1].reason
    with pytest.raises((AttributeError, TypeError)):
        seen[0][1].progress = 0.0


@pytest.mark.parametrize(
    ("factor", "plain", "smoothed"), [(0.998, [], []), (0.9995, [], [11]), (0.9999, [11, 16, 21], [11, 16, 21])]
)
def test_slow_improvement(factor: float, plain: list[int], smoothed: list[int]) -> None:
    """What gains less than min_delta over the whole patience is a plateau; a smoothed value lags at its beginning."""
    curve = [factor**n for n in range(23)]
    assert (feed(build(use_ema=False), curve), feed(build(), curve)) == (plain, smoothed)


def test_a_spike() -> None:
    curve = [0.99**n for n in range(40)]
    small, large = ([*curve[:19], curve[19] * by, *curve[20:]] for by in (1.05, 100))
    assert feed(build(), small) == []
    assert feed(build(use_ema=False), small) == feed(build(use_ema=False), large) == []
    assert feed(build(), large)[0] == 24, "a smoothed value stays above its best for long"


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_value_that_is_not_finite(bad: float, better: Any) -> None:
    scheduler = quick(better=better, patience=3, use_ema=True, ema_beta=0.5)
    assert feed(scheduler, [1.0, bad, bad]) == []
    assert scheduler.monitored == 1.0
    assert feed(scheduler, [bad]) == [1], "it is no improvement"
    assert scheduler.monitored == 1.0
    assert feed(scheduler, [0.5 if better == "lower" else 1.5, 1.0, 1.0]) == [], "it is never the best"


def test_the_threshold_itself_is_no_improvement() -> None:
    assert feed(quick(patience=2, min_delta=0.25, threshold_mode="abs"), [1.0, 0.75, 0.75]) == [3]
    assert feed(quick(patience=2, min_delta=0.25), [4.0, 3.0, 3.0]) == [3]
    assert feed(quick(patience=2, min_delta=0.25), [4.0, 3.0, 2.99]) == []
    assert feed(quick(patience=2, min_delta=0.0), [1.0, 1.0, 1.0]) == [3]
    assert feed(quick(patience=2, min_delta=0.25), [-4.0, -5.0, -5.0]) == [3]


@pytest.mark.parametrize("trigger", ["plateau", "increase"])
@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_relative_decisions_do_not_know_the_scale(trigger: str, factor: float) -> None:
    noise = random.Random(3)
    curve = [0.2 + math.exp(-n / 5) + 0.05 * noise.random() for n in range(120)]
    plain = feed(build(adaptation_trigger=trigger), curve)
    assert plain
    assert feed(build(adaptation_trigger=trigger), [factor * value for value in curve]) == plain
    absolute = feed(build(threshold_mode="abs", min_delta=0.02), curve)
    assert feed(build(threshold_mode="abs", min_delta=0.02), [factor * value for value in curve]) != absolute


def test_direction_is_the_metrics_own() -> None:
    rising, falling = [20.0 + n for n in range(20)], [40.0 - n for n in range(20)]
    assert feed(build(monitor_metric="val/psnr"), rising, "val/psnr") == []
    assert feed(build(monitor_metric="val/psnr"), falling, "val/psnr")[0] == 11
    assert feed(build(better="lower", monitor_metric="val/psnr"), falling, "val/psnr") == []
    assert feed(build(), falling) == []
    assert feed(build(better="higher"), rising) == []
    with pytest.raises(ValueError, match="no_such_metric"):
        build(monitor_metric="val/no_such_metric")


def test_what_is_monitored() -> None:
    def sees(metrics: dict[str, float], **options: Any) -> float | None:
        scheduler = quick(**options)
        scheduler.step(metrics)
        return scheduler.monitored

    assert sees({"a": 1.0, "b": 2.0, "l1": 9.0}, target_loss=["a", "b"]) == 3.0
    assert sees({"ff": 1.0, "l1": 9.0}, monitor_metric="source_loss") == 9.0
    assert sees({"target_loss": 4.0}) == 4.0
    assert sees({"val_loss": 5.0}, monitor_metric="val_loss") == 5.0
    assert sees({"val/loss": 6.0}, monitor_metric="val_loss") == 6.0
    with pytest.raises(KeyError) as missing:
        sees({"val/loss": 6.0, "l1": 1.0})
    assert all(name in str(missing.value) for name in ("ff", "val/loss", "l1"))


def test_increase() -> None:
    values = [1.0, 1.05, 1.2, 1.1, 1.2, 1.2]
    assert feed(quick(adaptation_trigger="increase", min_delta=0.08), values) == [3, 5]
    assert feed(quick(adaptation_trigger="increase", min_delta=0.08, min_observations_before_adapt=3), values) == [5]
    assert feed(quick(adaptation_trigger="increase", min_delta=0.2, threshold_mode="abs"), [5.0, 5.1, 5.4]) == [3]
    assert feed(quick(better="higher", adaptation_trigger="increase", min_delta=0.08), [1.0, 1.2, 1.0]) == [3]
    assert feed(quick(adaptation_trigger="increase"), [1.0, math.nan, 1.0, 2.0]) == [4]


def test_iteration() -> None:
    points = {"adaptation_trigger": "iteration", "schedule": [[100, 0.2], [300, 0.6], [301, 1.0]]}
    found = feed_at(build(**points), [0, 50, 100, 200, 300, 301, 9000])
    assert found == pytest.approx([0, 0.1, 0.2, 0.4, 0.6, 1, 1])
    late = build(adaptation_trigger="iteration", schedule=[[100, 0.5], [200, 0.5]])
    assert feed_at(late, [50, 100, 150, 900]) == pytest.approx([0.25, 0.5, 0.5, 0.5])
    stepped = build(**points)
    assert stepped.step({}, 50) is None
    assert stepped.progress == pytest.approx(0.1)
    reached = stepped.step({}, 100)
    assert reached is not None
    assert reached.progress == pytest.approx(0.2)
    assert (stepped.weight_source, stepped.weight_target) == pytest.approx((0.86, 0.14))
    with pytest.raises(ValueError, match="iteration"):
        build(**points).step({})
    for name, curve in CURVES.items():
        curved = build(adaptation_trigger="iteration", schedule=[[20, 1.0]], transition_schedule=name)
        for iteration in range(21):
            curved.at(iteration)
            assert curved.weight_target == pytest.approx(0.7 * curve(iteration / 20), abs=1e-12)


@pytest.mark.parametrize("patience", [2, 3, 5])
def test_the_brake_fires_and_lets_go(patience: int) -> None:
    flat = quick(patience=patience, max_consecutive_adaptations=3, transition_step=0.05)
    at = feed(flat, [1.0] * 40 * patience)
    gaps = [b - a for a, b in pairwise(at)]
    long = [i for i, gap in enumerate(gaps) if gap != patience]
    assert long[:3] == [2, 5, 8], "three adaptations, then a pause, again and again"
    assert all(2 * patience <= gaps[i] <= 3 * patience + 1 for i in long)
    rising = quick(patience=patience, max_consecutive_adaptations=3, adaptation_trigger="increase")
    at = feed(rising, [1.1**n for n in range(30)])
    assert at[:3] == [2, 3, 4]
    assert at[3] - at[2] in (patience + 1, patience + 2), "the pause has `patience` observations"
    once_better = quick(patience=patience, max_consecutive_adaptations=3, transition_step=0.05)
    falls = [1.0 - 0.1 * (n // (2 * patience + 1)) for n in range(7 * patience)]
    at = feed(once_better, falls)
    assert len(at) > 4, "an improvement in between starts the count again"
    assert max(b - a for a, b in pairwise(at)) < 2 * patience


def test_step_lengths() -> None:
    expected = [0.1]
    while expected[-1] < 1 - 1e-9:
        expected.append(min(1.0, expected[-1] + max(0.05, 0.1 * (1 - expected[-1]))))
    for options, steps in (({}, expected), ({"adaptive_step": False, "transition_step": 0.3}, [0.3, 0.6, 0.9, 1.0])):
        scheduler = quick(patience=1, max_consecutive_adaptations=NEVER, **options)
        found = [scheduler.step({"ff": 1.0}) for _ in range(len(steps) + 4)]
        assert [a.progress for a in found if a] == pytest.approx(steps)
        assert (scheduler.progress, scheduler.weight_source, scheduler.weight_target) == pytest.approx((1, 0.3, 0.7))


ENDS = [  # initial and final of the source, final of the target, cap, and what is reached
    (1.0, 0.0, 1.0, 0.8, (0.2, 0.8)),
    (1.0, 0.0, 1.0, 1.0, (0.0, 1.0)),
    (1.0, 1.0, 0.6, 0.8, (0.625, 0.375)),
    (1.0, 0.1, 0.4, 0.5, (0.5, 0.5)),
    (2.0, 0.5, 0.5, 0.8, (1.2, 0.8)),
    (1.0, 0.4, 1.6, 0.8, (0.6, 0.4)),
]


@pytest.mark.parametrize(("initial", "source", "target", "cap", "reached"), ENDS)
def test_end_weights(initial: float, source: float, target: float, cap: float, reached: tuple[float, float]) -> None:
    weights = {"initial_weight_source": initial, "final_weight_source": source, "final_weight_target": target}
    scheduler = build(adaptation_trigger="iteration", schedule=[[10, 1.0]], max_weight_target=cap, **weights)
    targets = [(scheduler.at(iteration), scheduler.weight_target)[1] for iteration in range(11)]
    assert (scheduler.weight_source, scheduler.weight_target) == pytest.approx(reached)
    assert targets == sorted(targets), "it goes one way"


@pytest.mark.parametrize(("noise", "beta"), [(0.0, 0.0), (0.005, 0.9), (0.001, 0.98), (0.02, 0.0)])
def test_auto_patience_by_simulation(noise: float, beta: float) -> None:
    chosen: dict[str, Any] = {"patience": "auto", "ema_beta": beta, "min_delta": 0.005}
    moved = [bool(feed(build(**chosen), curve_with_noise(seed, 0.0051, noise, 100))) for seed in range(200)]
    assert sum(moved) < 10
    flat = [feed(build(**chosen), curve_with_noise(seed, 0.0, noise, 300)) for seed in range(20)]
    assert all(flat), "a plateau is found"
    assert min(at[0] for at in flat) >= 15, "not before ten used values after the warm-up"


def test_waiting_in_observations_and_iterations() -> None:
    flat = [1.0] * 40
    assert feed(build(min_observations_before_adapt=20), flat)[0] == 21
    assert feed(build(warmup_observations=12), flat)[0] == 18
    assert feed(build(warmup_observations=0, min_observations_before_adapt=0), flat)[0] == 6
    assert feed(build(min_iterations_before_adapt=14_000), flat)[0] == 15
    assert feed(build(warmup_iterations=9_000), flat)[0] == 15
    assert feed(build(warmup_iterations=9_000), flat, every=4000)[0] == 11, "both count"
    assert params(min_epochs_before_adapt=3, warmup_epochs=2).min_observations_before_adapt == 3
    assert params(min_epochs_before_adapt=3, warmup_epochs=2).warmup_observations == 2
    assert feed(quick(warmup_observations=1, patience=1), [0.01, 1.0, 0.5]) == [], "a value of the warm-up is no best"
    for name in ("min_iterations_before_adapt", "warmup_iterations"):
        with pytest.raises(ValueError, match="iteration"):
            build(**{name: 10}).step({"ff": 1.0})


def test_labels_and_components() -> None:
    several = quick(source_loss=["a", "b"], target_loss=["c", "d"], static_components={"gan": 0.25}, patience=1)
    assert several.get_loss_weights() == {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0, "gan": 0.25}
    assert feed(quick(patience=1), [1.0, 1.0]) == [2]
    several.step({"c": 1.0, "d": 1.0})
    several.step({"c": 1.0, "d": 1.0})
    assert several.get_loss_weights() == pytest.approx({"a": 0.93, "b": 0.93, "c": 0.07, "d": 0.07, "gan": 0.25})
    finer = quick(source_components={"l1": True, "old": False}, target_components={"ff/low": True, "ff/high": False})
    weights = finer.get_loss_weights()
    assert (weights["l1"], weights["ff/low"]) == (1.0, 0.0)
    assert weights.get("old", 1.0) == weights.get("ff/high", 1.0) == 1.0, "what is false is not moved"


def test_off() -> None:
    scheduler = quick(enabled=False, patience=1, static_components={"gan": 0.25}, initial_weight_source=0.7)
    assert feed(scheduler, [1.0] * 10) == []
    assert not scheduler.enabled
    assert scheduler.get_loss_weights() == {"l1": 1.0, "ff": 1.0, "gan": 0.25}


ITERATION = {"adaptation_trigger": "iteration"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"source_loss": None}, {"target_loss": []}, {"no_such_key": 1}, {"patience": 0}, {"patience": "five"},
        {"patience": 2.5}, {"min_delta": -0.1}, {"min_delta": math.nan}, {"threshold_mode": "relative"},
        {"transition_step": 0.0}, {"transition_step": 1.5}, {"ema_beta": 1.0}, {"ema_beta": -0.1},
        {"initial_weight_source": -1.0}, {"final_weight_target": -0.5}, {"final_weight_source": math.inf},
        {"initial_weight_target": 0.9}, {"max_weight_target": -1.0}, {"enabled": "yes"}, {"use_ema": "no"},
        {"initial_weight_source": 0.0}, {"final_weight_source": 0.0, "final_weight_target": 0.0},
        {"adaptation_trigger": "epoch"}, {"transition_schedule": "cubic"}, {"max_consecutive_adaptations": 0},
        {"min_observations_before_adapt": -1}, {"warmup_observations": -1}, ITERATION,
        {**ITERATION, "schedule": []}, {**ITERATION, "schedule": [[20, 0.1], [10, 0.2]]},
        {**ITERATION, "schedule": [[10, 0.1], [10, 0.2]]}, {**ITERATION, "schedule": [[10, 0.5], [20, 0.4]]},
        {**ITERATION, "schedule": [[10, 1.5]]}, {**ITERATION, "schedule": [[10, -0.5]]},
        {"static_components": {"gan": -1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        params(**wrong)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", *sys.argv[1:]]))
