"""Random crops and orientations, drawn from a sample's own generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of a square, in the order BasicSR applies them: flips, then transposition."""

    hflip: bool = False
    vflip: bool = False
    transpose: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A view of an (H, W, 3) image in this orientation."""
        if self.hflip:
            image = image[:, ::-1]
        if self.vflip:
            image = image[::-1]
        return image.transpose(1, 0, 2) if self.transpose else image


def draw_corner(generator: np.random.Generator, height: int, width: int, size: int) -> tuple[int, int]:
    """(top, left) of a square window of `size`, uniform over the places inside height x width, all in px."""
    return int(generator.integers(height - size + 1)), int(generator.integers(width - size + 1))


def draw_orientation(generator: np.random.Generator, *, use_hflip: bool, use_rot: bool) -> Orientation:
    """Each flip, and the transposition, with probability 1/2 where it is allowed.

    The same numbers are drawn whatever is allowed, so that an option changes nothing else.
    """
    hflip, vflip, transpose = (generator.random(3) < 0.5).tolist()
    return Orientation(hflip and use_hflip, vflip and use_rot, transpose and use_rot)
