"""Difference of lightness."""

from __future__ import annotations

import torch
from torch import Tensor

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.utils.cie import lightness
from traiNNer.utils.registry import LOSSES


@LOSSES.register("lumaloss")
class LumaLoss(Loss):
    """criterion(L*(output) / 100, L*(target) / 100), L* the CIE lightness of sRGB.

    traiNNer-redux: its L* squares luminance below 0.0089 where CIE's is linear, and it clamps to [0, 1] first, which
    leaves values outside without a gradient; the same elsewhere.

    Shapes: `output` and `target` (B, 3, H, W). Range: [0, inf), smallest where their lightness is equal.
    Reference: CIE 15:2004 (L*), IEC 61966-2-1 (sRGB).

    ```yaml
    - type: lumaloss
      loss_weight: 1.0
      criterion: l1
    ```
    """

    kind = "pixel"
    channels = 3

    def __init__(self, *, criterion: criteria.CriterionName = "l1") -> None:
        super().__init__()
        self.criterion = criteria.criterion(criterion)
        self.minimum = float(self.criterion(torch.zeros(1), torch.zeros(1)))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return self.criterion(lightness(output), lightness(target))
