"""All image files are looked at before the first iteration: headers only, in parallel, remembered between runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from traiNNer.data.dataset import Headers, ImageDataset
from traiNNer.utils.atomic import atomic_write
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.image_headers import ImageHeader
from traiNNer.utils.images import ImageError, image_header

LISTED = 20
"""So many files of a data set are named; the rest is counted."""

_CHUNK = 64
_THREADS = 16
_CACHE_VERSION = 1

_Stamp = tuple[int, int]
_Cache = dict[str, tuple[_Stamp, ImageHeader]]


class HeaderCache:
    """Headers of image files that earlier runs have read, by path, size and time of change.

    Args:
        file: where they are kept between runs; None to keep none.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._before: _Cache = {} if file is None else _read_cache(file)
        self._known = self._before

    def headers(self, files: Iterable[str]) -> Headers:
        """The header of each file, or why it has none."""
        found = _known_headers(files, self._before)
        self._known = {file: header for file, header in found.items() if not isinstance(header, str)}
        return {file: header if isinstance(header, str) else header[1] for file, header in found.items()}

    def write(self) -> None:
        """Keep what was read last; to be called once nothing stands in the way of the run."""
        if self._file is not None and self._known != self._before:
            _write_cache(self._file, self._known)


def check_datasets(datasets: Mapping[str, ImageDataset], cache: HeaderCache | None = None) -> list[str]:
    """Check every file of the data sets by its header.

    Args:
        datasets: by the name of their section, such as `train` and `val`.
        cache: headers that need not be read again; nothing is written.

    Returns:
        Remarks for the log, such as transparency that will be dropped.

    Raises:
        ConfigError: files without a partner, unreadable, of the wrong size ratio, smaller than the crop; one problem
            for each data set, under its section's name, which names the files.
    """
    files = dict.fromkeys(file for dataset in datasets.values() for file in dataset.files())
    headers = (cache or HeaderCache()).headers(files)
    problems, remarks = [], []
    for section, dataset in datasets.items():
        found = dataset.check(headers)
        if found:
            problems.append(_problem(section, dataset, found))
        elif len(dataset) == 0:
            problems.append(_problem(section, dataset, ["there are no images"]))
        transparent = sum(1 for file in dataset.files() if _has_alpha(headers[file]))
        if transparent:
            count = f"{transparent} of {len(dataset.files())} files"
            remarks.append(f"datasets.{section} ({dataset.name}): {count} have transparency, which is dropped")
    if problems:
        raise ConfigError(problems)
    return remarks


def _problem(section: str, dataset: ImageDataset, found: list[str]) -> Problem:
    lines = [f"{len(found)} problem{'s' if len(found) > 1 else ''} with the files of {dataset.name or section}:"]
    lines += [f"  {line}" for line in found[:LISTED]]
    if len(found) > LISTED:
        lines.append(f"  and {len(found) - LISTED} more")
    return Problem(key=section, message="\n".join(lines))


def _has_alpha(header: ImageHeader | str) -> bool:
    return isinstance(header, ImageHeader) and header.alpha


def _known_headers(files: Iterable[str], cache: _Cache) -> dict[str, tuple[_Stamp, ImageHeader] | str]:
    """By file: its stamp and header, or in words why there is none. Threads, because disks answer late."""
    files = list(files)
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]

    def look(chunk: list[str]) -> list[tuple[_Stamp, ImageHeader] | str]:
        return [_look_at(file, cache.get(file)) for file in chunk]

    with ThreadPoolExecutor(_THREADS) as threads:
        return {
            file: found
            for chunk, answers in zip(chunks, threads.map(look, chunks), strict=True)
            for file, found in zip(chunk, answers, strict=True)
        }


def _look_at(file: str, known: tuple[_Stamp, ImageHeader] | None) -> tuple[_Stamp, ImageHeader] | str:
    try:
        status = os.stat(file)
        stamp = (status.st_size, status.st_mtime_ns)
        return known if known is not None and known[0] == stamp else (stamp, image_header(file))
    except ImageError as error:
        return error.reason
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _read_cache(cache_file: Path) -> _Cache:
    """What an earlier run wrote; nothing if there is none, or it is damaged."""
    try:
        stored: Any = json.loads(cache_file.read_text(encoding="utf-8"))
        if stored["version"] != _CACHE_VERSION:
            return {}
        return {file: ((size, time), ImageHeader(*header)) for file, (size, time, *header) in stored["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_cache(cache_file: Path, known: _Cache) -> None:
    """Only speed depends on it, so that a folder that cannot be written is no error."""
    files = {file: [*stamp, *header] for file, (stamp, header) in known.items()}
    with suppress(OSError):
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(cache_file, json.dumps({"version": _CACHE_VERSION, "files": files}))
