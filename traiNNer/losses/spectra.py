"""Fourier spectra of images, in float32 or float64 always, and what losses of spectra have in common."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.utils.logging import get_logger
from traiNNer.utils.relative_errors import SMALL, check_fields, size_text

Floor = Annotated[
    float,
    Field(
        ge=0, le=1, description="part of the target's own power that is added on both sides; 0: the plain definition"
    ),
]


def spectrum(image: Tensor, norm: Literal["backward", "ortho"]) -> Tensor:
    """The full 2-D DFT of the last two axes as real and imaginary parts, (..., H, W, 2); half precision is widened.

    Args:
        image: real, (..., H, W).
        norm: `backward` for the plain sum, `ortho` for the sum divided by sqrt(H W).
    """
    with torch.autocast(image.device.type, enabled=False):
        wide = image if image.dtype == torch.float64 else image.float()
        return torch.view_as_real(torch.fft.fft2(wide, norm=norm))


class FieldLoss(Loss):
    """A loss of fields: (B, C, H, W) or (B, T, C, H, W) of any values, one space axis more where they are volumes.

    Args:
        name: what messages call it.
        axes: of space, 2 or 3.
    """

    def __init__(self, name: str, axes: int = 2) -> None:
        super().__init__()
        self.name, self.axes = name, axes
        self._told = False

    def check(self, output: Tensor, target: Tensor) -> None:
        """Refuse fields that cannot be compared, and say once that a side below 32 is small.

        Raises:
            ConfigError: names loss and shapes.
        """
        check_fields(self.name, output, target, axes=self.axes)
        size = output.shape[-self.axes :]
        if min(size) < SMALL and not self._told:
            self._told = True
            text = "%s: %s is small; below %d px a side there are few frequencies, and the value varies much"
            get_logger().warning(text, self.name, size_text(size), SMALL)
