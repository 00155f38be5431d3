"""Fourier spectra of images, in float32 or float64 always."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def spectrum(image: Tensor, norm: Literal["backward", "ortho"]) -> Tensor:
    """The full 2-D DFT of the last two axes as real and imaginary parts, (..., H, W, 2); half precision is widened.

    Args:
        image: real, (..., H, W).
        norm: `backward` for the plain sum, `ortho` for the sum divided by sqrt(H W).
    """
    with torch.autocast(image.device.type, enabled=False):
        wide = image if image.dtype == torch.float64 else image.float()
        return torch.view_as_real(torch.fft.fft2(wide, norm=norm))
