"""Gradient maps of images."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's gradients across and down: [1, 2, 1] along one axis, [-1, 0, 1] along the other, 0 around the image.

    Args:
        image: (B, C, H, W).

    Returns:
        Two maps of the same shape; 8 for a slope of 1 per px.
    """
    padded = F.pad(image, (1, 1, 1, 1))
    across = padded[..., 2:] - padded[..., :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    return (
        across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :],
        down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:],
    )
