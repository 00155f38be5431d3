"""Pictures side by side, with captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from traiNNer.utils.images import write_image

LARGEST = 1024
"""Larger panels show their middle only, px."""

_GAP = 4
_FONT_SIZE = 16
_CAPTION = 24


def side_by_side(path: Path, panels: Sequence[tuple[str, Tensor]]) -> None:
    """Write images of one size next to each other, each under its caption.

    Pixels are not scaled; of images above 1024 px a side, the middle is shown.

    Args:
        path: the picture, its format by the suffix.
        panels: caption and image, (1, 3, H, W) or (3, H, W) RGB in [0, 1]; values beyond are clamped.

    Raises:
        ImageError: the picture cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    images = [_middle(image) for _, image in panels]
    height, width = images[0].shape[:2]
    font = ImageFont.load_default(_FONT_SIZE)
    column = max(width, *(round(font.getlength(caption)) + 1 for caption, _ in panels))
    canvas = Image.new("RGB", (len(panels) * (column + _GAP) - _GAP, height + _CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    for number, ((caption, _), image) in enumerate(zip(panels, images, strict=True)):
        left = number * (column + _GAP)
        draw.text((left + 1, 2), caption, fill="black", font=font)
        canvas.paste(Image.fromarray(image), (left, _CAPTION))
    write_image(path, np.asarray(canvas))


def _middle(image: Tensor) -> np.ndarray:
    image = image.reshape(image.shape[-3:])
    top, left = (max(0, (size - LARGEST) // 2) for size in image.shape[-2:])
    image = image[:, top : top + LARGEST, left : left + LARGEST].cpu()
    return image.nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
