"""L1: mean absolute error."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


@LOSSES.register("l1loss")
class L1Loss(Loss):
    """mean |output - target|, the mean absolute error over batch, channels and pixels.

    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), 0 where they are equal.
    Reference: `torch.nn.functional.l1_loss`.
    traiNNer-redux: the same; `reduction: none` and weights per pixel are not offered.

    ```yaml
    - type: l1loss
      loss_weight: 1.0
    ```
    """

    kind = "pixel"

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all elements")] = "mean",
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.sums_images = reduction == "sum"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return F.l1_loss(output, target, reduction=self.reduction)
