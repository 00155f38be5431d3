"""Which LQ file belongs to which GT file."""

from __future__ import annotations

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


def pair_by_name(
    gt_root: Path, gt_files: Sequence[Path], lq_root: Path, lq_files: Sequence[Path], *, template: str, all_lq: bool
) -> Pairs:
    """Pair files of the same place under their folders, whatever their suffixes.

    Args:
        gt_root: folder of the GT files.
        gt_files: files under it.
        lq_root: folder of the LQ files.
        lq_files: files under it. Of several candidates the one with GT's own suffix is taken.
        template: name of the LQ file without suffix; {} is the GT file's.
        all_lq: an LQ file without a GT partner is a problem.
    """
    by_place: dict[str, list[Path]] = defaultdict(list)
    for file in lq_files:
        by_place[_place(file, lq_root, "{}")].append(file)
    pairs = Pairs([], [], [])
    for gt in gt_files:
        place = _place(gt, gt_root, template)
        candidates = by_place.get(place, [])
        if len(candidates) > 1:
            candidates = [file for file in candidates if file.suffix == gt.suffix] or candidates
        if len(candidates) == 1:
            pairs.lq.append(str(candidates[0]))
            pairs.gt.append(str(gt))
        elif candidates:
            pairs.problems.append(f"{gt}: has several LQ partners: {', '.join(map(str, candidates))}")
        else:
            pairs.problems.append(f"{gt}: has no LQ partner {place}.* in {lq_root}")
    if all_lq:
        wanted = {_place(gt, gt_root, template) for gt in gt_files}
        leftover = [file for place, files in by_place.items() if place not in wanted for file in files]
        pairs.problems.extend(f"{file}: is LQ without a GT partner in {gt_root}" for file in leftover)
    return pairs


def _place(file: Path, root: Path, template: str) -> str:
    relative = file.relative_to(root)
    return relative.with_name(template.format(relative.stem)).as_posix()


def names_in_meta_info(meta_info: Path) -> list[str]:
    """The GT names of a meta_info file: one a line, with or without BasicSR's ` (480,480,3)` after it.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no text.
    """
    lines = meta_info.read_text(encoding="utf-8-sig").splitlines()
    return [_SIZE.sub("", line.strip()).replace("\\", "/") for line in lines if line.strip()]


def select_named(files: Sequence[Path], root: Path, names: Sequence[str]) -> list[Path]:
    """The files that are named, in the order of the names."""
    by_name = {file.relative_to(root).as_posix(): file for file in files}
    return [by_name[name] for name in names if name in by_name]
