"""MS-SSIM + L1: structural similarity under Gaussians of several widths, mixed with L1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.local_similarity import gaussian_taps, local_means, luminance_and_structure
from traiNNer.utils.registry import LOSSES

SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Of the published loss, px."""

Sigma = Annotated[float, Field(gt=0, le=64)]
Constant = Annotated[float, Field(gt=0)]


def ms_ssim_l1(
    output: Tensor, target: Tensor, sigmas: Sequence[float], alpha: float, data_range: float, k: tuple[float, float]
) -> Tensor:
    """alpha (1 - l_M prod_j cs_j) + (1 - alpha) G_M * |output - target| / data_range at each pixel and channel.

    l and cs are SSIM's factors under Gaussians of standard deviation sigma_j in windows of up to 4 max(sigma) + 1 px, M
    the largest of them; outside of the image its edge is repeated.

    Args:
        output: (B, C, H, W).
        target: the same.
        sigmas: standard deviations, px.
        alpha: share of MS-SSIM.
        data_range: of the images.
        k: c1 = (k[0] data_range)^2, c2 = (k[1] data_range)^2.

    Returns:
        (B, C, H, W).

    Source: Zhao, Gallo, Frosio, Kautz, "Loss functions for image restoration with neural networks", IEEE TCI 2017,
    section III; channels apart as in the authors' program.
    """
    c1, c2 = ((factor * data_range) ** 2 for factor in k)
    largest, widest = max(sigmas), max(1, int(2 * max(sigmas)))
    similarity = torch.ones_like(output)
    for sigma in sigmas:
        radius = min(widest, math.ceil(6 * sigma))  # beyond, a weight is less than 2e-8 of the middle one
        taps = gaussian_taps(sigma, radius, output)
        x, y = _extended(output, radius), _extended(target, radius)
        luminance, structure = luminance_and_structure(x, y, taps, c1, c2)
        similarity = similarity * (luminance * structure if sigma == largest else structure)
    taps = gaussian_taps(largest, widest, output)
    difference = local_means(_extended((output - target).abs(), widest), taps) / data_range
    return alpha * (1 - similarity) + (1 - alpha) * difference


def _extended(image: Tensor, pixels: int) -> Tensor:
    return F.pad(image, (pixels,) * 4, mode="replicate")


@LOSSES.register("msssiml1loss")
class MSSSIML1Loss(Loss):
    """mean over pixels and channels of alpha (1 - l_M prod_j cs_j) + (1 - alpha) G_M * |output - target|.

    l and cs are SSIM's factors under Gaussians of the given sigmas, M the largest, whose Gaussian G_M also weighs L1;
    the image's edge is repeated outside of it. The authors found alpha = 0.84; the default is traiNNer-redux's.
    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), 0 where they are equal.
    Reference: Zhao, Gallo, Frosio, Kautz, "Loss functions for image restoration with neural networks", IEEE TCI 2017,
    section III.
    traiNNer-redux: multiplies the similarities of R, G and B, so that its MS-SSIM part is up to three times as large
    for small errors (early versions: all of it 200 times as large); has zeros outside of the image.

    ```yaml
    - type: msssiml1loss
      loss_weight: 1.0
      alpha: 0.84
    ```
    """

    kind = "structure"
    images_only = True

    def __init__(
        self,
        *,
        gaussian_sigmas: Annotated[
            tuple[Sigma, ...] | None,
            Field(min_length=1, description="standard deviations of the Gaussians, px; none: 0.5, 1, 2, 4 and 8"),
        ] = None,
        data_range: Annotated[float, Field(gt=0, description="of the images, which are in [0, 1]")] = 1.0,
        k: Annotated[tuple[Constant, Constant], Field(description="c1 and c2 are (k data_range)^2")] = (
            0.01,
            0.03,
        ),
        alpha: Annotated[float, Field(ge=0, le=1, description="share of MS-SSIM; that of L1 is 1 - alpha")] = 0.1,
        cuda_dev: Annotated[Literal[0], Field(description="without meaning; the device is the images'")] = 0,
    ) -> None:
        super().__init__()
        self.sigmas = sorted(set(gaussian_sigmas or SIGMAS))
        self.data_range, self.k, self.alpha = data_range, k, alpha

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return ms_ssim_l1(output, target, self.sigmas, self.alpha, self.data_range, self.k).mean()
