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


@dataclass(frozen=True)
class FieldKinds:
    """What a reflection does to the values of a field, beside moving them."""

    vector: tuple[int, int] | None = None
    """Channels of a vector's components along the width and along the height (downwards)."""
    pseudoscalars: tuple[int, ...] = ()
    """Channels that change their sign."""

    def orient(self, field: np.ndarray, orientation: Orientation) -> np.ndarray:
        """The (C, H, W) field in another orientation; a field that is mirrored by it is a copy."""
        turned = orientation.apply(field.transpose(1, 2, 0)).transpose(2, 0, 1)
        flips = (orientation.hflip, orientation.vflip)
        if (self.vector is None and not self.pseudoscalars) or not (any(flips) or orientation.transpose):
            return turned
        turned = turned.copy()
        if self.vector is not None:
            for channel, flipped in zip(self.vector, flips, strict=True):
                if flipped:
                    turned[channel] *= -1
            if orientation.transpose:
                turned[list(self.vector)] = turned[list(self.vector[::-1])]
        if (sum(flips) + orientation.transpose) % 2:
            turned[list(self.pseudoscalars)] *= -1
        return turned

    def problems(self, channels: int) -> list[str]:
        """Channels that fields of so many do not have, or that are named twice."""
        named = [*(self.vector or ()), *self.pseudoscalars]
        lines = [f"vector_channels and pseudoscalar_channels name a channel twice: {named}"]
        lines = lines if len(set(named)) < len(named) else []
        beyond = [channel for channel in named if channel >= channels]
        text = f"vector_channels and pseudoscalar_channels name the channels {beyond}"
        return lines + ([f"{text}, but the data has {channels}, counted from 0"] if beyond else [])


def draw_corner(generator: np.random.Generator, height: int, width: int, size: int) -> tuple[int, int]:
    """(top, left) of a square window of `size`, uniform over the places inside height x width, all in px."""
    return int(generator.integers(height - size + 1)), int(generator.integers(width - size + 1))


def draw_orientation(generator: np.random.Generator, *, use_hflip: bool, use_rot: bool) -> Orientation:
    """Each flip, and the transposition, with probability 1/2 where it is allowed.

    The same numbers are drawn whatever is allowed, so that an option changes nothing else.
    """
    hflip, vflip, transpose = (generator.random(3) < 0.5).tolist()
    return Orientation(hflip and use_hflip, vflip and use_rot, transpose and use_rot)
