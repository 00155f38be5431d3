"""The section `train.loss_scheduler`: the forms in which it may be written, and what it demands of the losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from traiNNer.config.tree import Node
from traiNNer.utils.errors import ConfigError, Problem, nearest
from traiNNer.utils.fields import iterations
from traiNNer.utils.registry import LOSSES, loss_labels
from traiNNer.utils.scheduler_params import ITERATION_KEYS, OBSERVATION_KEYS
from traiNNer.utils.schema import shown
from traiNNer.utils.weight_schedule import absolute

LEGACY_COMPONENTS = ("recMSE", "predMSE", "recFieldError", "predFieldError")
"""Parts of a field error that a loop for time series weighs each on its own; here they are one loss."""

FIELD_ERROR = "fielderrorloss"


def settle(root: Node, notices: list[Problem]) -> list[Problem]:
    """One scheduler becomes a list of one, and old names are replaced; returns what contradicts itself."""
    train = root.section.get("train")
    written = None if train is None else train.section.get("loss_scheduler")
    if train is None or written is None or written.value is None:
        return []
    if isinstance(written.value, dict):
        train.section["loss_scheduler"] = Node([written], written.line, written.written, written.file)
    elif not isinstance(written.value, list):
        return [written.problem(f"found {shown(written.plain())}; accepted: a section, or a list of sections")]
    total_iter = length_of(train)
    problems: list[Problem] = []
    for node in train.section["loss_scheduler"].items:
        for old, new in OBSERVATION_KEYS.items():
            problems += _rename(node, old, new)
        points = node.section["schedule"].items if "schedule" in node.section else []
        iterations_of = [node.section.get(name) for name in ITERATION_KEYS] + [
            at for point in points for at in point.items[:1]
        ]
        for at in iterations_of:
            if at is not None:
                at.value = absolute(at.value, total_iter)
        problems += _components(node, train, notices)
    return problems


def length_of(train: Node) -> int:
    """The length of the run, as far as it can be read; 0 where that itself is a mistake."""
    try:
        return iterations(train.section["total_iter"].value) if "total_iter" in train.section else 0
    except ValueError:
        return 0


def _rename(node: Node, old: str, new: str) -> list[Problem]:
    if old not in node.section:
        return []
    present, moved = node.section.get(new), node.section.pop(old)
    if present is not None:
        message = f"the same as {present.written} in line {present.line}; accepted: one of them"
        return [moved.problem(message)]
    node.section[new] = moved
    return []


def _components(node: Node, train: Node, notices: list[Problem]) -> list[Problem]:
    """Replace components of a field error by the label of the loss."""
    problems: list[Problem] = []
    told = False
    for name in ("source_components", "target_components", "static_components"):
        components = node.section.get(name)
        legacy = [] if components is None else [key for key in components.section if key in LEGACY_COMPONENTS]
        if components is None or not legacy:
            continue
        entries = {key: components.section.pop(key) for key in legacy}
        label = _field_error(train, node)
        if len({str(entry.plain()) for entry in [*entries.values(), *_present(components, label)]}) > 1:
            message = f"found values that differ for {', '.join(legacy)}, which are one loss; accepted: one value"
            problems.append(components.problem(message))
        elif label is None:
            message = f"found {', '.join(legacy)}; accepted: these with a loss of type {FIELD_ERROR}, which they are"
            problems.append(components.problem(message))
        else:
            components.section.setdefault(label, next(iter(entries.values())))
            if not told:
                notices.append(components.problem(f"{', '.join(legacy)} is read as {label}, the field error"))
                told = True
    return problems


def _present(components: Node, label: str | None) -> list[Node]:
    return [components.section[label]] if label in components.section else []


def _field_error(train: Node, scheduler: Node) -> str | None:
    """The label of the field error; of several, the one that the scheduler moves."""
    entries = train.section["losses"].plain() if "losses" in train.section else None
    named = zip(labels_of(entries), _entries(entries), strict=False)
    types = ((label, str(entry.get("type", ""))) for label, entry in named)
    labels = [label for label, name in types if LOSSES.normalize(name) == LOSSES.normalize(FIELD_ERROR)]
    moved = [
        each
        for key in ("source_loss", "target_loss")
        if key in scheduler.section
        for each in _as_list(scheduler.section[key].plain())
    ]
    return next((label for label in moved if label in labels), labels[0] if labels else None)


def _entries(losses: Any) -> list[Mapping[str, Any]]:
    entries = cast("list[Any]", losses) if isinstance(losses, list) else []
    return [cast("dict[str, Any]", entry) if isinstance(entry, dict) else {} for entry in entries]


def labels_of(losses: Any) -> list[str]:
    """The labels of the entries of `train.losses`; none if one of them has none, which is reported elsewhere."""
    try:
        return loss_labels(_entries(losses))
    except (ConfigError, KeyError):
        return []


def labels_moved(schedulers: Any) -> set[str]:
    """The labels of losses that schedulers have multipliers for."""
    named = [names for scheduler in _entries(schedulers) for _, names in _named(scheduler)]
    return {name.partition("/")[0] for names in named for name in names}


def scheduler_problems(schedulers: Any, losses: Any) -> Iterator[Problem]:
    """Labels that no loss has, and losses that more than one multiplier is for."""
    labels = labels_of(losses)
    if not labels:
        return
    taken: dict[str, tuple[str, str]] = {}
    entries = _entries(schedulers)
    for index, scheduler in enumerate(entries):
        place = f"train.loss_scheduler[{index}]"
        place_shown = place if len(entries) > 1 else "train.loss_scheduler"
        for key, names in _named(scheduler):
            for name in names:
                label = name.partition("/")[0]
                if label not in labels:
                    message = f"found {name}; accepted: {', '.join(labels)}, the labels of train.losses"
                    yield Problem(key=f"{place}.{key}", message=message + nearest(label, labels))
                elif taken.setdefault(name, (place, key)) != (place, key):
                    first = taken[name] if len(entries) > 1 else (place_shown, taken[name][1])
                    message = f"found {name}, which {first[0]}.{first[1]} has a multiplier for; accepted: it once"
                    yield Problem(key=f"{place}.{key}", message=message)


def _named(scheduler: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """What a scheduler has multipliers for, by the key that names it."""
    for side in ("source", "target"):
        components = scheduler.get(f"{side}_components")
        labels = scheduler.get(f"{side}_loss")
        if isinstance(components, dict):
            chosen = cast("dict[str, Any]", components)
            yield f"{side}_components", [name for name, wanted in chosen.items() if wanted is True]
        if isinstance(labels, str | list) and not isinstance(components, dict):
            yield f"{side}_loss", _as_list(labels)
    static = scheduler.get("static_components")
    if isinstance(static, dict):
        yield "static_components", list(cast("dict[str, Any]", static))


def _as_list(labels: Any) -> list[str]:
    values = cast("list[Any]", labels) if isinstance(labels, list) else [labels]
    return [each for each in values if isinstance(each, str)]


def scheduler_surprises(schedulers: Any) -> Iterator[Problem]:
    """Options that have no effect with the trigger that is written."""
    for index, scheduler in enumerate(_entries(schedulers)):
        trigger = scheduler.get("adaptation_trigger", "plateau")
        for name in _idle(trigger):
            if scheduler.get(name) is not None:
                message = f"has no effect with adaptation_trigger: {trigger}"
                yield Problem(key=f"train.loss_scheduler[{index}].{name}", message=message)


def _idle(trigger: Any) -> Sequence[str]:
    if trigger != "iteration":
        return ("schedule",)
    return (
        "patience",
        "min_delta",
        "threshold_mode",
        "transition_step",
        "adaptive_step",
        "min_observations_before_adapt",
        "warmup_observations",
        "min_iterations_before_adapt",
        "warmup_iterations",
        "max_consecutive_adaptations",
        "monitor_metric",
        "use_ema",
        "ema_beta",
    )
