"""Difference of the bands of a Laplacian pyramid."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.utils.logging import get_logger
from traiNNer.utils.registry import LOSSES


def laplacian_bands(image: Tensor, levels: int) -> list[Tensor]:
    """Bands of (B, C, H, W), from fine to coarse: level i minus level i + 1 enlarged, of level i's size.

    A level is reduced by the mean of 2 x 2 px (rounded down) and enlarged bilinearly. There are as many bands as fit:
    no level is smaller than 1 px. What is coarser than the last band is left out.
    Source: Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE Transactions on Communications 1983,
    with these two filters in place of its 5 x 5.
    """
    bands = []
    while len(bands) < levels and min(image.shape[-2:]) > 1:
        coarser = F.avg_pool2d(image, 2)
        bands.append(image - F.interpolate(coarser, size=image.shape[-2:], mode="bilinear", align_corners=False))
        image = coarser
    return bands


@LOSSES.register("laplacianpyramidloss")
class LaplacianPyramidLoss(Loss):
    """sum over bands of criterion(band of output, band of target), the bands of a Laplacian pyramid.

    Differences coarser than 2^levels px, such as that of the mean, cost nothing: add a loss that sees them.

    traiNNer-redux: the name is the fork's; the same where all levels fit, it fails on smaller images.

    Shapes: `output` and `target` (B, C, H, W), at least 2 px. Range: [0, inf), smallest where all bands are equal.
    Reference: Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE Trans. Communications 1983.

    ```yaml
    - type: laplacianpyramidloss
      loss_weight: 1.0
      levels: 4
      criterion: charbonnier
    ```
    """

    kind = "structure"

    def __init__(
        self,
        *,
        levels: Annotated[int, Field(ge=1, le=12, description="bands; fewer are used where fewer fit")] = 4,
        criterion: criteria.CriterionName = "charbonnier",
    ) -> None:
        super().__init__()
        self.levels, self.criterion = levels, criteria.criterion(criterion)
        self.minimum = levels * float(self.criterion(torch.zeros(1), torch.zeros(1)))
        self._told = False

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        pairs = list(zip(laplacian_bands(output, self.levels), laplacian_bands(target, self.levels), strict=True))
        if len(pairs) < self.levels and not self._told:
            self._told = True
            size = f"{output.shape[-1]}x{output.shape[-2]} px"
            get_logger().warning("laplacianpyramidloss: %d of %d levels fit into %s", len(pairs), self.levels, size)
        return torch.stack([self.criterion(ours, theirs) for ours, theirs in pairs]).sum()
