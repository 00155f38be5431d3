"""Local means under a Gaussian window, and the two factors of SSIM that are made of them."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.utils.errors import ConfigError
from traiNNer.utils.luma import LumaSpace

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of SSIM's window, px."""

C1, C2 = 0.01**2, 0.03**2
"""SSIM's constants for images in [0, 1]."""

TestYChannel = Annotated[bool, Field(description="compare luma instead of the three RGB channels")]
ColorSpace = Annotated[LumaSpace, Field(description="whose luma: Y of YIQ, Y of YCbCr (BT.601, 16 to 235) or L of LHM")]
Downsample = Annotated[
    bool, Field(description="average blocks of n x n px first, n = shorter side / 256, rounded, as Wang's ssim.m does")
]


def gaussian_taps(sigma: float, radius: int, like: Tensor) -> Tensor:
    """2 `radius` + 1 weights whose sum is 1, on the device and in the type of `like`.

    Computed there, so that no copy makes the host wait and float64 gets all its digits.
    """
    places = torch.arange(-radius, radius + 1, device=like.device, dtype=like.dtype)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    return weights / weights.sum()


def local_means(maps: Tensor, taps: Tensor) -> Tensor:
    """Means under the window, only where it lies within the image.

    Every plane has a group of its own: cuDNN would take a convolution of one channel in TF32, whose 10 bits are too few
    for a difference of squares; it leaves convolutions by plane to torch.

    Args:
        maps: (B, C, H, W).
        taps: (N,), an odd number of weights, the same across and down.

    Returns:
        (B, C, H - N + 1, W - N + 1).
    """
    batch, channels, height, width = maps.shape
    planes = batch * channels
    across = taps.expand(planes, 1, 1, -1)
    means = F.conv2d(maps.reshape(1, planes, height, width), across, groups=planes)
    means = F.conv2d(means, across.transpose(2, 3), groups=planes)
    return means.reshape(batch, channels, *means.shape[-2:])


def luminance_and_structure(
    output: Tensor, target: Tensor, taps: Tensor, c1: float = C1, c2: float = C2
) -> tuple[Tensor, Tensor]:
    """SSIM's factors l = (2 mu_x mu_y + c1) / (mu_x^2 + mu_y^2 + c1) and cs = (2 s_xy + c2) / (s_x^2 + s_y^2 + c2).

    (Co)variances do not depend on an image's mean, which is taken off first: in float32 their difference of squares
    would else lose its digits in large values. What rounding is left cannot take them out of their bounds.

    Args:
        output: (B, C, H, W).
        target: the same.
        taps: weights of the window, (N,).
        c1: constant of l.
        c2: constant of cs.

    Returns:
        l and cs, each (B, C, H - N + 1, W - N + 1). Both lie in [-1, 1].

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004,
    equations 6, 9 and 10 with C3 = C2 / 2.
    """
    offset_x, offset_y = (image.detach().mean(dim=(-2, -1), keepdim=True) for image in (output, target))
    x, y = output - offset_x, target - offset_y
    means = local_means(torch.cat([x, y, x * x + y * y, x * y], dim=1), taps)
    mean_x, mean_y, mean_squares, mean_product = means.chunk(4, dim=1)
    variances = (mean_squares - mean_x**2 - mean_y**2).clamp(min=0)
    covariance = (mean_product - mean_x * mean_y).clamp(-variances / 2, variances / 2)
    mean_x, mean_y = mean_x + offset_x, mean_y + offset_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def downsampled(image: Tensor) -> Tensor:
    """The image with its shorter side brought near 256 px by averaging blocks; smaller ones as they are."""
    blocks = max(1, round(min(image.shape[-2:]) / 256))
    return F.avg_pool2d(image, blocks) if blocks > 1 else image


def check_size(image: Tensor, name: str) -> None:
    """Refuse an image on which SSIM's window has no place.

    Raises:
        ConfigError: with the size found and the one needed.
    """
    height, width = image.shape[-2:]
    if min(height, width) < WINDOW:
        raise ConfigError(f"{name}: found images of {width}x{height} px; accepted: at least {WINDOW}x{WINDOW} px")
