"""Which LQ file belongs to which GT file. Names are relative to their folder, with forward slashes."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_SIZE = re.compile(r"\s+\(\s*\d+\s*,.*$")
"""The ` (480,480,3)` after a name in BasicSR's meta_info files."""


class Pairs(NamedTuple):
    """Paths of LQ and GT side by side, and what did not fit."""

    lq: list[str]
    gt: list[str]
    problems: list[str]


class ImageFolder(NamedTuple):
    """A folder and the names of images in it."""

    root: str
    names: Sequence[str]

    def path(self, name: str) -> str:
        """The path of one of them, as this system writes it."""
        return os.path.normpath(os.path.join(self.root, name))


def pair_by_name(gt: ImageFolder, lq: ImageFolder, *, template: str, all_lq: bool) -> Pairs:
    """Pair files of the same place under their folders, whatever their suffixes.

    Args:
        gt: GT files.
        lq: LQ files. Of several candidates the one with GT's own suffix is taken.
        template: name of the LQ file without suffix; {} is the GT file's.
        all_lq: an LQ file without a GT partner is a problem.
    """
    by_place: dict[str, list[str]] = defaultdict(list)
    for name in lq.names:
        by_place[posixpath.splitext(name)[0]].append(name)
    pairs = Pairs([], [], [])
    wanted: set[str] = set()
    for name in gt.names:
        place, suffix = _lq_place(name, template)
        wanted.add(place)
        candidates = by_place.get(place, [])
        if len(candidates) > 1:
            candidates = [candidate for candidate in candidates if candidate.endswith(suffix)] or candidates
        if len(candidates) == 1:
            pairs.lq.append(lq.path(candidates[0]))
            pairs.gt.append(gt.path(name))
        elif candidates:
            pairs.problems.append(f"{gt.path(name)}: has several LQ partners: {', '.join(map(lq.path, candidates))}")
        else:
            pairs.problems.append(f"{gt.path(name)}: has no LQ partner {lq.path(place)}.*")
    if all_lq:
        leftover = [name for place, names in by_place.items() if place not in wanted for name in names]
        pairs.problems.extend(f"{lq.path(name)}: is LQ without a GT partner in {gt.root}" for name in leftover)
    return pairs


def _lq_place(gt_name: str, template: str) -> tuple[str, str]:
    """Where the LQ file must be, without suffix, and GT's suffix."""
    folder, file = posixpath.split(gt_name)
    stem, suffix = posixpath.splitext(file)
    return posixpath.join(folder, template.format(stem)), suffix


def names_in_meta_info(meta_info: Path) -> list[str]:
    """The GT names of a meta_info file: one a line, with or without BasicSR's ` (480,480,3)` after it.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no text.
    """
    lines = meta_info.read_text(encoding="utf-8-sig").splitlines()
    return [_SIZE.sub("", line.strip()).replace("\\", "/") for line in lines if line.strip()]


def select_named(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The wanted names that are there, in the order in which they are wanted."""
    there = set(names)
    return [name for name in wanted if name in there]
