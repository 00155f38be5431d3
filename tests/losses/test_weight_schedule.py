"""Loss weights against the definition, worked out anew here in fractions; and what is refused instead of scheduled."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from traiNNer.losses import build_loss
from traiNNer.losses.iterative_loss_wrapper import WeightSchedule
from traiNNer.utils.errors import ConfigError

RAMPS = ("linear", "cosine", "step", "smoothstep", "polynomial", "exponential", "cyclical")
Entry = dict[str, Any]


def schedule_of(entry: Entry, total_iter: int | None = None) -> WeightSchedule:
    return build_loss({"type": "l1loss", **entry}, total_iter=total_iter).schedule


def acts(entry: Entry, iteration: int) -> bool:
    return entry.get("start_iter", 0) <= iteration <= entry.get("disable_after", math.inf)


def ends_of(entry: Entry) -> tuple[float, float]:
    return entry["loss_weight"], entry.get("target_weight", entry["loss_weight"])


def part_of_the_way(entry: Entry, p: Fraction) -> Fraction | float:
    """How far the weight is on its way from w0 to w1, p < 1."""
    match entry.get("schedule_type", "linear"):
        case "step":
            return 0
        case "cosine":
            return math.sin(math.pi * float(p) / 2) ** 2
        case "smoothstep":
            return p * p * (3 - 2 * p)
        case "polynomial":
            return float(p) ** entry.get("power", 2)
        case "cyclical":
            in_cycle = p * entry.get("cycles", 4) - math.floor(p * entry.get("cycles", 4))
            return min(Fraction(1), in_cycle / Fraction(entry.get("ratio", 0.5)))
    return p


def reference(entry: Entry, iteration: int) -> Fraction | float:
    """The weight by the definition: where it is one of the two weights it is that one, not a rounded neighbour."""
    if not acts(entry, iteration):
        return 0.0
    if "knots" in entry:
        return between_knots(entry["knots"], iteration)
    (first, last), start = ends_of(entry), entry.get("start_iter", 0)
    target = entry.get("target_iter", start)
    if iteration >= target:
        return last
    p = Fraction(iteration - start, target - start)
    if entry.get("schedule_type") == "exponential":
        return Fraction(math.exp((1 - float(p)) * math.log(first) + float(p) * math.log(last)))
    part = part_of_the_way(entry, p)
    if part in (0, 1):
        return last if part else first
    return Fraction(first) + (Fraction(last) - Fraction(first)) * Fraction(part)


def between_knots(knots: list[list[Any]], iteration: int) -> Fraction | float:
    for index, (right, high) in enumerate(knots):
        if iteration <= right:
            left, low = knots[max(0, index - 1)]
            if iteration == right or index == 0:
                return high
            return Fraction(low) + (Fraction(high) - Fraction(low)) * Fraction(iteration - left, right - left)
    return knots[-1][1]


def expect_weight(weight: float, expected: Fraction | float, size: float) -> None:
    """Equal where the definition gives one of the two weights, else within a few roundings of numbers of this size."""
    assert type(weight) is float
    if isinstance(expected, Fraction):
        assert abs(Fraction(weight) - expected) <= Fraction(1e-14) * Fraction(size)
    else:
        assert weight == expected


MAGNITUDES = st.one_of(st.sampled_from([0.1, 0.3, 0.7, 1.0, 1 / 3]), st.floats(1e-6, 1e6))
SPANS = st.one_of(st.integers(0, 3), st.integers(0, 60), st.integers(0, 10**6))


@st.composite
def ramps(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(RAMPS))
    weights = MAGNITUDES if kind == "exponential" else st.one_of(st.just(0.0), MAGNITUDES)
    sign = 1 if kind == "exponential" else draw(st.sampled_from([1, -1]))
    start, span = draw(SPANS), draw(SPANS)
    entry: Entry = {"loss_weight": sign * draw(weights), "schedule_type": kind, "start_iter": start}
    entry |= {"target_iter": start + span, "target_weight": sign * draw(weights)}
    if kind == "polynomial" and draw(st.integers(0, 3)):
        entry["power"] = draw(st.floats(0.1, 8))
    if kind == "cyclical" and draw(st.integers(0, 3)):
        entry |= {"cycles": draw(st.integers(1, 60)), "ratio": draw(st.floats(0.05, 1))}
    if draw(st.booleans()):
        entry["disable_after"] = start + draw(st.integers(0, 2 * span + 2))
    for name in draw(st.sets(st.sampled_from(["target_weight", "target_iter", "start_iter"]), max_size=1)):
        if name != "start_iter" or start == 0:
            del entry[name]
    return entry


@st.composite
def knotted(draw: st.DrawFn) -> Entry:
    sign, start = draw(st.sampled_from([1, -1])), draw(st.one_of(st.just(0), SPANS))
    weights = st.one_of(st.just(0.0), MAGNITUDES).map(lambda weight: sign * weight)
    at = sorted(draw(st.sets(st.integers(0, start + 10 ** draw(st.integers(1, 6))), min_size=1, max_size=5)))
    entry: Entry = {"loss_weight": draw(weights), "start_iter": start, "knots": [[i, draw(weights)] for i in at]}
    if draw(st.booleans()):
        entry["disable_after"] = start + draw(SPANS)
    return entry


def corners(entry: Entry) -> list[int]:
    """The iterations at which something begins or ends, and their neighbours."""
    at = [entry.get(name, 0) for name in ("start_iter", "target_iter", "disable_after")]
    at += [iteration for iteration, _ in entry.get("knots", ())]
    return sorted({iteration + step for iteration in at for step in (-1, 0, 1) if iteration + step >= 0})


@st.composite
def cases(draw: st.DrawFn) -> tuple[Entry, list[int]]:
    """A schedule with its corners and iterations between and after them."""
    entry = draw(st.one_of(ramps(), knotted()))
    at = corners(entry)
    inside = st.integers(entry.get("start_iter", 0), max(at))
    return entry, [*at, *draw(st.lists(inside, max_size=8)), *draw(st.lists(st.integers(0, 2 * max(at)), max_size=2))]


CYCLES = {"loss_weight": 0.1, "target_weight": 0.3, "schedule_type": "cyclical"}


@given(case=cases())
@settings(max_examples=300)
@example(case=({**CYCLES, "target_iter": 49, "cycles": 49}, list(range(50))))
@example(case=({**CYCLES, "target_iter": 100, "loss_weight": 0.7}, list(range(102))))
def test_weights_follow_their_definition(case: tuple[Entry, list[int]]) -> None:
    entry, iterations = case
    schedule = schedule_of(entry)
    size = max(map(abs, [*ends_of(entry), *(weight for _, weight in entry.get("knots", ()))]))
    for iteration in iterations:
        expect_weight(schedule.value(iteration), reference(entry, iteration), size)


@given(case=cases())
def test_many_weights_at_once_are_exactly_the_single_ones(case: tuple[Entry, list[int]]) -> None:
    entry, iterations = case
    schedule = schedule_of(entry)
    weights = schedule.values(iterations)
    assert weights.dtype == np.float64
    assert weights.tolist() == [schedule.value(iteration) for iteration in iterations]
    assert schedule.values(np.array(iterations)).tolist() == weights.tolist()


@given(entry=ramps())
def test_the_final_weight_is_itself_from_the_target_on(entry: Entry) -> None:
    schedule, last = schedule_of(entry), ends_of(entry)[1]
    target = entry.get("target_iter", entry.get("start_iter", 0))
    for iteration in (target, target + 1, target + 1000):
        assert schedule.value(iteration) == (last if acts(entry, iteration) else 0)


@given(case=cases())
def test_outside_of_its_time_a_weight_is_zero(case: tuple[Entry, list[int]]) -> None:
    entry, iterations = case
    schedule, start, end = schedule_of(entry), entry.get("start_iter", 0), entry.get("disable_after")
    outside = [iteration for iteration in (0, start - 1, *iterations) if not acts(entry, iteration)]
    outside += [] if end is None else [end + 1, 2 * end + 1]
    assert not schedule.values(outside).any()
    assert [schedule.ended(iteration) for iteration in outside] == [iteration >= start for iteration in outside]


@given(case=cases())
def test_a_ramp_stays_between_its_two_weights(case: tuple[Entry, list[int]]) -> None:
    entry, iterations = case
    schedule, weights = schedule_of(entry), [weight for _, weight in entry.get("knots", ())] or ends_of(entry)
    for iteration in filter(lambda each: acts(entry, each), iterations):
        assert min(weights) <= schedule.value(iteration) <= max(weights)


WIDE = st.one_of(st.floats(1e-300, 1e300), st.sampled_from([1e-300, 1e-10, 0.1, 1e10, 1e300]))


@given(first=WIDE, last=WIDE, kind=st.sampled_from(RAMPS), power=st.sampled_from([1e-17, 1e-10, 0.5, 50.0]))
@example(first=1e-300, last=1e300, kind="exponential", power=2.0)
@example(first=1e300, last=1e-300, kind="exponential", power=2.0)
def test_that_holds_for_weights_of_any_size(first: float, last: float, kind: str, power: float) -> None:
    span = 10**9
    entry = {"loss_weight": first, "target_weight": last, "target_iter": span, "schedule_type": kind, "power": power}
    schedule = schedule_of(entry)
    for iteration in (0, 1, span // 3, span // 2, span - 2, span - 1, span):
        assert min(first, last) <= schedule.value(iteration) <= max(first, last)


@pytest.mark.parametrize("kind", RAMPS)
def test_a_target_at_the_start_is_a_jump(kind: str) -> None:
    entry = {"loss_weight": 0.1, "target_weight": 0.3, "start_iter": 7, "schedule_type": kind}
    for more in ({}, {"target_iter": 7}):
        assert schedule_of({**entry, **more}).values(range(5, 10)).tolist() == [0, 0, 0.3, 0.3, 0.3]


def test_without_a_target_weight_it_is_the_base_weight() -> None:
    schedule = schedule_of({"loss_weight": 0.3, "start_iter": 2, "target_iter": 9, "disable_after": 20})
    assert schedule.values(range(1, 22)).tolist() == [0, *[0.3] * 19, 0]


def test_the_documented_values_of_each_type() -> None:
    """A quarter of the way, by hand."""
    quarter = {
        "linear": 2 + 8 / 4,
        "cosine": 2 + 8 * (2 - math.sqrt(2)) / 4,
        "step": 2,
        "smoothstep": 2 + 8 * (3 / 16 - 2 / 64),
        "polynomial": 2 + 8 / 16,
        "exponential": 2 * 5**0.25,
        "cyclical": 2,
    }
    entry = {"loss_weight": 2, "target_weight": 10, "start_iter": 100, "target_iter": 500}
    found = {kind: schedule_of({**entry, "schedule_type": kind}).value(200) for kind in RAMPS}
    assert found == pytest.approx(quarter, rel=1e-15)


ITERATION_KEYS = ("start_iter", "target_iter", "disable_after", "discriminator_start_iter")


@given(key=st.sampled_from(ITERATION_KEYS), thousands=st.integers(0, 2000), k=st.sampled_from("kK"))
def test_thousands(key: str, thousands: int, k: str) -> None:
    found = schedule_of({"loss_weight": 1.0, key: f"{thousands}{k}"})
    assert found == schedule_of({"loss_weight": 1.0, key: 1000 * thousands})


@given(key=st.sampled_from(ITERATION_KEYS), percent=st.integers(0, 100), hundredth=st.integers(1, 10**5))
def test_percentages_of_the_run(key: str, percent: int, hundredth: int) -> None:
    found = schedule_of({"loss_weight": 1.0, key: f"{percent}%"}, total_iter=100 * hundredth)
    assert found == schedule_of({"loss_weight": 1.0, key: percent * hundredth})


@given(percent=st.decimals(0, 100, places=3), total_iter=st.integers(1, 10**6))
def test_percentages_mean_the_nearest_iteration(percent: Any, total_iter: int) -> None:
    start = schedule_of({"loss_weight": 1.0, "start_iter": f"{percent}%"}, total_iter=total_iter).start_iter
    assert abs(start - total_iter * Fraction(str(percent)) / 100) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_knots_are_spelled_as_other_iterations_are() -> None:
    spelled = schedule_of({"loss_weight": 1, "knots": [["1k", 1], ["30%", 2], [4000, 3]]}, total_iter=10_000)
    assert spelled.values([1, 1000, 2000, 3000, 3500, 4000, 9999]).tolist() == [1, 1, 1.5, 2, 2.5, 3, 3]


def test_a_percentage_needs_the_length_of_the_run() -> None:
    with pytest.raises(ConfigError, match=r"start_iter: found '30%'; accepted: .*total_iter"):
        schedule_of({"loss_weight": 1.0, "start_iter": "30%"})


def phases(entry: Entry, length: int) -> dict[int, str | None]:
    schedule = schedule_of({"loss_weight": 1.0, **entry})
    found = {at: schedule.phase_at(at) for at in range(1, length)}
    return {at: phase for at, phase in found.items() if phase}


def test_each_phase_begins_once() -> None:
    target = {"start_iter": 3, "target_iter": 6, "target_weight": 2.0}
    started, reached = {3: "started"}, {6: "reached its target"}
    assert phases({**target, "disable_after": 9}, 20) == {**started, **reached, 10: "disabled"}
    assert phases({**target, "disable_after": 6}, 20) == {**started, **reached, 7: "disabled"}
    assert phases({**target, "target_iter": 3}, 20) == started
    assert phases({"start_iter": 3, "knots": [[1, 1.0], [6, 2.0]]}, 20) == {**started, **reached}
    assert phases({"disable_after": 1}, 20) == {2: "disabled"}
    assert phases({}, 20) == {}


def test_a_loss_that_is_disabled_reaches_nothing_any_more() -> None:
    assert phases({"target_iter": 6, "target_weight": 2.0, "disable_after": 3}, 20) == {4: "disabled"}


SMALL = st.integers(0, 12)
FEW_WEIGHTS = st.sampled_from([0.0, 0.0, 0.5, 2.0])


@st.composite
def small_entries(draw: st.DrawFn) -> Entry:
    """Short schedules with many zeros."""
    sign, start = draw(st.sampled_from([1, -1])), draw(SMALL)
    weights = FEW_WEIGHTS.map(lambda weight: sign * weight)
    entry: Entry = {"loss_weight": draw(weights), "start_iter": start}
    if draw(st.booleans()):
        entry["knots"] = [[i, draw(weights)] for i in sorted(draw(st.sets(SMALL, min_size=1, max_size=4)))]
    else:
        kinds = [kind for kind in RAMPS if kind != "exponential"]
        entry |= {"target_iter": start + draw(SMALL), "target_weight": draw(weights), "cycles": draw(st.integers(1, 8))}
        entry["schedule_type"] = draw(st.sampled_from(kinds))
    if draw(st.booleans()):
        entry["disable_after"] = start + draw(SMALL)
    return entry


@given(entry=small_entries(), total_iter=st.one_of(st.none(), st.integers(1, 30)))
@settings(max_examples=300)
@example(entry={"loss_weight": 0, "target_weight": 1.0, "start_iter": 5}, total_iter=4)
@example(
    entry={**CYCLES, "loss_weight": 0, "start_iter": 1, "target_iter": 9, "cycles": 2, "disable_after": 5},
    total_iter=None,
)
@example(entry={"loss_weight": 0, "target_weight": 1.0, "start_iter": 5}, total_iter=5)
@example(entry={"loss_weight": 1.0, "disable_after": 0}, total_iter=None)
def test_a_weight_vanishes_if_it_is_zero_at_every_iteration(entry: Entry, total_iter: int | None) -> None:
    brute_force = all(reference(entry, iteration) == 0 for iteration in range(1, (total_iter or 60) + 1))
    assert schedule_of(entry).vanishes(total_iter) == brute_force


def test_tiny_weights_keep_their_sign() -> None:
    expect_refusal({"loss_weight": 1e-200, "target_weight": -1e-200}, "target_weight", "sign of loss_weight")


RAMP = {"loss_weight": 1.0, "start_iter": 10, "target_iter": 20, "target_weight": 2.0}
WHOLE = "a whole number of iterations, at least 0"
BAD_NUMBERS: list[Any] = [-1, 0.5, 20.5, math.nan, math.inf, True, [1]]
BAD_TEXTS = ["-1", "-5k", "0.0005k", "1e3k", "-1%", "100.1%", "1000%", "nan%", "soon", ""]
REFUSED = {
    "unknown type": ({**RAMP, "schedule_type": "cosin"}, "schedule_type", "(did you mean cosine?)"),
    "unknown type, capitals": ({**RAMP, "schedule_type": "Smooth_Step"}, "schedule_type", "(did you mean smoothstep?)"),
    "type that is no text": ({**RAMP, "schedule_type": 3}, "schedule_type", "found 3; accepted: 'linear'"),
    "target before start": ({**RAMP, "target_iter": 9}, "target_iter", "found 9; accepted: at least start_iter, 10"),
    "end before start": ({**RAMP, "disable_after": 9}, "disable_after", "found 9; accepted: at least start_iter, 10"),
    "no weight": ({**RAMP, "loss_weight": math.nan}, "loss_weight", "accepted: a finite number"),
    "infinite weight": ({**RAMP, "loss_weight": -math.inf}, "loss_weight", "accepted: a finite number"),
    "no target weight": ({**RAMP, "target_weight": math.nan}, "target_weight", "accepted: a finite number"),
    "infinite target weight": ({**RAMP, "target_weight": math.inf}, "target_weight", "accepted: a finite number"),
    "weight as text": ({**RAMP, "target_weight": "0.5"}, "target_weight", "found '0.5'; accepted: a number"),
    "weight as a switch": ({**RAMP, "target_weight": True}, "target_weight", "found true; accepted: a number"),
    "other sign": ({**RAMP, "target_weight": -1.0}, "target_weight", "found -1.0; accepted: "),
    "other sign, from below": ({"loss_weight": -1.0, "target_weight": 1.0}, "target_weight", "found 1.0; accepted: "),
    "exponential from 0": (
        {**RAMP, "loss_weight": 0.0, "schedule_type": "exponential"},
        "schedule_type",
        "positive",
    ),
    "exponential to 0": ({**RAMP, "target_weight": 0, "schedule_type": "exponential"}, "schedule_type", "positive"),
    "exponential below 0": (
        {"loss_weight": -1.0, "target_weight": -2.0, "target_iter": 9, "schedule_type": "exponential"},
        "schedule_type",
        "positive",
    ),
    "misspelled": ({"loss_weight": 1.0, "target_wieght": 2.0}, "target_wieght", "(did you mean target_weight?)"),
    "misspelled start": ({"loss_weight": 1.0, "start_itr": 2}, "start_itr", "(did you mean start_iter?)"),
    "weight as a part of the run": (
        {**RAMP, "target_weight": "30%"},
        "target_weight",
        "found '30%'; accepted: a number",
    ),
    "base weight as a part of the run": ({"loss_weight": "30%"}, "loss_weight", "found '30%'; accepted: a number"),
    "cycles as a part of the run": ({**RAMP, "cycles": "1%"}, "cycles", "found '1%'; accepted: a whole number"),
    "power of 0": ({**RAMP, "power": 0.0}, "power", "found 0.0"),
    "no cycle": ({**RAMP, "cycles": 0}, "cycles", "found 0"),
    "half a cycle": ({**RAMP, "cycles": 1.5}, "cycles", "found 1.5; accepted: a whole number"),
    "ratio of 0": ({**RAMP, "ratio": 0.0}, "ratio", "found 0.0"),
    "ratio above 1": ({**RAMP, "ratio": 1.5}, "ratio", "found 1.5"),
}
KNOTS_REFUSED = {
    "unsorted": ([[10, 1.0], [5, 2.0]], {}, "knots", "rise"),
    "one iteration twice": ([[10, 1.0], [10, 2.0]], {}, "knots", "rise"),
    "none": ([], {}, "knots", "found []"),
    "no pair": ([[10, 1.0, 3]], {}, "knots[0]", ""),
    "no list": (5, {}, "knots", "found 5"),
    "no weight": ([[1, 1.0], [10, math.nan]], {}, "knots[1][1]", "accepted: a finite number"),
    "infinite weight": ([[1, 1.0], [10, math.inf]], {}, "knots[1][1]", "accepted: a finite number"),
    "negative iteration": ([[-1, 1.0]], {}, "knots[0][0]", WHOLE),
    "part of an iteration": ([[1, 1.0], [2.5, 1.0]], {}, "knots[1][0]", WHOLE),
    "weight as a part of the run": ([[1, 1.0], [10, "30%"]], {}, "knots[1][1]", "found '30%'; accepted: a number"),
    "other sign": ([[1, 1.0], [10, -1.0]], {}, "knots", "sign"),
    "with a target": ([[1, 1.0]], {"target_iter": 5}, "knots", "target_iter"),
    "with a target weight": ([[1, 1.0]], {"target_weight": 5.0}, "knots", "target_weight"),
    "with a type": ([[1, 1.0]], {"schedule_type": "cosine"}, "knots", "schedule_type"),
}


def expect_refusal(entry: Entry, key: str, words: str, total_iter: int | None = 1000) -> None:
    """Checks that there is one message, about this key and with these words."""
    with pytest.raises(ConfigError) as caught:
        schedule_of(entry, total_iter)
    assert [problem.key for problem in caught.value.problems] == [key], str(caught.value)
    assert "; accepted: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_schedules_are_refused(case: str) -> None:
    entry, key, words = REFUSED[case]
    expect_refusal(entry, key, words)


@pytest.mark.parametrize("key", ITERATION_KEYS)
@pytest.mark.parametrize("value", BAD_NUMBERS + BAD_TEXTS, ids=str)
def test_bad_iterations_are_refused(key: str, value: Any) -> None:
    accepted = "a percentage between 0% and 100%" if value in ("100.1%", "1000%") else WHOLE
    expect_refusal({"loss_weight": 1.0, key: value}, key, accepted)


@pytest.mark.parametrize("case", KNOTS_REFUSED)
def test_bad_knots_are_refused(case: str) -> None:
    knots, more, key, words = KNOTS_REFUSED[case]
    expect_refusal({"loss_weight": 1.0, "knots": knots, **more}, key, words)


def test_every_mistake_is_found_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        schedule_of({"loss_weight": math.nan, "start_iter": -1, "target_iter": 2.5, "schedule_type": "x"})
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"loss_weight", "start_iter", "target_iter", "schedule_type"}
