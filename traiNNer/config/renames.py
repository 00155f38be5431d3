"""Keys that moved, and keys that are not supported yet, settled in the node tree so that lines stay true.

A key once released is renamed only here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from traiNNer.config.tree import Node
from traiNNer.config.vocabulary import OLD_LOSSES, SECTIONS, SET_BY_PROGRAM, Later
from traiNNer.utils.errors import Problem
from traiNNer.utils.kl_names import KL_NAMES, KL_TYPE, is_kl, kl_defaults

RENAMED: dict[str, str] = {
    name: f"train.{name}" for name in ("losses", "loss_scheduler", "training_automations", *KL_NAMES)
}
"""Old key path to new one: both are read, one at a time."""


def rename(root: Node, notices: list[Problem]) -> list[Problem]:
    """Move old keys to where they belong now and take out those that are not supported yet."""
    problems = [problem for old, new in RENAMED.items() for problem in _move(root, old, new)]
    problems += _old_losses(root)
    problems += _kl_names(root)
    for name in SET_BY_PROGRAM:
        if name in root.section:
            problems.append(root.section.pop(name).problem("set by the program itself; accepted: leaving it out"))
    for path, table in SECTIONS.items():
        section = root.section.get(path) if path else root
        if section is not None:
            problems += take_out(section, table, notices)
    return problems


def _move(root: Node, old: str, new: str) -> list[Problem]:
    """Move a top-level key into a section."""
    parent_name, _, name = new.partition(".")
    node = root.section.pop(old, None)
    if node is None:
        return []
    parent = root.section.get(parent_name) or root.child(parent_name, {}, node.line)
    present = parent.section.get(name)
    if present is not None:
        return [twice(node, present)]
    parent.section[name] = node
    return []


def twice(node: Node, present: Node) -> Problem:
    """The mistake of two nodes that say the same thing."""
    return node.problem(f"the same as {present.written} in line {present.line}; accepted: one of them")


def _old_losses(root: Node) -> list[Problem]:
    """`train.pixel_opt` and the like become entries of `train.losses`, after those that stand there."""
    train = root.section.get("train")
    if train is None:
        return []
    problems: list[Problem] = []
    entries: list[Node] = []
    for name in [name for name in train.section if name in OLD_LOSSES]:
        entry = train.section.pop(name)
        if entry.value is None:
            continue
        if not isinstance(entry.value, dict):
            problems.append(entry.problem("found something else; accepted: a section with the options of a loss"))
            continue
        default = OLD_LOSSES[name]
        if default is not None and "type" not in entry.section:
            entry.child("type", default)
        entries.append(entry)
    if entries:
        _append_losses(train, entries)
    return problems


def _append_losses(train: Node, entries: Sequence[Node]) -> None:
    losses = train.section.get("losses")
    if losses is None or losses.value is None:
        losses = train.child("losses", [], entries[0].line)
    losses.items.extend(entries)


def _kl_names(root: Node) -> list[Problem]:
    """`train.kl_beta` and the like become an entry of `train.losses`, and in an entry the keys that they stand for."""
    train = root.section.get("train")
    if train is None:
        return []
    problems: list[Problem] = []
    losses = train.section.get("losses")
    entries = [entry for entry in (losses.items if losses else []) if is_kl(_value(entry, "type"))]
    written = {name: train.section.pop(name) for name in KL_NAMES if name in train.section}
    written = {name: node for name, node in written.items() if node.value is not None}
    if written:
        first = next(iter(written.values()))
        entry = Node(dict(written), first.line, first.written, first.file)
        entry.child("type", KL_TYPE)
        if entries:
            problems.append(twice(entry, entries[0]))
        else:
            _append_losses(train, [entry])
            entries = [entry]
    return [*problems, *(problem for entry in entries for problem in _kl_entry(entry))]


def _kl_entry(entry: Node) -> list[Problem]:
    """Put the keys of a schedule in place of the names in `KL_NAMES`."""
    problems: list[Problem] = []
    section = entry.section
    for name in [name for name in KL_NAMES if name in section and section[name].value is None]:
        del section[name]
    defaults = kl_defaults([name for name, node in section.items() if node.value is not None])
    for name, key in KL_NAMES.items():
        if name in section and _value(entry, key) is not None:
            problems.append(twice(section.pop(name), section[key]))
        elif name in section:
            section[key] = section.pop(name)
    for key, value in defaults.items():
        entry.child(key, value)
    return problems


def _value(section: Node, name: str) -> object:
    node = section.section.get(name)
    return None if node is None else node.value


def take_out(
    section: Node, table: Mapping[str, Later], notices: list[Problem], *, but: Sequence[str] = ()
) -> list[Problem]:
    """Remove the keys of `table` from a section: with a notice where they change nothing, else as problems.

    Args:
        section: a node with entries.
        table: what is not supported yet.
        notices: takes one line per key that is left out.
        but: names that are supported here after all.
    """
    problems: list[Problem] = []
    off = {name for name, node in section.section.items() if node.value is False}
    for name in [name for name in section.section if name in table and name not in but]:
        node, later = section.section.pop(name), table[name]
        value = node.plain()
        if value is None:
            continue
        if later.switch in off or any(_same(value, harmless) for harmless in later.off):
            notices.append(node.problem("not supported yet; switched off here, so it is left out"))
        else:
            problems.append(node.problem(f"not supported yet; accepted: leaving it out{_or_off(later)}"))
    return problems


def _same(value: object, harmless: object) -> bool:
    """Equality in which false is not 0; a section switched off may hold more."""
    if harmless == {"enabled": False} and isinstance(value, dict):
        return value.get("enabled") is False  # type: ignore[reportUnknownMemberType]
    return type(value) is type(harmless) and value == harmless


def _or_off(later: Later) -> str:
    if later.switch is not None:
        return f", or {later.switch}: false"
    shown = [str(value).lower() for value in later.off if not isinstance(value, dict)]
    return f", or {shown[0]}" if shown else ""
