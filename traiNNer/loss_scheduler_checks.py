"""What loss schedulers demand of a run, asked before its first iteration, and what they will do in it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from traiNNer.component_checks import IMAGES
from traiNNer.findings import Findings
from traiNNer.losses.flexible_loss_scheduler import FlexibleLossScheduler, SchedulerParams
from traiNNer.losses.term import Term
from traiNNer.types import Better
from traiNNer.utils.errors import ConfigError, Problem, nearest

KEY = "train.loss_scheduler"


def build_loss_schedulers(
    schedulers: Sequence[SchedulerParams], terms: Mapping[str, Term], given: Mapping[str, Better], findings: Findings
) -> list[FlexibleLossScheduler]:
    """The schedulers of a file that can act on these losses.

    Args:
        schedulers: the section `train.loss_scheduler`.
        terms: the run's losses by label; one whose weight is 0 in the whole run is not among them.
        given: what validations compute, such as `val/psnr`, and where it improves.
        findings: mistakes are noted there.
    """
    built: list[FlexibleLossScheduler] = []
    for index, params in enumerate(schedulers):
        with findings.at(f"{KEY}[{index}]"):
            _check_labels(params, terms)
            built.append(FlexibleLossScheduler(params, _direction(params, terms, given)))
    return built


def _check_labels(params: SchedulerParams, terms: Mapping[str, Term]) -> None:
    """Raises:
    ConfigError: a multiplier is for something that the run does not have.
    """
    problems: list[Problem] = []
    for side, names in (("source", params.sources), ("target", params.targets), ("static", params.static_components)):
        mapped = side == "static" or getattr(params, f"{side}_components") is not None
        key = f"{side}_components" if mapped else f"{side}_loss"
        for name in names:
            label, slash, component = name.partition("/")
            if slash and not component:
                message = f"found {name}; accepted: {label}, or {label}/COMPONENT"
                problems.append(Problem(key=key, message=message))
            elif label not in terms:
                message = f"found {label}, whose weight is 0 in the whole run; accepted: a loss that has a weight"
                problems.append(Problem(key=key, message=message))
            elif component and (obstacle := _missing(terms[label], component)):
                problems.append(Problem(key=key, message=f"found {name}, but {obstacle}"))
    if problems:
        raise ConfigError(problems)


def _missing(term: Term, component: str) -> str:
    """Why a loss has no such component; empty if it has, or if that can only be seen in training."""
    if not term.needs <= IMAGES:
        return ""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        value = copy.deepcopy(term.loss)(**{name: torch.rand(1, 3, 64, 64) for name in term.needs})
    if isinstance(value, Tensor):
        return f"{term.label} has no components; accepted: {term.label}"
    accepted = ", ".join(f"{term.label}/{name}" for name in value)
    return "" if component in value else f"its components are others; accepted: {accepted}"


def _direction(params: SchedulerParams, terms: Mapping[str, Term], given: Mapping[str, Better]) -> Better:
    """Where the watched value improves.

    Raises:
        ConfigError: no validation gives it.
    """
    monitor = params.monitor_metric
    if not params.enabled or params.adaptation_trigger == "iteration":
        return "lower"
    if not given:
        message = f"found {params.adaptation_trigger}, but the run has no validation that measures anything"
        accepted = "accepted: iteration, or val.val_enabled: true with a data set val that has GT"
        raise ConfigError(Problem(key="adaptation_trigger", message=f"{message}; {accepted}"))
    for label in params.losses_of(monitor):
        if label in terms and not terms[label].measures_fidelity:
            reason = "compares with LQ (its weight is negative)" if terms[label].schedule.negative else "needs more"
            message = f"found {monitor}, but a validation has output and GT alone, and {label} {reason}"
            accepted = "val_loss, a metric such as val/psnr" if given else "a metric"
            raise ConfigError(Problem(key="monitor_metric", message=f"{message}; accepted: {accepted}"))
    if params.losses_of(monitor):
        return "lower"
    name = "val/loss" if monitor == "val_loss" else monitor if monitor in given else f"val/{monitor}"
    if name not in given:
        accepted = ["target_loss", "source_loss", *("val_loss" for _ in range("val/loss" in given)), *given]
        message = f"found {monitor}, which no validation computes; accepted: {', '.join(accepted)}"
        raise ConfigError(Problem(key="monitor_metric", message=message + nearest(monitor, accepted)))
    return given[name]


def describe(
    scheduler: FlexibleLossScheduler, terms: Mapping[str, Term], total_iter: int, val_freq: int
) -> Iterator[str]:
    """What a scheduler will do, for the start of the log."""
    params = scheduler.params
    names = f"{', '.join(params.sources)} to {', '.join(params.targets)}"
    if not params.enabled:
        yield f"loss scheduler: off, the weights of {names} stay"
        return
    (source, target), (last_source, last_target) = params.multipliers(0.0), params.multipliers(1.0)
    weights = f"multipliers {source:g} and {target:g} become {last_source:.3g} and {last_target:.3g}"
    trigger = params.adaptation_trigger
    watched = "by schedule" if trigger == "iteration" else f"on {trigger} of {params.monitor_metric}"
    yield f"loss scheduler: from {names}, {weights} {watched}"
    total, last = source + target, params.final_weight_source + params.final_weight_target
    if not math.isclose(total, last) or params.final_weight_target > params.max_weight_target:
        written = f"{params.final_weight_source:g} and {params.final_weight_target:g}"
        limits = f"their sum stays {total:g}, and the target's is at most {params.max_weight_target:g}"
        yield f"loss scheduler: {written} are reached as {last_source:.3g} and {last_target:.3g}: {limits}"
    if trigger != "iteration" and val_freq:
        least, there = _observations(params), math.ceil(total_iter / val_freq)
        if least > there:
            yield (
                f"loss scheduler: the whole move takes at least {least} validations ({least * val_freq:,} iterations), "
                f"this run has {there}"
            )
    for label in dict.fromkeys(name.partition("/")[0] for name in params.targets):
        schedule = terms[label].schedule
        last = total_iter if schedule.disable_after is None else schedule.disable_after
        if schedule.start_iter > 1 or last < total_iter:
            when = f"{label} acts in iterations {max(schedule.start_iter, 1):,} to {min(last, total_iter):,} alone"
            yield f"loss scheduler: {when}; outside of them a move only takes weight from {', '.join(params.sources)}"


def _observations(params: SchedulerParams) -> int:
    """Observations that a whole move takes at least."""
    patience = 1 if params.adaptation_trigger == "increase" else params.patience
    every = 2 if patience == "auto" else patience
    first = max(params.warmup_observations + 1 + every, params.min_observations_before_adapt + 1)
    return first + (params.adaptations - 1) * every
