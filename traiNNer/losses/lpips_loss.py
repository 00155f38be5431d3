"""LPIPS as a loss: learned perceptual image patch similarity."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.losses.features import Pretrained, TorchvisionFeatures, WeightsPath
from traiNNer.utils.pretrained import packaged_weights
from traiNNer.utils.registry import LOSSES

_NETWORKS = {
    "alex": ("alexnet", (1, 4, 7, 9, 11)),
    "vgg": ("vgg16", (3, 8, 15, 22, 29)),
    "squeeze": ("squeezenet1_1", (1, 4, 7, 9, 10, 11, 12)),
}
"""torchvision's name, and the modules whose results are compared."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation that LPIPS takes of images in [-1, 1]."""


def lpips(pairs: list[tuple[Tensor, Tensor]], weights: list[Tensor]) -> Tensor:
    """sum_l mean_hw sum_c w_lc (f_lc / |f_l| - g_lc / |g_l|)^2, |f_l| over the channels of a position, for each image.

    Args:
        pairs: the features f_l and g_l of two images, layer by layer, (B, C_l, H_l, W_l).
        weights: w_l, (C_l,), not negative.

    Returns:
        (B,), 0 where all features are equal.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, equation
    1, version 0.1; with 1e-8 under the root of the norm.
    """
    distances: list[Tensor] = []
    for (first, second), weight in zip(pairs, weights, strict=True):
        f, g = (values / (values.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() for values in (first, second))
        distances.append((f - g).square().mean(dim=(2, 3)) @ weight)
    return torch.stack(distances).sum(dim=0)


@LOSSES.register("lpipsloss")
class LPIPSLoss(Loss):
    """Mean over the batch of sum_l mean_hw sum_c w_lc (f_lc(output) - f_lc(target))^2, f unit-normalized features.

    The images are compared as they are, not as 8-bit levels.

    Shapes: `output` and `target` (B, 3, H, W) in [0, 1], at least 31 px. Range: [0, inf), about 1 at most, 0 where they
    are equal. Network and weights never change: there is no state to save.
    Reference: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
    equation 1, version 0.1. The network's weights are torchvision's, the linear layers' come with torchmetrics.
    traiNNer-redux: not there.

    ```yaml
    - type: lpipsloss
      loss_weight: 1.0
      net: vgg
    ```
    """

    kind = "perceptual"
    channels = 3

    def __init__(
        self,
        *,
        net: Annotated[Literal["alex", "vgg", "squeeze"], Field(description="network")] = "vgg",
        pretrained: Pretrained = True,
        weights_path: WeightsPath = None,
    ) -> None:
        super().__init__()
        network, positions = _NETWORKS[net]
        self.features = TorchvisionFeatures(
            network,
            positions,
            pretrained=pretrained,
            weights_path=weights_path,
            mean=[(value + 1) / 2 for value in _SHIFT],  # as [0, 1] has them
            std=[value / 2 for value in _SCALE],
        )
        weights = packaged_weights("torchmetrics", f"functional/image/lpips_models/{net}.pth")
        for layer in range(len(positions)):
            self.register_buffer(f"weight_{layer}", weights[f"lin{layer}.model.1.weight"].flatten(), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        pairs = self.features.pairs(output, target)
        weights = [self.get_buffer(f"weight_{layer}").to(output.dtype) for layer in range(len(pairs))]
        return lpips(pairs, weights).mean()
