"""Losses, one per file: the function with its formula first, then the module that stores its options.

The keyword parameters of a loss's `forward` say what it needs; the model hands it exactly that.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import pydantic

from traiNNer.losses.base import Loss
from traiNNer.losses.iterative_loss_wrapper import IterativeLossWrapper, needs
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.kl_names import KL_NAMES, is_kl, kl_defaults
from traiNNer.utils.registry import LOSSES, loss_labels
from traiNNer.utils.schema import accepted_names, problems_of
from traiNNer.utils.weight_schedule import ITERATION_KEYS, WeightSchedule, absolute

__all__ = ["INPUTS", "BuiltLoss", "build_loss", "build_losses", "check_forward", "needs"]

INPUTS = (
    "output",
    "target",
    "lq",
    "ema_output",
    "real_logits",
    "fake_logits",
    "latent_mean",
    "latent_log_variance",
    "current_iter",
)
"""What a loss's forward may ask for.

Images are (B, 3, H, W) float32: net_g's output and that of its moving average, not clamped, GT and LQ in [0, 1]. Logits
are what net_d returns for GT and for the output. Mean and log-variance are an encoder's, (B, D, H, W) or (B, D)
float32; networks that have one give them. The iteration counts from 1.
"""

FOR_AUTOMATIONS = ("share", "fixed")
"""Keys of an entry that concern neither the loss nor its weight, but what adjusts weights while training."""

BuiltLoss: TypeAlias = Loss | IterativeLossWrapper


def build_loss(options: Mapping[str, Any], *, total_iter: int | None = None) -> BuiltLoss:
    """Build one loss from an entry of `train.losses`.

    Args:
        options: `{"type": NAME, "loss_weight": FLOAT, **parameters}`, and optionally `name`, its label in the log, the
            keys of a schedule, see `WeightSchedule`, and `FOR_AUTOMATIONS`; `klloss` also by the names in `KL_NAMES`.
        total_iter: length of the run, for iterations written as percentages.

    Returns:
        Without keys of a schedule the bare loss, whose call returns the *unweighted* value, a scalar tensor or a dict
        of them. With any of them an `IterativeLossWrapper`, which is called with `current_iter` in addition and returns
        the weighted value. Both have the attributes `label`, `loss_weight` (the base weight, 1.0 if absent) and
        `schedule`.

    Raises:
        ConfigError: unknown type or parameter, or a value outside its range.
    """
    options = _with_kl_names(options)
    own = accepted_names(LOSSES.get(options["type"])) if isinstance(options.get("type"), str) else ()
    keys = [name for name in WeightSchedule.model_fields if name not in own]
    others = ["name", *(name for name in FOR_AUTOMATIONS if name not in own)]
    entry = {key: value for key, value in options.items() if key in keys and value is not None}
    component = {key: value for key, value in options.items() if key not in (*keys, *others)}
    loss: Loss = LOSSES.build(component, also_accepted=[*others, *keys])
    loss.schedule = _schedule({"loss_weight": 1.0, **entry}, total_iter)
    loss.label = str(options.get("name") or LOSSES.canonical(options["type"]))
    return IterativeLossWrapper(loss, loss.schedule) if loss.schedule.scheduled else loss


def _with_kl_names(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entry with a loss's own keys in place of the names in `KL_NAMES`; other types have no such names."""
    written = [key for key, value in options.items() if value is not None]
    if not is_kl(options.get("type")) or not KL_NAMES.keys() & set(options):
        return options
    twice = [name for name, key in KL_NAMES.items() if name in written and key in written]
    if twice:
        raise ConfigError(
            [Problem(key=name, message=f"the same as {KL_NAMES[name]}; accepted: one of them") for name in twice]
        )
    return {KL_NAMES.get(key, key): options[key] for key in written} | kl_defaults(written)


def _schedule(values: Mapping[str, Any], total_iter: int | None) -> WeightSchedule:
    if total_iter is not None:
        values = {key: _absolute(key, value, total_iter) for key, value in values.items()}
    try:
        return WeightSchedule.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError(problems_of(error, list(WeightSchedule.model_fields), values)) from None


def _absolute(key: str, value: Any, total_iter: int) -> Any:
    """A value of a schedule with iterations in place of percentages, where it holds any."""
    if key == "knots" and _is_list(value):
        return [
            [*(absolute(at, total_iter) for at in knot[:1]), *knot[1:]] if _is_list(knot) else knot for knot in value
        ]
    return absolute(value, total_iter) if key in ITERATION_KEYS else value


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def build_losses(entries: Sequence[Mapping[str, Any]], *, total_iter: int | None = None) -> dict[str, BuiltLoss]:
    """All entries of `train.losses` by label: `name`, else the type, then type_2, ...

    An entry whose weight is 0 for the whole run is left out.
    """
    losses: list[BuiltLoss] = []
    names: set[str] = set()
    problems: list[Problem] = []
    for index, entry in enumerate(entries):
        name = entry.get("name")
        try:
            losses.append(build_loss(entry, total_iter=total_iter))
        except ConfigError as error:
            problems += [problem.under(f"[{index}]") for problem in error.problems]
        if name in names:
            message = f"the label {name!r} is used twice; accepted: labels of their own"
            problems.append(Problem(key=f"[{index}].name", message=message))
        names |= {name} if name else set()
    if problems:
        raise ConfigError(problems)
    labelled = zip(loss_labels(entries), losses, strict=True)
    return {label: loss for label, loss in labelled if not loss.schedule.vanishes(total_iter)}


def check_forward(factory: Any) -> None:
    """Refuse a loss whose forward asks for something that the model does not have; run at registration.

    Raises:
        TypeError: naming the unknown input.
    """
    names = [name for name in inspect.signature(factory.forward).parameters if name != "self"]
    unknown = [name for name in names if name not in INPUTS]
    if unknown:
        raise TypeError(
            f"{factory.__name__}.forward asks for {', '.join(unknown)}; a loss can have {', '.join(INPUTS)}"
        )
