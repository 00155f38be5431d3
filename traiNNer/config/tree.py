"""The node tree of an option file: values together with where the user wrote them.

Renaming and moving keys happens here, so that a message still names the line and the key that stand in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from traiNNer.utils.errors import Problem

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"


@dataclass(slots=True)
class Node:
    """One value of an option file."""

    value: Value
    line: int | None
    """Line of its key, or of itself in a list, counted from 1; None when it comes from the command line."""
    written: str
    """Key path as it stands in the file, which differs from its place in the tree once it was moved."""
    file: str

    @property
    def section(self) -> dict[str, Node]:
        """Its entries if it is a section, else nothing."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """Its elements if it is a list, else nothing."""
        return self.value if isinstance(self.value, list) else []

    def child(self, name: str, value: Value, line: int | None = None) -> Node:
        """A new entry of this section, standing at `line` or, when the file does not contain it, at the section's."""
        node = Node(value, self.line if line is None else line, join(self.written, name), self.file)
        self.section[name] = node
        return node

    def problem(self, message: str) -> Problem:
        """A mistake at this node."""
        return Problem(key=self.written, message=message, file=self.file, line=self.line)

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def join(parent: str, rest: str) -> str:
    """A key path under another: `train` and `losses[2]` are `train.losses[2]`."""
    return f"{parent}{'' if not parent or not rest or rest.startswith('[') else '.'}{rest}"


def locate(root: Node, key: str) -> tuple[Node, str]:
    """The node at a key path, or its nearest parent that exists, and the rest of the path.

    Keys may contain dots themselves: the longest entry that fits is taken.
    """
    node, rest = root, key
    while rest:
        if rest.startswith("["):
            index, _, after = rest[1:].partition("]")
            if not index.isdigit() or int(index) >= len(node.items):
                break
            node, rest = node.items[int(index)], after.removeprefix(".")
            continue
        names = [name for name in node.section if rest == name or rest.startswith((f"{name}.", f"{name}["))]
        if not names:
            break
        name = max(names, key=len)
        node, rest = node.section[name], rest[len(name) :].removeprefix(".")
    return node, rest


def problem_at(root: Node, key: str, message: str) -> Problem:
    """A mistake at a key path of the tree, with the file, line and key that the user sees."""
    node, rest = locate(root, key)
    return Problem(key=join(node.written, rest), message=message, file=node.file, line=node.line)


def put(root: Node, key: str, value: Scalar, *, line: int | None, file: str) -> None:
    """Set the option at a dotted key path, making the sections on the way."""
    *parents, last = key.split(".")
    node = root
    for name in parents:
        found = node.section.get(name)
        node = node.child(name, {}) if found is None or found.value is None else found
    if isinstance(node.value, dict):
        node.value[last] = Node(value, line, key, file)
