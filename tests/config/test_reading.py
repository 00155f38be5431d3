"""YAML as version 1.2 defines it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from traiNNer.config.reading import parse
from traiNNer.config.tree import locate

# What YAML 1.1 (plain PyYAML) would read differently is among them: 2e-4, 010, on, yes, 1_000, 1:30, dates, 0b1.
TABLE = {
    "2e-4": 2e-4,
    "2E+4": 2e4,
    "1.": 1.0,
    ".5": 0.5,
    "-1.5e3": -1500.0,
    "+7": 7,
    "010": 10,
    "0o17": 15,
    "0x1F": 31,
    "0b1": "0b1",
    "1_000": "1_000",
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "on": "on",
    "off": "off",
    "yes": "yes",
    "no": "no",
    "y": "y",
    "true": True,
    "True": True,
    "FALSE": False,
    "tRue": "tRue",
    "~": None,
    "null": None,
    "": None,
    "Null": None,
    ".inf": math.inf,
    "-.INF": -math.inf,
    "inf": "inf",
    "nan": "nan",
    "'1'": "1",
    '"true"': "true",
    "!!float 2e-4": 2e-4,
    "!!float 1": 1.0,
    "!!int 3": 3,
    "!!str 3": "3",
    "!!bool true": True,
    "=": "=",
    "1e": "1e",
    "e5": "e5",
    ".": ".",
    "+": "+",
    "1.2.3": "1.2.3",
    "C:\\images": "C:\\images",
}


@pytest.mark.parametrize("written", TABLE)
def test_scalars(written: str) -> None:
    tree, problems = parse(f"a: {written}\n", "x.yml")

    value: Any = tree.plain()["a"]
    assert problems == []
    assert value == TABLE[written]
    assert type(value) is type(TABLE[written])


def test_not_a_number() -> None:
    assert math.isnan(parse("a: .nan", "x.yml")[0].plain()["a"])


def test_lines_and_written_keys() -> None:
    text = "a: 1\n\nb:\n  # why\n  c: [1,\n    2]\n  d:\n    - e: 5\n    -\n      f: 6\n"
    tree, _ = parse(text, "x.yml")

    places = {key: locate(tree, key)[0] for key in ("a", "b", "b.c", "b.c[1]", "b.d[0].e", "b.d[1]", "b.d[1].f")}

    assert {key: node.line for key, node in places.items()} == {
        "a": 1, "b": 3, "b.c": 5, "b.c[1]": 6, "b.d[0].e": 8, "b.d[1]": 10, "b.d[1].f": 10,
    }  # fmt: skip
    assert all(node.written == key for key, node in places.items())


def test_anchors_and_merge_keys() -> None:
    text = "base: &base {x: 1, y: 2}\nother: &other {y: 5, z: 6}\nout:\n  <<: [*base, *other]\n  x: 7\nagain: *base\n"
    tree, problems = parse(text, "x.yml")

    assert problems == []
    assert tree.plain()["out"] == {"x": 7, "y": 2, "z": 6}
    assert tree.plain()["again"] == {"x": 1, "y": 2}


def test_keys_with_dots_are_found() -> None:
    tree, _ = parse("a:\n  b.c:\n    d: 1\n", "x.yml")

    node, rest = locate(tree, "a.b.c.d")

    assert (node.line, rest) == (3, "")


def test_the_longest_key_that_fits_is_meant() -> None:
    tree, _ = parse("a: {b: 1}\na.b: {c: 2}\n", "x.yml")

    assert locate(tree, "a.b.c")[0].line == 2


def test_windows_line_ends_and_byte_order_marks(tmp_path) -> None:
    from traiNNer.config.reading import read_file

    path = tmp_path / "x.yml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: \xc3\xa9\r\n")

    tree, _ = parse(read_file(path), "x.yml")

    assert tree.plain() == {"a": 1, "b": "é"}
    assert tree.section["b"].line == 2
