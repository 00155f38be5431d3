"""What an image is like, by measures that do not depend on its size: texture, edges, colour, noise, blocks.

All are means or shares over pixels, computed from luma Y = 0.299 R + 0.587 G + 0.114 B in [0, 255] (colour from R, G
and B), and the same for an image that is flipped or turned by 90 degrees. Images under `SMALLEST` px, which have too
few neighbours to compare, are refused.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import numpy as np

from traiNNer.utils.images import DEPTHS

SMALLEST = 16
"""Shortest side of an image that can be measured, px."""

WINDOW = 7
"""Side of the windows whose variance is texture, px."""

EDGE = 100.0
"""Sobel's magnitude of an edge; a step of 25 levels has 100."""

BLOCK = 8
"""Side of JPEG's blocks, px."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NOISE_BLOCK = 16
_FLATTEST = 0.1
"""Share of the blocks, by their response to the noise mask, up to which they count as flat."""
_WHITE_NOISE = 0.894
"""What a share of `_FLATTEST` of the blocks of white noise stays under, relative to the mean over all."""
_NO_EDGES = 2 * 12 * math.log(1000)
"""Times the noise's variance: square of the Sobel magnitude that one in 1,000 px of white noise exceeds."""


@dataclass(frozen=True, kw_only=True)
class ImageMeasures:
    """The measures of one image, or of several together."""

    texture_variance: float
    """Mean variance in 7 x 7 windows of luma, less the noise's; levels of 255, squared."""
    edge_density: float
    """Share of pixels at which Sobel's magnitude is that of an edge, and not to be expected from noise."""
    colorfulness: float
    """Hasler and Suesstrunk's M; 0 without colour, about 33 moderately and 109 extremely colourful."""
    noise: float
    """Standard deviation of the noise in luma, by Immerkaer's mask in the flattest blocks; levels of 255."""
    blockiness: float
    """How much larger differences are across the borders of a grid of 8 px than beside them; 1: no grid."""

    def by_name(self) -> dict[str, float]:
        """The measures as numbers by their names."""
        return asdict(self)

    @classmethod
    def names(cls) -> list[str]:
        """The measures' names, in the order of `by_name`."""
        return [field.name for field in fields(cls)]


REFERENCE = ImageMeasures(texture_variance=276.0, edge_density=0.145, colorfulness=42.4, noise=0.886, blockiness=1.039)
"""What photographs are like: medians over 512 crops of 256 px of eight of scikit-image's (astronaut, chelsea, coffee,
hubble_deep_field, ihc, motorcycle_left, retina, rocket), the mean of 16 draws."""


def measure_image(image: np.ndarray) -> ImageMeasures:
    """Measure an image.

    Args:
        image: (H, W, 3) RGB, uint8 or uint16, sides of at least `SMALLEST` px.
    """
    if min(image.shape[:2]) < SMALLEST:
        raise ValueError(f"is {image.shape[1]} x {image.shape[0]} px; accepted: at least {SMALLEST} px a side")
    levels = image.astype(np.float32)
    if image.dtype != np.uint8:
        levels *= 255 / DEPTHS[image.dtype]
    luma = levels @ _LUMA
    noise = noise_level(luma)
    return ImageMeasures(
        texture_variance=max(0.0, _local_variance(luma) - noise**2),
        edge_density=_edge_density(luma, noise),
        colorfulness=_colorfulness(levels),
        noise=noise,
        blockiness=(_grid(luma) + _grid(luma.T)) / 2,
    )


def noise_level(luma: np.ndarray) -> float:
    """Standard deviation of white noise: Immerkaer's estimate, from the flattest tenth of the blocks.

    The mask [1, -2, 1] x [1, -2, 1] sees no slope and no straight edge along an axis, but texture; that is why only
    the flattest blocks count. Those with clipped pixels, where noise is cut off, do not, unless there are no others.
    """
    second = luma[2:] - 2 * luma[1:-1] + luma[:-2]
    response = np.abs(second[:, 2:] - 2 * second[:, 1:-1] + second[:, :-2])
    clipped = ((luma <= 1) | (luma >= 254))[1:-1, 1:-1]
    blocks = _block_means(response)
    usable = blocks[_block_means(clipped.astype(np.float32)) < 0.05]
    flattest = np.quantile(usable if usable.size else blocks, _FLATTEST)
    return float(flattest) * math.sqrt(math.pi / 2) / 6 / _WHITE_NOISE


def _block_means(plane: np.ndarray) -> np.ndarray:
    """Means of blocks that cover the plane evenly; where its sides are no multiples, the same margin is left around."""
    side = min(_NOISE_BLOCK, *plane.shape)
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    top, left = (plane.shape[0] - rows * side) // 2, (plane.shape[1] - columns * side) // 2
    inside = plane[top : top + rows * side, left : left + columns * side]
    return inside.reshape(rows, side, columns, side).mean((1, 3))


def _local_variance(luma: np.ndarray) -> float:
    """Mean variance of all windows that lie within the image."""
    import cv2  # only reading, writing and measuring images needs it

    half = WINDOW // 2
    centred = luma - np.float32(luma.mean(dtype=np.float64))  # so that the difference of squares keeps its digits
    mean = np.asarray(cv2.boxFilter(centred, -1, (WINDOW, WINDOW)), np.float32)
    square = np.asarray(cv2.sqrBoxFilter(centred, cv2.CV_32F, (WINDOW, WINDOW)), np.float32)
    variance = (square - mean**2)[half:-half, half:-half]
    return float(variance.mean(dtype=np.float64))


def _edge_density(luma: np.ndarray, noise: float) -> float:
    import cv2  # only reading, writing and measuring images needs it

    across, down = (cv2.Sobel(luma, cv2.CV_32F, *axis)[1:-1, 1:-1] for axis in ((1, 0), (0, 1)))
    return float(np.mean(across**2 + down**2 > EDGE**2 + _NO_EDGES * noise**2))


def _colorfulness(levels: np.ndarray) -> float:
    red, green, blue = (levels[..., channel] for channel in range(3))
    opponents = (red - green, (red + green) / 2 - blue)
    spread = math.hypot(*(float(plane.std(dtype=np.float64)) for plane in opponents))
    return spread + 0.3 * math.hypot(*(float(plane.mean(dtype=np.float64)) for plane in opponents))


def _grid(luma: np.ndarray) -> float:
    """Mean difference between rows across the borders of a grid, over that one row beside them.

    Where the grid begins is not known, as tiles are cut anywhere: of the eight places the one with the largest
    ratio counts.
    """
    steps = np.abs(np.diff(luma, axis=0)).mean(1, dtype=np.float64)
    beside = (steps[:-2] + steps[2:]) / 2
    across = steps[1:-1]
    ratios = [
        (across[first::BLOCK].mean() + 0.1) / (beside[first::BLOCK].mean() + 0.1) for first in range(BLOCK)
    ]  # a tenth of a level, so that flat images have no grid
    return float(max(ratios))
