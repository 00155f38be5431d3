"""LQ made from GT: bicubic with antialiasing, as MATLAB's `imresize` does it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from traiNNer.utils.images import DEPTHS, to_tensor

_MARGIN = 2
"""LQ pixels round a window that its own pixels depend on: the kernel reaches 2 LQ pixels from a pixel's centre."""


def downscale(gt: np.ndarray, scale: int, *, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A window of the LQ image that belongs to `gt`, equal to that window of the whole LQ image.

    Keys' cubic kernel (a = -0.5) stretched by the scale, the image continued by reflection at its borders (the edge
    pixel twice), rounded to the depth of `gt` as a file would be. Keys, "Cubic convolution interpolation for digital
    image processing", IEEE TASSP 1981.

    Args:
        gt: (H, W, 3) uint8 or uint16; what exceeds a multiple of the scale at the right and bottom is left out.
        scale: GT px per LQ px.
        top: first row of the window, LQ px.
        left: first column of the window, LQ px.
        height: rows of the window, LQ px.
        width: columns of the window, LQ px.

    Returns:
        (height, width, 3) of the type of `gt`.
    """
    rows = _reflected(top, height, gt.shape[0] // scale, scale)
    columns = _reflected(left, width, gt.shape[1] // scale, scale)
    window = to_tensor(gt[rows][:, columns]).to(torch.float32)[None]
    size = (height + 2 * _MARGIN, width + 2 * _MARGIN)
    small = F.interpolate(window, size=size, mode="bicubic", antialias=True, align_corners=False)[0]
    small = small[:, _MARGIN : _MARGIN + height, _MARGIN : _MARGIN + width]
    rounded = small.round().clamp_(0, DEPTHS[gt.dtype]).permute(1, 2, 0).numpy()
    return rounded.astype(gt.dtype)


def _reflected(start: int, length: int, size: int, scale: int) -> np.ndarray | slice:
    """GT indices of LQ px `start` to `start + length` and the margin; `size` is the LQ image's."""
    first, last = (start - _MARGIN) * scale, (start + length + _MARGIN) * scale
    if first >= 0 and last <= size * scale:
        return slice(first, last)  # a view: copying rows one by one costs
    period = np.arange(first, last) % (2 * size * scale)
    return np.minimum(period, 2 * size * scale - 1 - period)
