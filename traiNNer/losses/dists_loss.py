"""DISTS as a loss: deep image structure and texture similarity."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from traiNNer.losses.base import Loss
from traiNNer.losses.features import IMAGENET_MEAN, IMAGENET_STD, Pretrained, TorchvisionFeatures, WeightsPath
from traiNNer.utils.pretrained import packaged_weights
from traiNNer.utils.registry import LOSSES

_RELUS = (3, 8, 15, 22, 29)
"""The last ReLU of each block in VGG16's `features`."""
_POOLINGS = {4: 64, 9: 128, 16: 256, 23: 512}
"""The poolings between them, and their channels."""
_CHANNELS = 3 + 64 + 128 + 256 + 512 + 512


def dists(pairs: list[tuple[Tensor, Tensor]], alpha: Tensor, beta: Tensor) -> Tensor:
    """1 - sum over the channels c of alpha_c l_c + beta_c s_c, for each image.

    l = (2 mu_x mu_y + C) / (mu_x^2 + mu_y^2 + C) compares the means of a channel, s = (2 sigma_xy + C) / (sigma_x^2 +
    sigma_y^2 + C) the covariance with the variances, C = 1e-6.

    Args:
        pairs: the images and their features, layer by layer, (B, C_l, H_l, W_l).
        alpha: weights of l for all channels in turn, (sum C_l,).
        beta: weights of s; both are divided by the sum of both.

    Returns:
        (B,), 0 where all channels are equal.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020, equations 6,
    7 and 8.
    """
    means, structures = [], []
    for first, second in pairs:
        mean_x, mean_y = (values.mean(dim=(2, 3)) for values in (first, second))
        x, y = first - mean_x[..., None, None], second - mean_y[..., None, None]
        # 1 - l and 1 - s with the differences squared first, so that rounding leaves nothing of similar images
        means.append((mean_x - mean_y) ** 2 / (mean_x**2 + mean_y**2 + 1e-6))
        structures.append(((x - y) ** 2).mean(dim=(2, 3)) / ((x**2 + y**2).mean(dim=(2, 3)) + 1e-6))
    return (torch.cat(means, dim=1) @ alpha + torch.cat(structures, dim=1) @ beta) / (alpha.sum() + beta.sum())


class L2Pooling(nn.Module):
    """sqrt(blur(x^2)) at every second pixel: pooling without aliasing, by a 3x3 Hann window."""

    window: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        window = torch.outer(line, line).expand(channels, 1, 3, 3).clone()
        self.register_buffer("window", window, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, (H + 1) // 2, (W + 1) // 2)."""
        blurred = F.conv2d(features**2, self.window, stride=2, padding=1, groups=features.shape[1])
        return (blurred + 1e-12).sqrt()


@LOSSES.register("distsloss")
class DISTSLoss(Loss):
    """max(clip_min, mean over the batch of 1 - sum_c (alpha_c l_c + beta_c s_c)), c the channels of image and VGG16.

    l compares the means of a channel, s the covariance with the variances, for the image and five layers of VGG16 whose
    poolings are L2 poolings. The images are compared as they are, not as 8-bit levels, and not resized.

    Shapes: `output` and `target` (B, 3, H, W) in [0, 1], at least 16 px. Range: [0, 1] for images, 0 where they are
    equal. Network and weights never change: there is no state to save.
    Reference: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020, equations
    6 to 9. VGG16's weights are torchvision's, alpha and beta come with torchmetrics.
    traiNNer-redux: the same unless it resizes; load_weights: false draws alpha and beta, here all are equal.

    ```yaml
    - type: distsloss
      loss_weight: 0.5
    ```
    """

    kind = "perceptual"
    channels = 3
    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        *,
        load_weights: Annotated[bool, Field(description="the published alpha and beta; false: all equal")] = True,
        use_input_norm: Annotated[
            bool, Field(description="normalize the images by ImageNet's mean and deviation")
        ] = True,
        clip_min: Annotated[float, Field(ge=0, lt=1, description="smallest value; no gradient below it")] = 0.0,
        pretrained: Pretrained = True,
        weights_path: WeightsPath = None,
    ) -> None:
        super().__init__()
        self.clip_min = clip_min
        self.features = TorchvisionFeatures(
            "vgg16",
            _RELUS,
            pretrained=pretrained,
            weights_path=weights_path,
            mean=IMAGENET_MEAN if use_input_norm else (0.0, 0.0, 0.0),
            std=IMAGENET_STD if use_input_norm else (1.0, 1.0, 1.0),
        )
        for position, channels in _POOLINGS.items():
            self.features.layers[position] = L2Pooling(channels)
        weights = {name: torch.ones(_CHANNELS) for name in ("alpha", "beta")}
        if load_weights:
            weights = packaged_weights("torchmetrics", "functional/image/dists_models/weights.pt")
        for name, value in weights.items():
            self.register_buffer(name, value.flatten(), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        pairs = [(output, target), *self.features.pairs(output, target)]
        alpha, beta = self.alpha.to(output.dtype), self.beta.to(output.dtype)
        return dists(pairs, alpha, beta).mean().clamp(min=self.clip_min)
