"""Charbonnier: a differentiable L1."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


def charbonnier(output: Tensor, target: Tensor, *, eps: float = 1e-12) -> Tensor:
    """sqrt((output - target)^2 + eps) per element, (B, C, H, W) as the inputs.

    Source: Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for computed imaging",
    ICIP 1994; with eps inside the root as LapSRN and BasicSR write it.
    """
    return torch.sqrt((output - target) ** 2 + eps)


@LOSSES.register("charbonnierloss")
class CharbonnierLoss(Loss):
    """mean sqrt((output - target)^2 + eps): L1 with a smooth minimum.

    Shapes: `output` and `target` (B, C, H, W). Range: [sqrt(eps), inf), smallest where they are equal.
    Reference: Charbonnier et al., ICIP 1994.
    traiNNer-redux: the same; `reduction: none` and weights per pixel are not offered.

    ```yaml
    - type: charbonnierloss
      loss_weight: 1.0
      eps: 1.0e-12
    ```
    """

    kind = "pixel"

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all elements")] = "mean",
        eps: Annotated[float, Field(gt=0, description="added under the root, in squared intensity")] = 1e-12,
    ) -> None:
        super().__init__()
        self.reduction, self.eps = reduction, eps
        self.sums_images = reduction == "sum"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        values = charbonnier(output, target, eps=self.eps)
        return values.mean() if self.reduction == "mean" else values.sum()
