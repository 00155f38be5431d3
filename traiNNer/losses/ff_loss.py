"""Focal frequency loss: squared distance of spectra, weighted towards the frequencies that are hard."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.losses.spectra import spectrum
from traiNNer.utils.registry import LOSSES

_SCALE = 50
"""traiNNer-redux's factor: brings the value to the size of other losses, and its users' weights count on it."""


def patches(image: Tensor, factor: int) -> Tensor:
    """`factor` x `factor` patches of (B, C, H, W), (B, C, factor, factor, H // factor, W // factor).

    What exceeds a multiple of the factor at the right and bottom is left out.
    """
    height, width = image.shape[-2] // factor, image.shape[-1] // factor
    image = image[..., : height * factor, : width * factor]
    return image.unflatten(-2, (factor, height)).unflatten(-1, (factor, width)).transpose(-3, -2)


@torch.no_grad()
def spectrum_weights(distance: Tensor, *, alpha: float, log_matrix: bool, batch_matrix: bool) -> Tensor:
    """Weights in [0, 1] of squared spectral distances (..., H, W), of the same shape, without gradient.

    |F(output) - F(target)|^alpha divided by its largest value, in each spectrum or, with `batch_matrix`, in all.
    Source: Jiang et al., ICCV 2021, section 3; log and batch are options of its code.
    """
    weights = distance.sqrt() ** alpha
    if log_matrix:
        weights = torch.log1p(weights)
    largest = weights.amax() if batch_matrix else weights.amax(dim=(-2, -1), keepdim=True)
    return weights / torch.where(largest > 0, largest, 1)


@LOSSES.register("ffloss")
class FFLoss(Loss):
    """50 mean w |F(output) - F(target)|^2, w = |F(output) - F(target)|^alpha / its maximum over the spectrum.

    F is the orthonormal 2-D DFT; no gradient flows through w. By default the spectra are those of the mean image of
    the batch, as the DFT is linear.

    traiNNer-redux: the same for sizes that `patch_factor` divides, other sizes are refused there; the factor of 50,
    which the paper does not have, is redux's.

    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), 0 where they are equal.
    Reference: Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021, section 3.

    ```yaml
    - type: ffloss
      loss_weight: 1.0
      ave_spectrum: true
    ```
    """

    kind = "frequency"

    def __init__(
        self,
        *,
        alpha: Annotated[float, Field(ge=0, description="exponent of the weights; 0 weights all alike")] = 1.0,
        patch_factor: Annotated[int, Field(ge=1, le=16, description="patches along each axis of an image")] = 1,
        ave_spectrum: Annotated[bool, Field(description="compare the mean spectra of the batch")] = True,
        log_matrix: Annotated[bool, Field(description="weights are log(1 + w)")] = False,
        batch_matrix: Annotated[bool, Field(description="weights are relative to the largest in the batch")] = False,
    ) -> None:
        super().__init__()
        self.alpha, self.patch_factor, self.ave_spectrum = alpha, patch_factor, ave_spectrum
        self.log_matrix, self.batch_matrix = log_matrix, batch_matrix
        self.batch_coupled = ave_spectrum or batch_matrix

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        difference = output - target
        if self.ave_spectrum:
            difference = difference.mean(dim=0, keepdim=True)
        distance = spectrum(patches(difference, self.patch_factor), norm="ortho").square().sum(dim=-1)
        weights = spectrum_weights(
            distance, alpha=self.alpha, log_matrix=self.log_matrix, batch_matrix=self.batch_matrix
        )
        return _SCALE * (weights * distance).mean()
