"""Gradient variance: how much the gradients of a patch vary, the same in output and target."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.losses.criteria import CriterionName
from traiNNer.losses.gradient_maps import sobel
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.luma import luma
from traiNNer.utils.registry import LOSSES


def gradient_variances(image: Tensor, patch_size: int) -> Tensor:
    """Variance of the luma's Sobel gradients in each patch of patch_size x patch_size px, side by side.

    What is left of a size that patch_size does not divide is not compared.

    Args:
        image: (B, 3, H, W).
        patch_size: px.

    Returns:
        (B, 2, patches): across and down, the sum of squares divided by n^2 - 1.

    Source: Abrahamyan et al., "Gradient Variance Loss for Structure-Enhanced Image Super-Resolution", ICASSP 2022.
    """
    maps = torch.cat(sobel(luma(image, "lhm")), dim=1)
    batch = len(maps)
    patches = F.unfold(maps, patch_size, stride=patch_size).reshape(batch, 2, patch_size**2, -1)
    return patches.var(dim=2)


@LOSSES.register("gradientvarianceloss")
class GradientVarianceLoss(Loss):
    """d(v_x(output), v_x(target)) + d(v_y(output), v_y(target)), v the variances of Sobel gradients in n x n patches.

    d is the criterion's mean over patches; the paper's is l2. Luma is 0.2989 R + 0.5870 G + 0.1140 B.
    Shapes: `output` and `target` (B, 3, H, W), at least patch_size px. Range: [0, inf), smallest where they are equal.
    Reference: Abrahamyan et al., "Gradient Variance Loss for Structure-Enhanced Image Super-Resolution", ICASSP 2022,
    section 3.
    traiNNer-redux: the same.

    ```yaml
    - type: gradientvarianceloss
      loss_weight: 0.01
      patch_size: 16
      criterion: l2
    ```
    """

    kind = "structure"
    channels = 3

    def __init__(
        self,
        *,
        patch_size: Annotated[int, Field(ge=2, description="side of the square patches, px")] = 16,
        criterion: CriterionName = "charbonnier",
    ) -> None:
        super().__init__()
        self.patch_size, self.criterion = patch_size, criteria.criterion(criterion)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        height, width = output.shape[-2:]
        if min(height, width) < self.patch_size:
            found = f"gradientvarianceloss: found images of {width}x{height} px"
            raise ConfigError(f"{found}; accepted: at least patch_size, {self.patch_size} px")
        values = (gradient_variances(image, self.patch_size) for image in (output, target))
        return 2 * self.criterion(*values)  # one mean over both directions is half the sum of two
