"""Batches of other sizes than those that are on their way from the workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from traiNNer.data.workers import draw
from traiNNer.types import Batch


class Grid:
    """Where one process's micro-batches end: their sizes over and over, counted in its own samples.

    Args:
        sizes: samples of each micro-batch of an iteration.
        start: samples before the first one.
    """

    def __init__(self, sizes: Sequence[int], start: int = 0) -> None:
        self.sizes, self.start = (), start
        self.change(sizes, start)

    def change(self, sizes: Sequence[int], start: int) -> None:
        """Other sizes from a sample on.

        Raises:
            ValueError: there are none, or one is below 1.
        """
        if not sizes or min(sizes) < 1:
            raise ValueError(f"found micro-batches of {list(sizes)}; accepted: at least one, each of at least 1")
        self.sizes, self.start = tuple(sizes), start

    def rest(self, place: int) -> int:
        """Samples from a place to the end of the micro-batch that it lies in."""
        offset = (place - self.start) % sum(self.sizes)
        return next(end - offset for end in accumulate(self.sizes) if end > offset)


class Slicer:
    """Takes batches as they come, and gives so many samples as are asked for: views, nothing is copied or lost.

    Args:
        batches: as `collate` made them.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._rest: Batch | None = None

    def take(self, size: int) -> list[Batch]:
        """The pieces of the next micro-batch; one, and the same object, where a batch has that size.

        A batch without images, which ends a run, is given whole.
        """
        pieces: list[Batch] = []
        while size > 0:
            batch = draw(self._batches) if self._rest is None else self._rest
            count = len(batch["fault"])
            self._rest = None
            if count > size and "lq" in batch:
                batch, self._rest = _part(batch, 0, size), _part(batch, size, count)
            pieces.append(batch)
            size -= count
        return pieces


def join(pieces: Sequence[Batch]) -> Batch:
    """One batch of several with images of one type; one alone stays the same object."""
    if len(pieces) == 1:
        return pieces[0]
    joined: dict[str, Any] = {}
    for key, first in pieces[0].items():
        values: list[Any] = [cast("dict[str, Any]", piece)[key] for piece in pieces]
        joined[key] = torch.cat(values) if isinstance(first, Tensor) else [entry for value in values for entry in value]
    return cast("Batch", joined)


def _part(batch: Batch, start: int, end: int) -> Batch:
    return cast("Batch", {key: cast("Any", value)[start:end] for key, value in batch.items()})
