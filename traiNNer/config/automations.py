"""The section `train.training_automations`: where and in which forms it may be written, and what it demands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from traiNNer.config.loss_schedulers import labels_moved, labels_of, length_of
from traiNNer.config.renames import twice
from traiNNer.config.sections import AutomationEntry, TrainOptions
from traiNNer.config.tree import Node, join
from traiNNer.utils.errors import ConfigError, Problem, nearest
from traiNNer.utils.fields import iterations
from traiNNer.utils.registry import AUTOMATIONS
from traiNNer.utils.schema import shown, unknown_key
from traiNNer.utils.weight_schedule import absolute

Data = Mapping[str, Any]

PLATEAU = 1000
"""Least `plateau_patience` where none is written."""

MANAGER = "training_automations"
LOSSES = "dynamic_loss_scheduling"
RATE = "intelligent_learning_rate_scheduler"
BATCH = "dynamic_batch_size_optimizer"
CLIPPING = "adaptive_gradient_clipping"
STOPPING = "intelligent_early_stopping"

TYPES = {
    LOSSES: "DynamicLossScheduling",
    RATE: "IntelligentLearningRateScheduler",
    BATCH: "DynamicBatchSizeOptimizer",
    CLIPPING: "AdaptiveGradientClipping",
    STOPPING: "IntelligentEarlyStopping",
}
"""Key of an automation's section, and the registered name. Either is read, without regard to case and underscores."""

SPELLINGS = {AUTOMATIONS.normalize(name): name for name in TYPES} | {"earlystopping": STOPPING}

FALLBACKS = {
    RATE: ("scheduler_type", "scheduler_params"),
    BATCH: ("batch_size",),
    CLIPPING: ("threshold",),
    STOPPING: ("early_stopping",),
}
"""Keys of an automation's `fallback`, which stand in its section as `fallback_scheduler_type`, ..."""

COUNTS = (
    "plateau_patience",
    "adjustment_frequency",
    "monitoring_frequency",
    "patience",
    "max_no_improvement",
    "min_iterations",
    "warmup_iterations",
)
"""Parameters that are iterations and may be written 2k or 5% as others."""


def settle_automations(root: Node, notices: list[Problem]) -> list[Problem]:
    """Gather the automations' sections in one, each under its key and with its type; returns what cannot be read."""
    found, problems = _sections(root)
    manager = _manager(root, next(iter(found.values()), None))
    if manager is None:
        return problems
    if not _open(manager):
        return [*problems, _not_a_section(manager)]
    manager.section.update(found)
    train = root.section["train"]
    for name, node in found.items():
        problems += _settle(name, node, length_of(train), notices)
    if CLIPPING in found:
        _keep_fixed(manager, train)
    return problems


def _sections(root: Node) -> tuple[dict[str, Node], list[Problem]]:
    """The automations' sections by key, taken out from wherever they stand."""
    train = root.section.get("train")
    manager = None if train is None else train.section.get(MANAGER)
    found: dict[str, Node] = {}
    problems: list[Problem] = []
    for place in (manager, train, root):
        for written in [] if place is None else list(place.section):
            name = SPELLINGS.get(AUTOMATIONS.normalize(written))
            if place is None or name is None:
                continue
            node = place.section.pop(written)
            present = found.setdefault(name, node)
            if present is not node:
                first, second = sorted((present, node), key=lambda each: each.line or 0)
                problems.append(twice(second, first))
    return found, problems


def _manager(root: Node, first: Node | None) -> Node | None:
    """The section that holds them all; made where there is none, but automations are."""
    train = root.section.get("train")
    manager = None if train is None else train.section.get(MANAGER)
    if manager is None and first is not None:
        train = root.child("train", {}, first.line) if train is None or train.value is None else train
        manager = train.child(MANAGER, {}, first.line)
    return manager


def _open(node: Node) -> bool:
    """A section written as true, false or nothing becomes one; whether it is one now."""
    if node.value is None:
        node.value = {}
    elif isinstance(node.value, bool):
        node.value = {"enabled": Node(node.value, node.line, node.written, node.file)}
    return isinstance(node.value, dict)


def _not_a_section(node: Node) -> Problem:
    return node.problem(f"found {shown(node.plain())}; accepted: a section, true or false")


def _settle(name: str, node: Node, total_iter: int, notices: list[Problem]) -> list[Problem]:
    """Bring one section into the form of a component's."""
    if not _open(node):
        return [_not_a_section(node)]
    section, problems = node.section, _fallback(name, node)
    written = section.pop("type", None)
    if written is not None and AUTOMATIONS.normalize(str(written.value)) != AUTOMATIONS.normalize(name):
        problems.append(written.problem(f"found {shown(written.plain())}; accepted: leaving it out"))
    node.child("type", TYPES[name])
    if name == RATE and "target_vram_usage" in section:
        message = f"belongs to {TYPES[BATCH]} and has no effect here"
        notices.append(section.pop("target_vram_usage").problem(message))
    for key in COUNTS:
        if key in section:
            section[key].value = _count(section[key], total_iter)
    return problems


def _count(node: Node, total_iter: int) -> Any:
    """A number of iterations as such; a value that is none stays, to be refused with the others."""
    try:
        return iterations(absolute(node.value, total_iter))
    except ValueError:
        return node.value


def _fallback(name: str, node: Node) -> list[Problem]:
    """Move the keys of `fallback` into the section."""
    accepted = FALLBACKS.get(name)
    if accepted is None or "fallback" not in node.section:
        return []
    fallback = node.section.pop("fallback")
    if fallback.value is not None and not isinstance(fallback.value, dict):
        message = f"found {shown(fallback.plain())}; accepted: a section with {', '.join(accepted)}"
        return [fallback.problem(message)]
    problems: list[Problem] = []
    for key, each in fallback.section.items():
        flat = f"fallback_{key}"
        if key not in accepted:
            problem = unknown_key(each.written, key, accepted)
            problems.append(each.problem(problem.message))
        elif name == STOPPING:
            if each.value not in (False, None):
                message = f"found {shown(each.plain())}; accepted: false: a run whose early stopping fails goes on"
                problems.append(each.problem(message))
        elif flat in node.section:
            problems.append(twice(each, node.section[flat]))
        else:
            node.section[flat] = each
    return problems


def _keep_fixed(manager: Node, train: Node) -> None:
    """While the clipping automation is off, `fallback_threshold` is the fixed threshold: if absent, train's own."""
    clipping, norm = manager.section[CLIPPING], train.section.get("grad_clip_max_norm")
    if "fallback_threshold" in clipping.section or CLIPPING in _active({MANAGER: manager.plain()}):
        return
    if norm is not None:
        clipping.section["fallback_threshold"] = Node(norm.value, norm.line, norm.written, norm.file)
    else:
        clipping.child("fallback_threshold", TrainOptions.model_fields["grad_clip_max_norm"].default)


def clip_threshold(train: TrainOptions) -> float | None:
    """The norm at which gradients are clipped from the start; None where they are not.

    With the clipping automation it is the one with which that begins, and while that is switched off its fallback.
    """
    clipping = train.training_automations.adaptive_gradient_clipping
    if not train.grad_clip:
        return None
    if clipping is None:
        return train.grad_clip_max_norm
    return clipping["initial_threshold" if CLIPPING in train.training_automations.active else "fallback_threshold"]


def automation_problems(data: Data) -> Iterator[Problem]:
    """What the automations that run need of other sections."""
    train = _section(data, "train")
    active = _active(train)
    if CLIPPING in active and train.get("grad_clip") is not True:
        message = "on without grad_clip; accepted: train.grad_clip: true, or enabled: false here"
        yield Problem(key=_key(CLIPPING), message=message)
    if STOPPING in active:
        needed = ("val_enabled", "metrics_enabled")
        off = [f"val.{name}: true" for name in needed if _section(data, "val").get(name) is not True]
        if off:
            message = (
                f"on without validations that compute a metric; accepted: {', '.join(off)}, or enabled: false here"
            )
            yield Problem(key=_key(STOPPING), message=message)
    anchor, labels = active.get(LOSSES, {}).get("anchor"), labels_of(train.get("losses"))
    if isinstance(anchor, str) and labels and anchor not in labels:
        message = f"found {anchor}; accepted: {', '.join(labels)}, the labels of train.losses{nearest(anchor, labels)}"
        yield Problem(key=_key(LOSSES, "anchor"), message=message)


def automation_notices(data: Data) -> Iterator[Problem]:
    """Automations that are off, and options that work against each other."""
    train = _section(data, "train")
    manager, active = _section(train, MANAGER), _active(train)
    written = [name for name in TYPES if name in manager]
    if written and not _is_on(manager):
        yield Problem(key=f"train.{MANAGER}", message=f"switched off, and with it {', '.join(written)}")
    elif written:
        off = (name for name in written if name not in active and isinstance(manager[name], dict))
        yield from (Problem(key=_key(name), message="switched off") for name in off)
    yield from _unused_shares(train.get("losses"), LOSSES in active)
    if LOSSES in active:
        yield from _undone_schedules(train)
    if CLIPPING in active and train.get("grad_clip_max_norm") is not None:
        message = f"has no effect with {CLIPPING}, which has thresholds of its own"
        yield Problem(key="train.grad_clip_max_norm", message=message)
    patience = _parameter(active, STOPPING, "patience")
    if patience is None:
        return
    every, plateau = _every(data), 0
    if RATE in active:
        plateau = _parameter(active, RATE, "plateau_patience") or PLATEAU
    if patience < plateau:
        message = f"{patience:,} is less than plateau_patience, {plateau:,}: it stops before the rate can be lowered"
        yield Problem(key=_key(STOPPING, "patience"), message=message)
    if every is not None and patience < every:
        message = f"{patience:,} is less than val_freq, {every:,}: one validation without an improvement ends the run"
        yield Problem(key=_key(STOPPING, "patience"), message=message)


def _unused_shares(losses: Any, scheduled: bool) -> Iterator[Problem]:
    """What entries of `train.losses` say for an automation that does not use it."""
    for index, entry in enumerate(cast("list[Any]", losses) if isinstance(losses, list) else []):
        values = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        for name in ("share", "fixed"):
            key = f"train.losses[{index}].{name}"
            if values.get(name) in (None, False):
                continue
            if not scheduled:
                yield Problem(key=key, message=f"has no effect without {LOSSES}")
            elif name == "share" and values.get("fixed") is True:
                yield Problem(key=key, message="has no effect with fixed: true")


def _undone_schedules(train: Data) -> Iterator[Problem]:
    """Weights that a schedule changes for a time only, since a share is reached again after it."""
    losses, moved = train.get("losses"), labels_moved(train.get("loss_scheduler"))
    labels = labels_of(losses)
    for index, entry in enumerate(cast("list[Data]", losses) if labels else []):
        if entry.get("share") is None or entry.get("fixed") is True:
            continue
        what = [name for name in ("target_weight", "knots") if entry.get(name) is not None]
        what += ["loss_scheduler"] if labels[index] in moved else []
        if what:
            message = f"holds whatever the weight is: what {' and '.join(what)} changes is undone afterwards"
            yield Problem(key=f"train.losses[{index}].share", message=message)


def _key(name: str, key: str = "") -> str:
    return join(f"train.{MANAGER}.{name}", key)


def _active(train: Data) -> dict[str, Data]:
    """The sections of the automations that run, as they are written."""
    manager = _section(train, MANAGER)
    sections = {name: _section(manager, name) for name in TYPES if isinstance(manager.get(name), dict)}
    return {name: section for name, section in sections.items() if _is_on(manager) and _is_on(section)}


def _is_on(section: Data) -> bool:
    return section.get("enabled", True) is True


def _parameter(active: Mapping[str, Data], name: str, key: str) -> Any:
    """A parameter of an automation that runs, or its default; None where that cannot be said."""
    own = {each: value for each, value in active.get(name, {}).items() if each not in AutomationEntry.model_fields}
    try:
        return AUTOMATIONS.validate(own)[key] if own else None
    except ConfigError:
        return None


def _every(data: Data) -> int | None:
    try:
        return iterations(_section(data, "val").get("val_freq"))
    except ValueError:
        return None


def _section(data: Data, name: str) -> Data:
    value = data.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
