"""The loss scheduler's decisions, without a network: bounds, traces, resumes, and what it refuses.

Run by pytest, or as a script: python tests/test_flexible_loss_scheduler.py
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traiNNer.losses.flexible_loss_scheduler import Adaptation, FlexibleLossScheduler, SchedulerParams

LABELS = {"source_loss": "l1", "target_loss": "spectrum"}
AT_ONCE = {"min_observations_before_adapt": 0, "warmup_observations": 0, "use_ema": False}


def scheduler(better: Any = None, **options: Any) -> FlexibleLossScheduler:
    return FlexibleLossScheduler(SchedulerParams(**LABELS | options), better)


def watch(
    each: FlexibleLossScheduler, values: Iterable[float], name: str = "spectrum", start: int = 1
) -> dict[int, Adaptation]:
    """The adaptations by the number of the observation."""
    steps = ((number, each.step({name: value}, 100 * number)) for number, value in enumerate(values, start))
    return {number: adaptation for number, adaptation in steps if adaptation is not None}


weight = st.floats(0.0, 3.0)
params = st.fixed_dictionaries(
    {
        "initial_weight_source": st.floats(0.01, 3.0),
        "initial_weight_target": weight,
        "final_weight_source": weight,
        "final_weight_target": st.floats(0.01, 3.0),
        "max_weight_target": st.floats(0.01, 4.0),
        "transition_schedule": st.sampled_from(["linear", "cosine", "exponential"]),
        "transition_step": st.floats(0.01, 1.0),
        "adaptive_step": st.booleans(),
        "adaptation_trigger": st.sampled_from(["plateau", "increase"]),
        "patience": st.one_of(st.integers(1, 4), st.just("auto")),
        "max_consecutive_adaptations": st.integers(1, 5),
        "use_ema": st.booleans(),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "min_observations_before_adapt": st.integers(0, 4),
        "warmup_observations": st.integers(0, 4),
    }
).filter(lambda values: values["initial_weight_target"] <= values["max_weight_target"])
values = st.lists(
    st.one_of(st.floats(-10, 10), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0])), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(options=params, seen=values)
def test_weights_stay_in_their_bounds(options: dict[str, Any], seen: list[float]) -> None:
    each = scheduler(**options)
    total = options["initial_weight_source"] + options["initial_weight_target"]
    end = each.params.multipliers(1.0)
    assert each.params.multipliers(0.0) == pytest.approx(
        (options["initial_weight_source"], options["initial_weight_target"])
    )
    before = (each.progress, each.weight_source, each.weight_target)
    for value in seen:
        each.step({"spectrum": value})
        now = (each.progress, each.weight_source, each.weight_target)
        assert before[0] <= now[0] <= 1
        assert now[1] + now[2] == pytest.approx(total)
        assert 0 <= now[2] <= options["max_weight_target"]
        assert now[1] >= 0
        distances = [abs(state[2] - end[1]) for state in (before, now)]  # towards the final weights, never away
        assert distances[1] <= distances[0] + 1e-12
        before = now


@settings(max_examples=60, deadline=None)
@given(options=params, seen=values, cut=st.integers(0, 59))
def test_a_resume_at_any_point_decides_alike(options: dict[str, Any], seen: list[float], cut: int) -> None:
    straight, first, second = (scheduler(**options) for _ in range(3))
    cut = min(cut, len(seen))
    expected = watch(straight, seen)
    decisions = watch(first, seen[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    decisions |= watch(second, seen[cut:], start=cut + 1)
    assert decisions == expected
    assert second.get_loss_weights() == straight.get_loss_weights()


def test_the_state_does_not_grow() -> None:
    each = scheduler(patience="auto")
    rng = np.random.default_rng(0)
    sizes: list[int] = []
    for count in (1_000, 10_000):
        watch(each, (1 + 0.1 * rng.random(count)).tolist())
        sizes.append(len(each.state_dict()["recent"]))
    assert sizes == [50, 50]


def test_a_plateau_with_the_defaults() -> None:
    """5 observations of warm-up, the first best, 5 without improvement; 10 must have passed."""
    found = watch(scheduler(), [1.0] * 30)
    assert list(found) == [11, 16, 21, 26]
    assert found[11] == Adaptation(
        progress=0.1,
        weight_source=pytest.approx(0.93),
        weight_target=pytest.approx(0.07),
        reason="plateau in target_loss (1 for 5 observations)",
        value=1.0,
    )
    assert [step.progress for step in found.values()] == pytest.approx([0.1, 0.19, 0.271, 0.3439])


def test_the_whole_move() -> None:
    each = scheduler(max_consecutive_adaptations=99)
    found = watch(each, [1.0] * 120)
    assert len(found) == each.params.adaptations
    progress = [step.progress for step in found.values()]
    steps = np.diff([0.0, *progress])
    assert steps[:-1] == pytest.approx(np.maximum(0.05, 0.1 * (1 - np.array([0.0, *progress[:-2]]))))
    assert (each.progress, each.get_loss_weights()) == (1.0, {"l1": pytest.approx(0.3), "spectrum": pytest.approx(0.7)})


def test_steps_of_one_size() -> None:
    found = watch(scheduler(**AT_ONCE, adaptive_step=False, transition_step=0.25, patience=1), [1.0] * 9)
    assert [step.progress for step in found.values()] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_improvement_is_relative(factor: float) -> None:
    """One by 0.2 % an observation goes on; by 0.05 % it is an improvement every third time only."""
    fast = [factor * 0.998**number for number in range(60)]
    slow = [factor * 0.9995**number for number in range(60)]
    assert watch(scheduler(**AT_ONCE), fast) == {}
    assert watch(scheduler(**AT_ONCE), slow) == {}
    decided = list(watch(scheduler(**AT_ONCE, patience=2), slow))
    assert decided[:10] == list(range(3, 22, 2))  # then it pauses
    assert decided == list(watch(scheduler(**AT_ONCE, patience=2), [value / factor for value in slow]))
    absolute = watch(scheduler(**AT_ONCE, threshold_mode="abs", min_delta=0.004), fast)
    assert bool(absolute) == (factor < 1)


def test_equality_and_exactly_the_threshold_are_no_improvement() -> None:
    options = AT_ONCE | {"patience": 1, "min_delta": 0.25, "threshold_mode": "abs"}
    assert list(watch(scheduler(**options), [1.0, 0.75, 0.5])) == [2, 3]
    assert watch(scheduler(**options), [1.0, 0.7499, 0.4998]) == {}


def test_one_spike_moves_nothing() -> None:
    falling = [0.99**number for number in range(40)]
    for place in (12, 20, 31):
        spiked = [*falling[:place], 3.0, *falling[place:]]
        assert watch(scheduler(use_ema=False), spiked) == {}
    # smoothed, its tail is longer than the default's patience can know; it is named in the documentation
    assert list(watch(scheduler(), [*falling[:20], 1.2, *falling[20:]])) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_no_improvement_and_never_the_best(bad: float) -> None:
    each = scheduler(**AT_ONCE, patience=3)
    found = watch(each, [1.0, bad, bad, bad, 0.9, 0.8])
    assert list(found) == [4]
    assert found[4].value == 1.0
    assert each.monitored == 0.8
    first = scheduler(**AT_ONCE, patience=2)
    assert list(watch(first, [bad, 1.0, 0.9, bad, bad])) == [5]


def test_higher_is_better_where_the_metric_says_so() -> None:
    rising = [20 + number / 5 for number in range(30)]
    assert watch(scheduler(monitor_metric="val/psnr"), rising, "val/psnr") == {}
    assert watch(scheduler(monitor_metric="psnr"), rising, "val/psnr") == {}
    assert watch(scheduler(monitor_metric="val/psnr"), rising[::-1], "val/psnr")
    assert watch(scheduler("higher", monitor_metric="own"), rising, "own") == {}
    with pytest.raises(ValueError, match="own: it is not known whether lower or higher is better"):
        scheduler(monitor_metric="own")


def test_increase_adapts_at_once() -> None:
    each = scheduler(**AT_ONCE, adaptation_trigger="increase", min_delta=0.01)
    assert list(watch(each, [1.0, 0.9, 0.905, 0.92, 0.5, 0.6])) == [4, 6]
    smoothed = scheduler(**AT_ONCE | {"use_ema": True}, adaptation_trigger="increase", min_delta=0.01)
    assert list(watch(smoothed, [1.0, 1.05, 1.2])) == [3]  # 1, 1.005, 1.0245
    assert list(watch(scheduler(**AT_ONCE, adaptation_trigger="increase", min_delta=0.5), [1.0, 1.4, 2.2])) == [3]


def test_the_brake_fires_and_lets_go() -> None:
    """Three adaptations, the next plateau starts a pause of `patience`, and it goes on."""
    found = watch(scheduler(**AT_ONCE, patience=2, max_consecutive_adaptations=3), [1.0] * 24)
    assert list(found) == [3, 5, 7, 12, 14, 16, 21, 23]
    helped = [1.0, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert list(watch(scheduler(**AT_ONCE, patience=2, max_consecutive_adaptations=3), helped)) == [3, 5, 8, 10, 12]


@pytest.mark.parametrize("cut", range(6, 16))
def test_a_resume_in_a_pause_waits_for_its_end(cut: int) -> None:
    options = AT_ONCE | {"patience": 3, "max_consecutive_adaptations": 1}
    straight, first, second = (scheduler(**options) for _ in range(3))
    expected = watch(straight, [1.0] * 24)
    decisions = watch(first, [1.0] * cut)
    second.load_state_dict(first.state_dict())
    assert decisions | watch(second, [1.0] * (24 - cut), start=cut + 1) == expected


def test_iterations_move_it_alone() -> None:
    each = scheduler(adaptation_trigger="iteration", schedule=[["2k", 0.5], [4000, 1.0]])
    seen = {at: (each.at(at), each.progress) for at in (1, 500, 2000, 3000, 4000, 9000)}
    assert [progress for _, progress in seen.values()] == pytest.approx([0.00025, 0.125, 0.5, 0.75, 1, 1])
    assert [at for at, (adaptation, _) in seen.items() if adaptation is not None] == [2000, 4000]
    later = scheduler(adaptation_trigger="iteration", schedule=[[0, 0.2], [10, 0.2], [20, 1.0]])
    assert later.progress == 0.2
    assert later.step({}, 5) is None
    assert later.progress == pytest.approx(0.2)
    with pytest.raises(ValueError, match="step needs the iteration"):
        later.step({})
    coarse = scheduler(adaptation_trigger="iteration", schedule=[[1000, 0.2], [2500, 1.0]])
    assert [coarse.step({}, at) is not None for at in (900, 1800, 2700, 3600)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", lambda q: q),
        ("cosine", lambda q: (1 - math.cos(math.pi * q)) / 2),
        ("exponential", lambda q: (math.exp(3 * q) - 1) / (math.exp(3) - 1)),
    ],
)
def test_curves(curve: str, expected: Any) -> None:
    each = SchedulerParams(**LABELS, transition_schedule=curve)
    for q in np.linspace(0, 1, 11):
        s = expected(q)
        assert each.multipliers(q) == pytest.approx((1 - 0.7 * s, 0.7 * s), abs=1e-12)
    assert each.multipliers(1.0) == (0.3, 0.7)


def test_cap_and_sum() -> None:
    capped = SchedulerParams(**LABELS, final_weight_source=0.1, final_weight_target=0.9)
    assert capped.multipliers(0.5) == pytest.approx((0.55, 0.45))
    assert capped.multipliers(1.0) == pytest.approx((0.2, 0.8))
    larger = SchedulerParams(**LABELS, final_weight_source=1.0, final_weight_target=1.0, max_weight_target=1.0)
    assert larger.multipliers(1.0) == pytest.approx((0.5, 0.5))
    path = SchedulerParams(**LABELS, final_weight_source=10.0, final_weight_target=1.0)  # 0.8 of a sum that grows
    targets = [path.multipliers(q)[1] for q in np.linspace(0, 1, 21)]
    assert targets == sorted(targets)
    assert targets[-1] == pytest.approx(0.8 / 11)
    falling = SchedulerParams(
        **LABELS,
        initial_weight_source=0.5,
        initial_weight_target=2.0,
        final_weight_source=1.0,
        final_weight_target=5.0,
        max_weight_target=3.0,
    )
    targets = [falling.multipliers(q)[1] for q in np.linspace(0, 1, 201)]
    assert targets == sorted(targets, reverse=True)
    assert max(before - after for before, after in pairwise(targets)) < 0.05  # no jump
    scaled = SchedulerParams(**LABELS, final_weight_source=0.05, final_weight_target=0.45)
    assert scaled.multipliers(1.0) == pytest.approx((0.2, 0.8))  # 0.1 and 0.9, were it not for the cap


def test_minimum_and_warm_up_in_iterations() -> None:
    options = AT_ONCE | {"patience": 1}  # an observation is 100 iterations
    assert next(iter(watch(scheduler(**options, min_iterations_before_adapt=700), [1.0] * 12))) == 8
    assert next(iter(watch(scheduler(**options, warmup_iterations="0.6k"), [1.0] * 12))) == 8
    with pytest.raises(ValueError, match="step needs the iteration"):
        scheduler(warmup_iterations=5).step({"spectrum": 1.0})


def test_the_documents_names_are_read_as_observations() -> None:
    old = SchedulerParams.model_validate(LABELS | {"min_epochs_before_adapt": 3, "warmup_epochs": 2})
    assert (old.min_observations_before_adapt, old.warmup_observations) == (3, 2)


def test_labels_and_components() -> None:
    each = FlexibleLossScheduler(
        SchedulerParams(
            source_loss=["l1", "mse"],
            target_loss="perceptual",
            target_components={"perceptual/style": True, "perceptual": False},
            static_components={"tv": 0.5},
            initial_weight_target=0.25,
        )
    )
    assert each.get_loss_weights() == {"l1": 1.0, "mse": 1.0, "perceptual/style": 0.25, "tv": 0.5}
    watched = FlexibleLossScheduler(
        SchedulerParams(source_loss=["l1", "mse"], target_loss="x", monitor_metric="source_loss", **AT_ONCE)
    )
    watched.step({"l1": 1.0, "mse": 0.5})
    assert watched.monitored == 1.5
    with pytest.raises(KeyError, match="mse is not among the figures of this validation: l1"):
        watched.step({"l1": 1.0})


def test_a_component_that_is_left_out_keeps_its_weight() -> None:
    each = FlexibleLossScheduler(
        SchedulerParams(source_loss="l1", target_loss="p", target_components={"p": True, "p/style": False})
    )
    assert each.get_loss_weights() == {"l1": 1.0, "p": 0.0, "p/style": 1.0}


def test_a_state_of_other_losses_is_refused() -> None:
    with pytest.raises(ValueError, match="it moves l1 -> spectrum, not l1 -> other"):
        scheduler(target_loss="other").load_state_dict(scheduler().state_dict())


def test_numbers_of_other_types_are_taken() -> None:
    each = scheduler(**AT_ONCE)
    each.step({"spectrum": np.float32(0.5)})  # type: ignore[dict-item]
    assert json.loads(json.dumps(each.state_dict()))["best"] == 0.5


def test_off_it_multiplies_by_one() -> None:
    each = scheduler(enabled=False, static_components={"tv": 0.5})
    assert watch(each, [1.0] * 50) == {}
    assert each.get_loss_weights() == {"l1": 1.0, "spectrum": 1.0, "tv": 0.5}


@pytest.mark.parametrize(("noise", "smooth"), [(0.002, True), (0.01, True), (0.03, True), (0.01, False)])
def test_auto_patience_knows_the_noise(noise: float, smooth: bool) -> None:
    """A curve that improves by min_delta an observation moves by chance in under 1 of 20 runs; a flat one moves."""
    moved = dict.fromkeys((0.001, 0.0), 0)
    for drift in moved:
        for seed in range(60):
            rng = np.random.default_rng(seed)
            length = 100 if drift else 300
            curve = (1 - drift) ** np.arange(length) * np.exp(noise * rng.standard_normal(length))
            moved[drift] += bool(watch(scheduler(patience="auto", use_ema=smooth), curve.tolist()))
    assert moved[0.001] <= 3
    assert moved[0.0] >= 57


@pytest.mark.parametrize(("beta", "noise"), [(0.97, 0.02), (0.99, 0.005)])
def test_auto_patience_knows_that_a_slow_average_lags(beta: float, noise: float) -> None:
    moved = 0
    for seed in range(40):
        curve = 0.999 ** np.arange(100) * np.exp(noise * np.random.default_rng(seed).standard_normal(100))
        moved += bool(watch(scheduler(patience="auto", ema_beta=beta), curve.tolist()))
    assert moved <= 2


def test_another_monitor_after_a_resume_starts_from_its_own_best() -> None:
    each = scheduler(**AT_ONCE, patience=2)
    watch(each, [1.0] * 4)
    other = scheduler(**AT_ONCE, patience=2, monitor_metric="source_loss")
    other.load_state_dict(each.state_dict())
    assert (other.progress, other.monitored) == (each.progress, None)
    assert list(watch(other, [50.0, 50.0, 50.0], "l1")) == [3]


REFUSED = [
    {"patience": 0},
    {"patience": "often"},
    {"min_delta": -1.0},
    {"min_delta": 0.0, "patience": "auto"},
    {"min_delta": 1.0},
    {"transition_step": 0.0},
    {"transition_step": 1e-9},
    {"source_components": {}},
    {"target_components": {"spectrum": False}},
    {"transition_step": 1.5},
    {"ema_beta": 1.0},
    {"initial_weight_source": -1.0},
    {"initial_weight_source": 0.0},
    {"final_weight_source": 0.0, "final_weight_target": 0.0},
    {"initial_weight_target": 0.9},
    {"final_weight_target": math.nan},
    {"max_weight_target": 0.0},
    {"adaptation_trigger": "epoch"},
    {"adaptation_trigger": "iteration"},
    {"adaptation_trigger": "iteration", "schedule": []},
    {"schedule": [[2, 0.5], [1, 1.0]]},
    {"schedule": [[1, 0.5], [2, 0.4]]},
    {"schedule": [[1, 1.5]]},
    {"source_loss": []},
    {"source_loss": ["l1", "l1"]},
    {"target_loss": "l1"},
    {"monitor": "target_loss"},
    {"enabled": "yes"},
    {"transition_schedule": "sigmoid"},
    {"max_consecutive_adaptations": 0},
    {"warmup_observations": -1},
]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SchedulerParams.model_validate(LABELS | options)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q", *sys.argv[1:]]))
