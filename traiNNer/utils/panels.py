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


def side_by_side(path: Path, *rows: Sequence[tuple[str, Tensor | np.ndarray]]) -> None:
    """Write images of one size next to each other, each under its caption; several rows one below the other.

    Pixels are not scaled; of images above 1024 px a side, the middle is shown.

    Args:
        path: the picture, its format by the suffix.
        rows: caption and image, (1, 3, H, W) or (3, H, W) RGB in [0, 1]; values beyond are clamped. Or (H, W, 3) uint8.

    Raises:
        ImageError: the picture cannot be written.
    """
    drawn = [_row(panels) for panels in rows]
    width = max(row.shape[1] for row in drawn)
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in drawn]
    write_image(path, np.concatenate(filled))


def _row(panels: Sequence[tuple[str, Tensor | np.ndarray]]) -> np.ndarray:
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
    return np.asarray(canvas)


def _middle(image: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray):
        top, left = (max(0, (size - LARGEST) // 2) for size in image.shape[:2])
        return np.ascontiguousarray(image[top : top + LARGEST, left : left + LARGEST])
    image = image.reshape(image.shape[-3:])
    top, left = (max(0, (size - LARGEST) // 2) for size in image.shape[-2:])
    image = image[:, top : top + LARGEST, left : left + LARGEST].cpu()
    return image.nan_to_num(0.0).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
