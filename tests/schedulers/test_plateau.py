"""ReduceLROnPlateau against torch's, validation by validation, and what of it survives a resume."""

from __future__ import annotations

import io
import itertools
import math
import random
from typing import Any

import pytest
import torch

from traiNNer.schedulers import LearningRate, ObservesValidation, build_schedule
from traiNNer.schedulers.reducelronplateau_scheduler import ReduceLROnPlateau

Options = dict[str, Any]


def plateau(options: Options) -> ReduceLROnPlateau:
    schedule = build_schedule({"type": "ReduceLROnPlateau", **options}, 1000)
    assert isinstance(schedule, ReduceLROnPlateau)
    return schedule


def trace(seed: int, length: int = 200) -> list[float]:
    """Validations that improve for a while, then less and less, with accidents: NaN, infinities, repetitions."""
    random.seed(seed)
    value, values = random.choice([30.0, 0.02, -5.0]), []
    for step in range(length):
        value += random.gauss(0, 1) * abs(value) * random.choice([0, 1e-5, 1e-4, 1e-2]) / (1 + step / 50)
        values.append(random.choices([value, math.nan, math.inf, -math.inf], [40, 2, 1, 0.2])[0])
    return values


EXAMPLES = [
    # The examples of the scheduler reference.
    {"mode": "min", "factor": 0.5, "patience": 10, "threshold": 1e-4},
    {"mode": "max", "factor": 0.1, "patience": 5, "threshold": 0.001},
    {"mode": "min", "factor": 0.75, "patience": 20, "threshold": 1e-5},
]
GRID: list[Options] = [
    {"mode": mode, "threshold_mode": threshold_mode, "patience": patience, "cooldown": cooldown, "min_lr": min_lr}
    for mode, threshold_mode, patience, cooldown, min_lr in itertools.product(
        ("min", "max"), ("rel", "abs"), (0, 3), (0, 2), (0.0, 3e-5)
    )
]


@pytest.mark.parametrize("options", [{}, *EXAMPLES, *GRID], ids=str)
def test_equals_torch_after_every_validation(options: Options) -> None:
    for seed, base in itertools.product(range(6), (1e-3, 2e-5)):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=base)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        ours = plateau(options)
        for number, value in enumerate(trace(seed), start=1):
            before = base * ours(number, base)
            reduced = ours.observe(value)
            theirs.step(value)
            after = base * ours(number, base)
            assert after == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
            assert after == before or (reduced and after < before)


def test_each_group_has_its_own_floor() -> None:
    schedule = plateau({"patience": 0, "factor": 0.1, "min_lr": 1e-5})
    for _ in range(4):
        schedule.observe(1.0)
    assert 1e-3 * schedule(1, 1e-3) == pytest.approx(1e-5)
    assert 2e-5 * schedule(1, 2e-5) == pytest.approx(1e-5)
    assert schedule(1, 1e-6) == 1.0, "a floor above the base rate does not raise it"


def test_nan_is_no_improvement_and_never_the_best() -> None:
    schedule = plateau({"patience": 1, "mode": "max"})
    assert [schedule.observe(value) for value in (math.nan, 20.0, math.nan, math.nan, 21.0)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert schedule.state_dict()["best"] == 21.0


@pytest.mark.parametrize(
    ("options", "monitor"),
    [({}, "val/loss"), ({"mode": "max"}, "val/psnr"), ({"mode": "max", "monitor": "val/ssim"}, "val/ssim")],
)
def test_says_which_metric_it_wants_to_hear_of(options: Options, monitor: str) -> None:
    schedule = plateau(options)
    assert isinstance(schedule, ObservesValidation)
    assert (schedule.monitor, schedule.mode) == (monitor, options.get("mode", "min"))


def test_no_other_schedule_observes() -> None:
    assert not isinstance(build_schedule({"type": "LinearLR"}, 10), ObservesValidation)


def test_composes_with_the_warm_up() -> None:
    schedule = plateau({"patience": 0, "factor": 0.5})
    rate = LearningRate(torch.optim.SGD([torch.zeros(1)], lr=1.0), schedule, 10)
    schedule.observe(1.0)
    schedule.observe(1.0)
    assert rate.value(4, 1e-3) == pytest.approx(0.4 * 0.5e-3)
    assert rate.value(11, 1e-3) == pytest.approx(0.5e-3)


@pytest.mark.parametrize("options", [{"patience": 2, "cooldown": 2}, {"patience": 0, "mode": "max"}], ids=str)
@pytest.mark.parametrize("cut", [1, 7, 50])
def test_a_resume_goes_on_as_a_straight_run(options: Options, cut: int) -> None:
    straight, first, second = plateau(options), plateau(options), plateau(options)
    values = trace(3)
    for value in values[:cut]:
        straight.observe(value)
        first.observe(value)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second(1, 1e-3) == straight(1, 1e-3)
    for value in values[cut:]:
        assert second.observe(value) == straight.observe(value)
        assert second(1, 1e-3) == straight(1, 1e-3)
    assert second.state_dict() == straight.state_dict()


def test_a_resume_goes_on_counting() -> None:
    before, after = plateau({"patience": 2}), plateau({"patience": 2})
    assert [before.observe(1.0) for _ in range(3)] == [False] * 3
    after.load_state_dict(before.state_dict())
    assert after.observe(1.0) is True


def test_an_edited_factor_holds_for_past_reductions_too() -> None:
    before, after = plateau({"patience": 0, "factor": 0.1}), plateau({"patience": 0, "factor": 0.5})
    for _ in range(3):
        before.observe(1.0)
    after.load_state_dict(before.state_dict())
    assert after(1, 1e-3) == pytest.approx(0.25)


def test_another_metric_starts_with_a_best_of_its_own() -> None:
    before = plateau({"patience": 0})
    before.observe(30.0)
    before.observe(30.0)
    after = plateau({"patience": 0, "mode": "max"})
    after.load_state_dict(before.state_dict())
    assert after(1, 1e-3) == pytest.approx(0.1), "the reduction stays"
    assert after.observe(3.0) is False, "the first of psnr, whatever the loss was"
    assert after.observe(3.0) is True
