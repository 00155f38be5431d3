"""Magic-kernel resampling: fixed separable filters around a nearest-neighbour enlargement.

Source: J. P. Costella, "The magic kernel" and "Magic Kernel Sharp 2021", https://johncostella.com/magic/.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UpsamplerKernel = Literal["magic2021", "legacy"]

SHARPEN_TAPS: dict[str, tuple[float, ...]] = {
    "magic2021": tuple(tap / 144 for tap in (-1, 6, -35, 204, -35, 6, -1)),
    "legacy": tuple(tap / 32 for tap in (-1, 0, 9, 16, 9, 0, -1)),
}
"""Taps of the sharpening: Costella's, and those of the published ParagonSR2 code."""

RESAMPLE_TAPS = tuple(tap / 16 for tap in (1, 4, 6, 4, 1))


class FixedSeparable(nn.Module):
    """A depthwise filter along x, then along y, with zero padding and taps that are not trained.

    Shapes: (B, C, H, W) in and out.
    """

    def __init__(self, channels: int, taps: tuple[float, ...]) -> None:
        super().__init__()
        size = len(taps)
        self.conv_h = nn.Conv2d(channels, channels, (1, size), padding=(0, size // 2), groups=channels, bias=False)
        self.conv_v = nn.Conv2d(channels, channels, (size, 1), padding=(size // 2, 0), groups=channels, bias=False)
        for conv in (self.conv_h, self.conv_v):
            conv.weight.requires_grad_(False)
            conv.weight.copy_(torch.tensor(taps).view(1, 1, *conv.kernel_size).expand_as(conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, C, H, W)."""
        return self.conv_v(self.conv_h(x))


class MagicKernelUpsample(nn.Module):
    """x + alpha (sharpen(x) - x), nearest-neighbour enlargement to a size, smoothing; nothing is trained.

    Args:
        channels: of the input.
        alpha: amount of sharpening, clamped to [0, 1].
        kernel: taps of the sharpening.
    """

    def __init__(self, channels: int, *, alpha: float = 0.5, kernel: UpsamplerKernel = "magic2021") -> None:
        super().__init__()
        self.alpha = min(max(alpha, 0.0), 1.0)
        self.sharpen = FixedSeparable(channels, SHARPEN_TAPS[kernel])
        self.resample_conv = FixedSeparable(channels, RESAMPLE_TAPS)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge (B, C, h, w) to (B, C, *size)."""
        if self.alpha > 0:
            x = x + self.alpha * (self.sharpen(x) - x)
        return self.resample_conv(F.interpolate(x, size=size, mode="nearest"))
