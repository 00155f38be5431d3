"""What a scheduler's options demand of each other, and what its rate does in this run that a user may not expect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import SCHEDULERS

Options = Mapping[str, Any]
Checked = dict[str, Any]


def contradictions(options: Options, total_iter: int) -> list[Problem]:
    """Mistakes that options make together, where each of them is right by itself; keys are relative."""
    try:
        SCHEDULERS.validate(options)
    except ConfigError:
        return []
    return scheduler_problems(options, total_iter)


def scheduler_problems(options: Options, total_iter: int) -> list[Problem]:
    """Every mistake in `{"type": NAME, **parameters}`, also those of options against each other; keys are relative."""
    try:
        SCHEDULERS.build(options, total_iter)
    except ConfigError as error:
        return error.problems
    return []


def scheduler_notices(options: Options, total_iter: int) -> list[Problem]:
    """Schedules that are right, but perhaps not meant; none for options with mistakes. Keys are relative."""
    if scheduler_problems(options, total_iter):
        return []
    find = _NOTICES.get(SCHEDULERS.canonical(options["type"]))
    return [] if find is None else list(find(SCHEDULERS.validate(options), total_iter))


def _cosine(found: Checked, total_iter: int) -> Iterator[Problem]:
    length = found["T_max"]
    rises = total_iter + 1 if length is None else length + 2  # it is lowest at iteration length + 1
    if rises <= total_iter:
        message = f"{length:,} is before total_iter, {total_iter:,}: the rate rises again from iteration {rises:,} on"
        yield Problem(key="T_max", message=message)


def _milestones(found: Checked, total_iter: int) -> Iterator[Problem]:
    for name in ("milestones", "restarts"):
        for index, milestone in enumerate(found.get(name) or []):
            if milestone >= total_iter:
                message = f"{milestone:,} has no effect: it acts after its iteration, and total_iter is {total_iter:,}"
                yield Problem(key=f"{name}[{index}]", message=message)


def _exponential(found: Checked, total_iter: int) -> Iterator[Problem]:
    gamma = found["gamma"]
    tiny = math.ceil(math.log(1e-3) / math.log(gamma)) + 1 if gamma < 1 else math.inf
    if tiny < total_iter / 2:
        message = f"{gamma} in each iteration leaves less than a thousandth of the rate from iteration {tiny:,} on"
        yield Problem(key="gamma", message=message)


def _longer(name: str, effect: str) -> Callable[[Checked, int], Iterator[Problem]]:
    def find(found: Checked, total_iter: int) -> Iterator[Problem]:
        length = found[name]
        if length is not None and length > total_iter:
            yield Problem(key=name, message=f"{length:,} is beyond total_iter, {total_iter:,}: {effect}")

    return find


def _one_cycle(found: Checked, total_iter: int) -> Iterator[Problem]:
    yield from _longer("total_steps", "the rate does not come down to its lowest value")(found, total_iter)
    length = found["total_steps"]
    if length is not None and length < total_iter:
        message = f"{length:,} is before total_iter, {total_iter:,}: the rate stays at its lowest value from there on"
        yield Problem(key="total_steps", message=message)


def _periods(found: Checked, total_iter: int) -> Iterator[Problem]:
    end = sum(found["periods"])
    if end < total_iter:
        message = f"they end at {end:,}, before total_iter, {total_iter:,}: the rate stays at eta_min from there on"
        yield Problem(key="periods", message=message)


def _stable(found: Checked, total_iter: int) -> Iterator[Problem]:
    decay = found["num_decay_steps"] or max(1, total_iter // 10)
    stable = found["num_stable_steps"] or 0
    end = found["num_warmup_steps"] + stable + decay
    if end > total_iter:
        message = f"the phases end at {end:,}, beyond total_iter, {total_iter:,}: the decay is cut short"
        yield Problem(key="num_decay_steps", message=message)


_NOTICES: dict[str, Callable[[Checked, int], Iterator[Problem]]] = {
    "CosineAnnealingLR": _cosine,
    "MultiStepLR": _milestones,
    "MultiStepRestartLR": _milestones,
    "ExponentialLR": _exponential,
    "StepLR": _longer("step_size", "the rate is never reduced"),
    "LinearLR": _longer("total_iters", "the rate does not reach end_factor"),
    "PolynomialLR": _longer("total_iters", "the rate does not reach 0"),
    "CosineAnnealingWarmRestarts": _longer("T_0", "there is no restart"),
    "OneCycleLR": _one_cycle,
    "CosineAnnealingRestartLR": _periods,
    "WarmupStableDecayLR": _stable,
    "get_wsd_schedule": _stable,
}
"""By type; a scheduler that is not here holds no surprise."""
