"""What the entries of `train.losses` demand of each other, and what their schedules do that a user may not expect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pydantic

from traiNNer.config.components import parameters_of
from traiNNer.utils.errors import Problem
from traiNNer.utils.fields import iterations
from traiNNer.utils.registry import LOSSES
from traiNNer.utils.weight_schedule import WeightSchedule

RESERVED = ("finite", "losses_finite")
"""What a step records beside its losses, under such names."""


def loss_problems(losses: Any, total_iter: Any) -> Iterator[Problem]:
    """Labels that are used twice, and a run without any loss."""
    if not isinstance(losses, list):
        return
    entries = _entries(cast("list[Any]", losses))
    names: dict[str, int] = {}
    for index, entry in enumerate(entries):
        name = entry.get("name")
        if name in RESERVED:
            message = f"found {name!r}, which the log uses itself; accepted: another label"
            yield Problem(key=f"train.losses[{index}].name", message=message)
        if isinstance(name, str) and name in names:
            message = f"found {name!r} again, the label of losses[{names[name]}]; accepted: a label of its own"
            yield Problem(key=f"train.losses[{index}].name", message=message)
        elif isinstance(name, str):
            names[name] = index
    schedules = [_schedule(entry) for entry in entries]
    if all(schedule is not None and schedule.vanishes(_length(total_iter)) for schedule in schedules):
        found = "no loss" if not entries else "only losses whose weight is 0 in the whole run"
        yield Problem(key="train.losses", message=f"found {found}; accepted: at least one loss that has a weight")


def loss_notices(losses: Any, total_iter: Any) -> Iterator[Problem]:
    """Schedules that are right, but perhaps not meant."""
    entries = _entries(cast("list[Any]", losses)) if isinstance(losses, list) else []
    schedules = [_schedule(entry) for entry in entries]
    length = _length(total_iter)
    for index, schedule in enumerate(schedules):
        if schedule is not None:
            key = f"train.losses[{index}]"
            yield from (problem.under(key) for problem in _surprises(schedule, length))
    if length is not None and None not in schedules:
        idle = _idle([schedule for schedule in schedules if schedule is not None], length)
        if idle is not None:
            message = f"no loss has a weight at iteration {idle:,}: net_g is not trained there"
            yield Problem(key="train.losses", message=message)


def _surprises(schedule: WeightSchedule, length: int | None) -> Iterator[Problem]:
    start, target, end = schedule.start_iter, schedule.target_iter, schedule.disable_after
    if schedule.target_weight is not None and target is None:
        message = f"there is no target_iter, so the weight is this from iteration {max(1, start):,} on"
        yield Problem(key="target_weight", message=f"{message}; loss_weight is not used")
    if target is not None and end is not None and target > end:
        message = f"the loss ends at disable_after, {end:,}, before its target at {target:,}"
        yield Problem(key="disable_after", message=message)
    if schedule.scheduled and schedule.vanishes(length):
        yield Problem(key="loss_weight", message="the weight is 0 for the whole run: the loss is left out")


def _idle(schedules: Sequence[WeightSchedule], length: int) -> int | None:
    """The first iteration at which every weight is 0, None if there is none; weights vanish at corners or between."""
    corners = {1, length}
    for schedule in schedules:
        corners |= schedule.corners
    near = sorted({corner + step for corner in corners for step in (-1, 0, 1)})
    idle = (at for at in near if 1 <= at <= length and not any(schedule.value(at) for schedule in schedules))
    return next(idle, None) if schedules else None


def _entries(losses: Sequence[Any]) -> list[Mapping[str, Any]]:
    return [cast("dict[str, Any]", entry) if isinstance(entry, dict) else {} for entry in losses]


def _schedule(entry: Mapping[str, Any]) -> WeightSchedule | None:
    """An entry's schedule, None if it has mistakes, which are reported elsewhere."""
    own = parameters_of(LOSSES, entry)
    names = [name for name in WeightSchedule.model_fields if name not in own]
    try:
        return WeightSchedule.model_validate({name: entry[name] for name in names if name in entry})
    except pydantic.ValidationError:
        return None


def _length(total_iter: Any) -> int | None:
    try:
        length = iterations(total_iter)
    except ValueError:
        return None
    return length if length >= 1 else None
