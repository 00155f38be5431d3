"""What the images of a data set are like: the measures of seeded random crops, remembered between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traiNNer.data.dataset import FieldDataset, ImageDataset
from traiNNer.data.paired_image_dataset import PairedImageDataset
from traiNNer.utils.atomic import atomic_write
from traiNNer.utils.image_measures import SMALLEST, ImageMeasures, measure_image
from traiNNer.utils.images import image_size, read_image

CROPS = 512
"""The most crops that are measured."""

CROP = 256
"""Side of a crop, px; or the image's where that is smaller."""

_PIXELS = 512 * 2**20
"""So many are decoded at most, in some 10 s on two cores; of large images not all are read, but several crops each."""
_LEAST_IMAGES = 32
_SIZED = 64
"""So many headers are read to know how large the images are."""
_SPREAD = np.array([0.7548776662466927, 0.5698402909980532])
"""1/g and 1/g^2 with g^3 = g + 1: multiples of it, modulo 1, cover a square evenly (Roberts's sequence R2)."""
_CACHE_FILE = "image_measures.json"
_CACHE_VERSION = 1
_REMEMBERED = 50
_DRAW = 0x6D656173  # keeps its random numbers apart from others of the same seed
_STAT_THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a data set's images are like."""

    medians: ImageMeasures
    """Each measure's median over the crops."""
    crops: int
    """How many different ones were measured."""
    images: int
    """Files that they come from."""


def measure_dataset(dataset: ImageDataset, *, seed: int, cache_folder: Path | None = None) -> Measures | str:
    """Measure at most `CROPS` random crops of a data set's GT (of its LQ where it has nothing else).

    Images count alike, as they do in training. The same files (names, sizes, times of change) and seed give the same
    crops; then an earlier result is taken from the cache.

    Args:
        dataset: images, in pairs or alone.
        seed: of the choice of images and crops.
        cache_folder: where results are kept between runs; None to keep none.

    Returns:
        The measures, or in words why there are none.

    Raises:
        ImageError: a file cannot be read.
    """
    if isinstance(dataset, FieldDataset):
        return "it holds fields, and the measures are those of images"
    files = dataset.gt_paths if isinstance(dataset, PairedImageDataset) else dataset.inputs()
    if not files:
        return "it has no images"
    cache = None if cache_folder is None else cache_folder / _CACHE_FILE
    known = {} if cache is None else _read_cache(cache)
    key = _key(files, seed)
    found = _measures(known.get(key)) or measure_files(files, seed=seed)
    if found is None:
        return f"none of its images has {SMALLEST} px a side"
    if cache is not None and key not in known:
        _write_cache(cache, {**known, key: asdict(found)})
    return found


def measure_files(files: Sequence[str], *, seed: int) -> Measures | None:
    """Measure crops of image files, as `measure_dataset` does; None if all are too small.

    Raises:
        ImageError: a file cannot be read.
    """
    generator = np.random.Generator(np.random.PCG64([_DRAW, seed]))
    chosen = [files[int(index)] for index in generator.permutation(len(files))[:CROPS]]
    pixels = np.mean([height * width for height, width in map(image_size, chosen[:_SIZED])])
    chosen = chosen[: max(_LEAST_IMAGES, int(_PIXELS // pixels))]
    each, more = divmod(CROPS, len(chosen))
    counts = [each + (place < more) for place in range(len(chosen))]
    starts = generator.random((len(chosen), 2))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:  # decoding and OpenCV leave Python's lock
        rows = list(threads.map(_measure_crops, chosen, counts, starts))
    values = np.array([row for found in rows for row in found])
    if not values.size:
        return None
    names = ImageMeasures.names()
    medians = np.median(values[:, :-1], axis=0)
    return Measures(
        medians=ImageMeasures(**dict(zip(names, map(float, medians), strict=True))),
        crops=int(values[:, -1].sum()),
        images=sum(1 for found in rows if found),
    )


def _measure_crops(file: str, count: int, start: np.ndarray) -> list[list[float]]:
    """A row for each crop of an image: its measures, and whether they were not there yet (1) or repeat one (0).

    Corners are spread evenly from a random start: two draws differ less than with independent ones.
    """
    image = read_image(file)
    if min(image.shape[:2]) < SMALLEST:
        return []
    height, width = (min(CROP, side) for side in image.shape[:2])
    room = np.array([image.shape[0] - height + 1, image.shape[1] - width + 1])
    known: dict[tuple[int, int], list[float]] = {}
    rows: list[list[float]] = []
    for place in (start + np.arange(count)[:, None] * _SPREAD) % 1.0:
        top, left = (int(corner) for corner in place * room)
        new = (top, left) not in known
        if new:
            crop = image[top : top + height, left : left + width]
            known[top, left] = list(measure_image(crop).by_name().values())
        rows.append([*known[top, left], float(new)])
    return rows


def _key(files: Sequence[str], seed: int) -> str:
    """A digest of all that the result depends on."""

    def stamp(file: str) -> str:
        try:
            status = os.stat(file)
        except OSError:
            return f"{file}\0missing\n"
        return f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"

    digest = hashlib.sha256(f"{_CACHE_VERSION} {seed} {CROPS} {CROP}\n".encode())
    with ThreadPoolExecutor(_STAT_THREADS) as threads:  # disks answer late
        for line in threads.map(stamp, files):
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _measures(stored: Any) -> Measures | None:
    """What a cache holds under a key; None if it is nothing that this program wrote."""
    try:
        medians = ImageMeasures(**{name: float(stored["medians"][name]) for name in ImageMeasures.names()})
        return Measures(medians=medians, crops=int(stored["crops"]), images=int(stored["images"]))
    except (KeyError, TypeError, ValueError):
        return None


def _read_cache(file: Path) -> dict[str, Any]:
    """What earlier runs wrote; nothing if there is none, or it is damaged."""
    try:
        stored: Any = json.loads(file.read_text(encoding="utf-8"))
        return dict(stored["sets"]) if stored["version"] == _CACHE_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_cache(file: Path, sets: dict[str, Any]) -> None:
    """Only speed depends on it, so that a folder that cannot be written is no error."""
    newest = dict(list(sets.items())[-_REMEMBERED:])
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps({"version": _CACHE_VERSION, "sets": newest}))
