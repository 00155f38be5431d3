"""What every metric does before it compares: 8-bit levels, luma, and the crop, as BasicSR does them.

BasicSR compares images as they would be written to an 8-bit file, so the result is clamped and rounded first. Luma is
BT.601's in MATLAB's form, with footroom: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 for levels R, G, B.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.types import Better
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.luma import LUMA_WEIGHTS

CropBorder = Annotated[int, Field(ge=0, description="pixels left out along each edge of result and target, px")]
TestYChannel = Annotated[bool, Field(description="compare BT.601 luma instead of the three RGB channels")]
Improves = Annotated[Better, Field(description="direction in which the value improves")]

LUMA = LUMA_WEIGHTS["ycbcr"]
"""Levels of Y per level of R, G and B."""


_BAND = 2**18
"""Pixels of the bands in which large images are compared."""


def cropped(output: Tensor, target: Tensor, crop_border: int, minimum: int = 1, axes: int = 2) -> tuple[Tensor, Tensor]:
    """Both images without their borders.

    Args:
        output: result, (1, 3, H, W).
        target: ground truth of the same shape.
        crop_border: px left out along each edge.
        minimum: smallest height and width that must remain, px.
        axes: of space, 3 for volumes.

    Raises:
        ConfigError: sizes differ, or less than `minimum` remains.
    """
    if output.shape != target.shape:
        raise ConfigError(
            f"a result of {_size(output, axes)} cannot be compared with a target of {_size(target, axes)}"
        )
    size = output.shape[-axes:]
    if min(size) - 2 * crop_border < minimum:
        asked = f"at least {'x'.join([str(minimum)] * axes)} px must remain within crop_border {crop_border}"
        raise ConfigError(f"an image of {_size(output, axes)} is too small for this metric: {asked}")
    inner = (..., *(slice(crop_border, side - crop_border) for side in size))
    return output[inner], target[inner]


def levels(image: Tensor, luma: bool) -> Tensor:
    """(1, 3, H, W) RGB, clamped to [0, 1], as float64 levels in [0, 255]; as (1, 1, H, W) in [16, 235] if `luma`."""
    image = image.float().clamp(0, 1).mul(255).round()
    image = (image.cpu() if image.device.type == "mps" else image).double()  # MPS has no float64
    if not luma:
        return image
    weights = torch.tensor(LUMA, dtype=torch.float64, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(dim=1, keepdim=True) + 16


def bands(first: Tensor, second: Tensor, luma: bool, window: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """`levels` of two images from top to bottom, so that memory is bounded: float64 takes twice what the images take.

    Bands overlap by `window` - 1 rows: every window of so many rows lies in exactly one of them.
    """
    height, width = first.shape[-2:]
    rows = max(1, _BAND // width)
    for top in range(0, height - window + 1, rows):
        part = (..., slice(top, top + rows + window - 1), slice(None))
        yield levels(first[part], luma), levels(second[part], luma)


def as_rgb(image: Tensor, luma: bool) -> Tensor:
    """The 8-bit levels of an image scaled to [0, 1], (1, 3, H, W) float32 on its device; luma in all three channels."""
    return levels(image, luma).to(image.device, torch.float32).expand(1, 3, -1, -1) / 255


def _size(image: Tensor, axes: int) -> str:
    return f"{'x'.join(map(str, reversed(image.shape[-axes:])))} px"


def describe(name: str, crop_border: int, luma: bool) -> str:
    """`PSNR (Y channel, crop 4 px, 8-bit levels 0..255)` for the log."""
    channel, scale = ("Y channel", "8-bit levels, Y 16..235") if luma else ("RGB", "8-bit levels 0..255")
    return f"{name} ({channel}, crop {crop_border} px, {scale})"
