"""Huber: squared error for small differences, absolute error for large ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES


@LOSSES.register("huberloss")
class HuberLoss(Loss):
    """mean h(output - target), with h(d) = d^2 / 2 where |d| < delta, else delta (|d| - delta / 2).

    Shapes: `output` and `target` (B, C, H, W). Range: [0, inf), 0 where they are equal.
    Reference: Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 1964;
    `torch.nn.functional.huber_loss`.
    traiNNer-redux: only in its fork, the same; `reduction: none` and weights per pixel are not offered.

    ```yaml
    - type: huberloss
      loss_weight: 1.0
      delta: 0.1
    ```
    """

    kind = "pixel"

    def __init__(
        self,
        *,
        reduction: Annotated[Literal["mean", "sum"], Field(description="mean or sum over all elements")] = "mean",
        delta: Annotated[float, Field(gt=0, description="difference from which it grows linearly, intensity")] = 1.0,
    ) -> None:
        super().__init__()
        self.reduction, self.delta = reduction, delta
        self.sums_images = reduction == "sum"

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return F.huber_loss(output, target, reduction=self.reduction, delta=self.delta)
