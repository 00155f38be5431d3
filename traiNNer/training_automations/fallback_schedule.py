"""The schedule of the rate that takes effect when its automation has failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import SCHEDULERS

SCHEDULES = {
    "cosine": "CosineAnnealingLR",
    "exponential": "ExponentialLR",
    "linear": "LinearLR",
    "step": "StepLR",
    "multistep": "MultiStepLR",
    "constant": "ConstantLR",
    "polynomial": "PolynomialLR",
    "onecycle": "OneCycleLR",
    "plateau": "ReduceLROnPlateau",
}
"""Short names of schedulers."""


def fallback_schedule(name: str | None, parameters: dict[str, Any]) -> dict[str, Any] | None:
    """`type` and parameters, checked; None without either.

    Raises:
        ConfigError: there is no such schedule, it has other parameters, or there are parameters of none.
    """
    if name is None and parameters:
        message = "found parameters without fallback_scheduler_type; accepted: with the schedule that they are of"
        raise ConfigError(Problem(key="fallback_scheduler_params", message=message))
    if name is None:
        return None
    scheduler = {"type": SCHEDULES.get(name.lower(), name), **parameters}
    try:
        SCHEDULERS.validate(scheduler)
    except ConfigError as error:
        of_type, of_params = "fallback_scheduler_type", "fallback_scheduler_params"
        raise ConfigError(
            [replace(each, key=of_type) if each.key == "type" else each.under(of_params) for each in error.problems]
        ) from None
    return scheduler | {"type": SCHEDULERS.canonical(scheduler["type"])}


def check_fallback(scheduler: dict[str, Any] | None, total_iter: int) -> None:
    """Build it for the length of the run, so that it is there when it is needed.

    Raises:
        ConfigError: it does not fit the run, or follows validations: nobody would keep what it has seen of them.
    """
    if scheduler is None:
        return
    try:
        schedule = SCHEDULERS.build(scheduler, total_iter)
    except ConfigError as error:
        raise ConfigError([each.under("fallback_scheduler_params") for each in error.problems]) from None
    if hasattr(schedule, "monitor"):
        message = f"found {scheduler['type']}; accepted: a schedule that follows iterations alone"
        raise ConfigError(Problem(key="fallback_scheduler_type", message=message))
