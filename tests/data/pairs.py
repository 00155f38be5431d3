"""Images in which every pixel says where it is, so that any misalignment shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from traiNNer.data import ImageDataset

Make = Callable[..., ImageDataset]

COUNT = 7
SIZE = (12, 15)
"""(height, width) of LQ, px."""


def located(number: int) -> np.ndarray:
    """LQ image `number`: (row, column, number) as its colours."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.uint8)
    return np.stack([rows, columns, np.full_like(rows, number)], axis=2)


def enlarged(image: np.ndarray, scale: int = 2) -> np.ndarray:
    """Every pixel `scale` times in each direction."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
