"""Locally discriminative learning: L1 where the output has artifacts that its moving average has not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses import criteria
from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES

_WINDOW = 7
"""Side of the window of the local variance, px."""


def local_variance(residual: Tensor) -> Tensor:
    """Unbiased variance in 7 x 7 px round each pixel of (B, 1, H, W), of the same shape; edges are reflected."""
    centred = residual - residual.mean(dim=(-2, -1), keepdim=True)  # a difference of squares follows
    padded = F.pad(centred, [_WINDOW // 2] * 4, mode="reflect")
    mean, mean_square = F.avg_pool2d(padded, _WINDOW, stride=1), F.avg_pool2d(padded.square(), _WINDOW, stride=1)
    return (mean_square - mean.square()).clamp(min=0) * (_WINDOW**2 / (_WINDOW**2 - 1))


@torch.no_grad()
def artifact_map(output: Tensor, target: Tensor, ema_output: Tensor) -> Tensor:
    """How likely each pixel is an artifact, (B, 1, H, W) from three images (B, C, H, W), without gradient.

    var(r)^(1/5) times the local variance of r = sum over channels of |target - output|, and 0 where the residual is
    smaller than that of the moving average's output.
    Source: Liang et al., CVPR 2022, section 3.
    """
    residual = (target - output).abs().sum(dim=1, keepdim=True)
    ema_residual = (target - ema_output).abs().sum(dim=1, keepdim=True)
    weights = residual.var(dim=(-3, -2, -1), keepdim=True) ** (1 / 5) * local_variance(residual)
    return torch.where(residual < ema_residual, 0, weights)


@LOSSES.register("ldlloss")
class LDLLoss(Loss):
    """criterion(m output, m target), m = var(r)^(1/5) var_7x7(r) where r >= r_ema, else 0; r = sum |target - output|.

    The map m of likely artifacts has no gradient. `ema_output` is the output of net_g's moving average: it needs one.

    traiNNer-redux: there a gradient flows through the map, and is NaN where output and target are equal.

    Shapes: `output`, `target`, `ema_output` (B, C, H, W), at least 4 px. Range: [0, inf), smallest where output and
    target are equal or differ by a constant.
    Reference: Liang et al., "Details or Artifacts: A Locally Discriminative Learning Approach to Realistic Image
    Super-Resolution", CVPR 2022, section 3.

    ```yaml
    - type: ldlloss
      loss_weight: 1.0
      criterion: l1
    ```
    """

    def __init__(self, *, criterion: criteria.CriterionName = "l1") -> None:
        super().__init__()
        self.criterion = criteria.criterion(criterion)
        self.minimum = float(self.criterion(torch.zeros(1), torch.zeros(1)))

    def forward(self, output: Tensor, target: Tensor, ema_output: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        weights = artifact_map(output, target, ema_output)
        return self.criterion(weights * output, weights * target)
