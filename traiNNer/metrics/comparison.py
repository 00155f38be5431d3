"""What every metric does before it compares: 8-bit levels, luma, and the crop, as BasicSR does them.

BasicSR compares images as they would be written to an 8-bit file, so the result is clamped and rounded first. Luma is
BT.601's in MATLAB's form, with footroom: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255 for levels R, G, B.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.types import Better
from traiNNer.utils.errors import ConfigError

CropBorder = Annotated[int, Field(ge=0, description="pixels left out along each edge of result and target, px")]
TestYChannel = Annotated[bool, Field(description="compare BT.601 luma instead of the three RGB channels")]
Improves = Annotated[Better, Field(description="direction in which the value improves")]

LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""Levels of Y per level of R, G and B."""


def comparable(output: Tensor, target: Tensor, crop_border: int, luma: bool, minimum: int = 1) -> tuple[Tensor, Tensor]:
    """Both images as float64 levels in [0, 255], cropped; (1, 1, H, W) when `luma`, else (1, 3, H, W).

    Args:
        output: result, (1, 3, H, W) RGB, clamped to [0, 1] here.
        target: ground truth of the same shape.
        crop_border: px left out along each edge.
        luma: convert to BT.601 luma, [16, 235].
        minimum: smallest height and width that must remain, px.

    Raises:
        ConfigError: sizes differ, or less than `minimum` remains.
    """
    if output.shape != target.shape:
        raise ConfigError(f"a result of {_size(output)} cannot be compared with a target of {_size(target)}")
    if min(output.shape[-2:]) - 2 * crop_border < minimum:
        asked = f"at least {minimum}x{minimum} px must remain within crop_border {crop_border}"
        raise ConfigError(f"an image of {_size(output)} is too small for this metric: {asked}")
    return _levels(output, crop_border, luma), _levels(target, crop_border, luma)


def _levels(image: Tensor, crop_border: int, luma: bool) -> Tensor:
    height, width = image.shape[-2:]
    image = image[..., crop_border : height - crop_border, crop_border : width - crop_border]
    levels = image.float().clamp(0, 1).mul(255).round()
    levels = (levels.cpu() if levels.device.type == "mps" else levels).double()  # MPS has no float64
    if not luma:
        return levels
    weights = torch.tensor(LUMA, dtype=torch.float64, device=levels.device).view(1, 3, 1, 1)
    return (levels * weights).sum(dim=1, keepdim=True) + 16


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]} px"


def describe(name: str, crop_border: int, luma: bool) -> str:
    """`PSNR (Y channel, crop 4 px, 8-bit levels 0..255)` for the log."""
    channel, scale = ("Y channel", "8-bit levels, Y 16..235") if luma else ("RGB", "8-bit levels 0..255")
    return f"{name} ({channel}, crop {crop_border} px, {scale})"
