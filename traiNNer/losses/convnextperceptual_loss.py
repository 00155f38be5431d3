"""Perceptual loss with ConvNeXt-Tiny's features."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.features import (
    IMAGENET_STD,
    LayerWeight,
    Pretrained,
    TorchvisionFeatures,
    WeightsPath,
)
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import LOSSES

_STAGES = (1, 3, 5, 7)
"""Where the four stages stand in torchvision's `features`; before each stands the stem or a downsampling."""

Stage = Annotated[int, Field(ge=0, le=3)]


def weighted_l1(pairs: list[tuple[Tensor, Tensor]], weights: tuple[float, ...]) -> Tensor:
    """sum_l w_l mean |f_l - g_l| / sum_l w_l.

    Args:
        pairs: the features f_l and g_l of two images, layer by layer, (B, C_l, H_l, W_l).
        weights: w_l, not all 0.

    Returns:
        A scalar.
    """
    distances = [weight * F.l1_loss(first, second) for weight, (first, second) in zip(weights, pairs, strict=True)]
    return torch.stack(distances).sum() / sum(weights)


@LOSSES.register("convnextperceptualloss")
class ConvNeXtPerceptualLoss(Loss):
    """sum_l w_l mean |f_l(output) - f_l(target)| / sum_l w_l, f_l the result of stage l of ConvNeXt-Tiny.

    The stages 0, 1, 2, 3 have 96, 192, 384, 768 channels at 1/4, 1/8, 1/16, 1/32 of the size.

    Shapes: `output` and `target` (B, 3, H, W) in [0, 1], at least 16 px (32 px for stage 3). Range: [0, inf), 0 where
    they are equal. The network never changes: there is no state to save.
    Reference: Liu et al., "A ConvNet for the 2020s", CVPR 2022; as a loss, Johnson et al., ECCV 2016, equation 2 with
    absolute differences.
    traiNNer-redux: its fork's has no gradient, clamps to [0, 1] and takes timm's ImageNet-22k weights first.

    ```yaml
    - type: convnextperceptualloss
      loss_weight: 0.12
      layers: [1, 2]
      layer_weights: [1.0, 0.5]
    ```
    """

    kind = "perceptual"
    channels = 3

    def __init__(
        self,
        *,
        layers: Annotated[tuple[Stage, ...], Field(min_length=1, description="stages, 0 to 3")] = (1, 2),
        layer_weights: Annotated[
            tuple[LayerWeight, ...] | None,
            Field(description="one weight for each stage; default: 1 and 0.5 for two stages, else 1 for each"),
        ] = None,
        eps: Annotated[float, Field(ge=0, description="added to ImageNet's standard deviations")] = 1e-6,
        pretrained: Pretrained = True,
        weights_path: WeightsPath = None,
    ) -> None:
        super().__init__()
        if len(set(layers)) != len(layers):
            raise ConfigError(Problem(key="layers", message=f"found {list(layers)}; accepted: each stage once"))
        if layer_weights is None:
            layer_weights = (1.0, 0.5) if len(layers) == 2 else (1.0,) * len(layers)
        if len(layer_weights) != len(layers) or not any(layer_weights):
            message = f"found {list(layer_weights)}; accepted: one for each of the layers {list(layers)}, not all 0"
            raise ConfigError(Problem(key="layer_weights", message=message))
        ordered = sorted(zip(layers, layer_weights, strict=True))
        self.layer_weights = tuple(weight for _, weight in ordered)
        self.features = TorchvisionFeatures(
            "convnext_tiny",
            [_STAGES[stage] for stage, _ in ordered],
            pretrained=pretrained,
            weights_path=weights_path,
            std=[value + eps for value in IMAGENET_STD],
        )

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        return weighted_l1(self.features.pairs(output, target), self.layer_weights)
