"""Costella's magic kernel: fixed filters that sharpen and enlarge feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SharpeningTaps = Literal["magic2021", "legacy"]

SHARPENING_TAPS: dict[SharpeningTaps, tuple[float, ...]] = {
    "magic2021": tuple(tap / 144 for tap in (-1, 6, -35, 204, -35, 6, -1)),
    "legacy": tuple(tap / 32 for tap in (-1, 0, 9, 16, 9, 0, -1)),
}
"""`magic2021`: Magic Kernel Sharp 2021, https://johncostella.com/magic/; `legacy`: the published ParagonSR2's."""

RESAMPLING_TAPS = tuple(tap / 16 for tap in (1, 4, 6, 4, 1))


class FixedDepthwise(nn.Module):
    """A depthwise convolution with given weights, zero-padded to the same size; (B, C, H, W) to (B, C, H, W).

    The weights are a buffer, so that no optimizer and no `requires_grad_` can ever train them.

    Args:
        weight: (C, 1, kernel height, kernel width), odd sizes.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self._padding = (weight.shape[2] // 2, weight.shape[3] // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Filter every channel by its own kernel."""
        return F.conv2d(x, self.weight, padding=self._padding, groups=self.weight.shape[0])


class SeparableFilter(nn.Module):
    """The same taps along rows, then along columns, for each of `channels` channels; keeps the size."""

    def __init__(self, channels: int, taps: Sequence[float]) -> None:
        super().__init__()
        row = torch.tensor(taps).view(1, 1, 1, -1)
        self.conv_h = FixedDepthwise(row.repeat(channels, 1, 1, 1))
        self.conv_v = FixedDepthwise(row.mT.repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, C, H, W)."""
        return self.conv_v(self.conv_h(x))


class MagicUpsample(nn.Module):
    """Sharpen, enlarge to the nearest neighbour, smooth: (B, C, H, W) to (B, C, *size).

        y = resample(nearest(x + alpha (sharpen(x) - x)))

    Reference: J. P. Costella, "The Magic Kernel", https://johncostella.com/magic/.

    Args:
        channels: C.
        alpha: strength of the sharpening, clamped to [0, 1].
        taps: the sharpening filter.
    """

    def __init__(self, channels: int, alpha: float, taps: SharpeningTaps = "magic2021") -> None:
        super().__init__()
        self.alpha = min(max(alpha, 0.0), 1.0)
        self.sharpen = SeparableFilter(channels, SHARPENING_TAPS[taps])
        self.resample_conv = SeparableFilter(channels, RESAMPLING_TAPS)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Enlarge to (height, width)."""
        if self.alpha > 0:
            sharp = self.sharpen(x)
            x = torch.lerp(x.to(sharp.dtype), sharp, self.alpha)
        return self.resample_conv(F.interpolate(x, size=list(size), mode="nearest"))
