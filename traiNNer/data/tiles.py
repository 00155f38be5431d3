"""Where the tiles of an image lie."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """A square piece of an image, or all of an image that is smaller."""

    top: int
    left: int
    height: int
    width: int


def tile_starts(length: int, size: int, step: int, least: int = 0) -> list[int]:
    """Where tiles begin along a side; the last one ends at the border.

    Args:
        length: of the side, at least `size`.
        size: a tile's side.
        step: from one tile to the next.
        least: a rest of no more than so many px at the border gets no tile of its own.
    """
    starts = list(range(0, length - size + 1, step))
    rest = length - size - starts[-1]
    return [*starts, length - size] if rest > least else starts


def tiles_of(height: int, width: int, *, size: int, step: int, least: int = 0) -> list[Tile]:
    """The tiles of an image, row by row; a whole image as the only one where a side is shorter than a tile's."""
    if min(height, width) < size:
        return [Tile(0, 0, height, width)]
    return [
        Tile(top, left, size, size)
        for top in tile_starts(height, size, step, least)
        for left in tile_starts(width, size, step, least)
    ]
