"""YAML text to a node tree: PyYAML's safe loader with the numbers and booleans of YAML 1.2's core schema.

PyYAML alone follows YAML 1.1, where `2e-4` is text, `010` is 8 and `on` is true; here they are 0.0002, 10 and text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode

from traiNNer.config.tree import Node, Scalar, join
from traiNNer.utils.errors import ConfigError, Problem

TAG = "tag:yaml.org,2002:"
MAX_DEPTH = 60
MAX_VALUES = 50_000
"""More than any option file needs; aliases that repeat aliases could fill the memory otherwise."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """The safe loader; plain scalars are resolved by YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _name, _pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):
    cast("Any", _Loader).add_implicit_resolver(TAG + _name, re.compile(f"(?:{_pattern.pattern})$"), None)


def _to_int(text: str) -> int:
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _to_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, tuple[re.Pattern[str], Callable[[str], Scalar], str]] = {
    "null": (_NULL, lambda _: None, "nothing or null"),
    "bool": (_BOOL, lambda text: text.lower() == "true", "true or false"),
    "int": (_INT, _to_int, "a whole number"),
    "float": (_FLOAT, _to_float, "a number"),
    "str": (re.compile(r"(?s:.*)"), str, "text"),
}
"""By tag: the accepted form, how it is read, what messages call it."""

_YamlNode: TypeAlias = "ScalarNode | SequenceNode | MappingNode"


def read_file(path: Path) -> str:
    """The text of an option file, UTF-8 with or without a byte order mark.

    Raises:
        ConfigError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"found the byte 0x{error.object[error.start]:02x}, which is not UTF-8; accepted: UTF-8 text"
        raise ConfigError(Problem(message=message, file=str(path), line=line)) from None
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error.strerror or error)
        message = f"the option file cannot be read: {reason}; accepted: a YAML file"
        raise ConfigError(Problem(message=message, file=str(path))) from None


def parse(text: str, file: str) -> tuple[Node, list[Problem]]:
    """The node tree of an option file, and the mistakes that leave the rest of it readable (duplicate keys, tags).

    Raises:
        ConfigError: the text is not YAML, or not a section of keys and values.
    """
    try:
        document = cast("_YamlNode | None", cast("Any", yaml).compose(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_problem(error, text, file)) from None
    except RecursionError:
        raise ConfigError(Problem(message=_TOO_DEEP, file=file, line=1)) from None
    if not isinstance(document, MappingNode):
        found = "an empty file" if document is None else "a list" if isinstance(document, SequenceNode) else "text"
        message = f"found {found}; accepted: a file of `key: value` lines"
        raise ConfigError(Problem(message=message, file=file, line=1))
    builder = _Builder(file)
    root = builder.build(document, written="", line=1, depth=0)
    return root, builder.problems


_TOO_DEEP = f"values are nested too deeply; accepted: at most {MAX_DEPTH} levels"


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        what = " ".join(filter(None, [getattr(error, "context", None), getattr(error, "problem", None)]))
        line = mark.line + 1
    else:  # a character that YAML does not allow; the reader knows its position only
        what, line = str(error).splitlines()[0], text.count("\n", 0, getattr(error, "position", 0)) + 1
    hint = ", indented with spaces, not tabs" if "'\\t'" in what else ""
    return Problem(message=f"YAML syntax error {what}; accepted: valid YAML{hint}", file=file, line=line)


class _Builder:
    """Turns PyYAML's nodes into ours; collects problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._values = 0

    def build(self, source: Any, *, written: str, line: int, depth: int) -> Node:
        self._values += 1
        if depth > MAX_DEPTH:
            raise ConfigError(Problem(key=written[:60], message=_TOO_DEEP, file=self.file, line=line))
        if self._values > MAX_VALUES:
            message = f"aliases unfold to too much; accepted: at most {MAX_VALUES} values in a file"
            raise ConfigError(Problem(message=message, file=self.file, line=line))
        node = Node(None, line, written, self.file)
        if isinstance(source, MappingNode) and source.tag == f"{TAG}map":
            node.value = self._section(source, written, depth)
        elif isinstance(source, SequenceNode) and source.tag == f"{TAG}seq":
            node.value = [
                self.build(item, written=f"{written}[{index}]", line=line_of(item), depth=depth + 1)
                for index, item in enumerate(cast("list[_YamlNode]", source.value))
            ]
        elif isinstance(source, ScalarNode):
            node.value = self._scalar(source, node)
        else:
            self._refuse_tag(source, node)
        return node

    def _section(self, source: MappingNode, written: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in cast("list[tuple[_YamlNode, _YamlNode]]", source.value):
            line = line_of(key)
            if not isinstance(key, ScalarNode):
                message = "found a list or section as a key; accepted: text as a key"
                self.problems.append(Problem(key=written, message=message, file=self.file, line=line))
                continue
            name = str(key.value)
            if name == "<<":
                self._merge(value, merged, written, depth)
                continue
            node = self.build(value, written=join(written, name), line=line, depth=depth + 1)
            if name in entries:
                self.problems.append(node.problem(f"written twice, first in line {entries[name].line}; accepted: once"))
            else:
                entries[name] = node
        return {**merged, **entries}

    def _merge(self, source: _YamlNode, merged: dict[str, Node], written: str, depth: int) -> None:
        """`<<: *anchor`, YAML's merge key: what the section itself writes wins, then the first anchor."""
        sources = cast("list[_YamlNode]", source.value) if isinstance(source, SequenceNode) else [source]
        for one in sources:
            node = self.build(one, written=written, line=line_of(one), depth=depth + 1)
            if not isinstance(node.value, dict):
                message = "found a merge key (<<) of something else; accepted: an alias of a section"
                self.problems.append(Problem(key=written, message=message, file=self.file, line=node.line))
            for name, entry in node.section.items():
                merged.setdefault(name, entry)

    def _scalar(self, source: ScalarNode, node: Node) -> Scalar:
        tag, text = str(source.tag), str(source.value)
        if tag.removeprefix(TAG) not in _SCALARS or not tag.startswith(TAG):
            self._refuse_tag(source, node)
            return None
        pattern, read, accepted = _SCALARS[tag.removeprefix(TAG)]
        try:
            if pattern.fullmatch(text):
                return read(text)
        except ValueError:  # more digits than Python converts
            pass
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        self.problems.append(node.problem(f"found {shown!r} tagged !!{tag.removeprefix(TAG)}; accepted: {accepted}"))
        return None

    def _refuse_tag(self, source: _YamlNode, node: Node) -> None:
        tag = str(source.tag).replace(TAG, "!!")
        message = f"found the tag {tag}; accepted: plain values, !!float, !!int, !!bool, !!str and !!null"
        self.problems.append(node.problem(message))


def line_of(node: _YamlNode) -> int:
    """Line of a YAML node, counted from 1."""
    return int(node.start_mark.line) + 1
