"""LPIPS: learned perceptual image patch similarity."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from traiNNer.metrics.comparison import CropBorder, Improves, TestYChannel, as_rgb, cropped, describe
from traiNNer.utils.pretrained import build_pretrained
from traiNNer.utils.registry import METRICS

Backbone = Literal["alex", "vgg", "squeeze"]

_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}

SMALLEST = 64
"""Side that the backbones need, px."""


@METRICS.register("lpips", "calculate_lpips")
class LPIPS:
    """Sum over layers of the spatial mean of w_l |f_l(output) - f_l(target)|^2, f_l unit-normalized features.

    Shapes: output and target (1, 3, H, W), RGB in [0, 1], at least 64 px after the crop; compared as 8-bit levels
    scaled to [-1, 1] (luma is repeated over the three channels). Range: [0, inf), about 1 at most, lower is better.
    Reference: Zhang et al., CVPR 2018, version 0.1; computed by torchmetrics. The backbone's weights are torchvision's
    (downloaded once, or `weights_path`), the linear layers' come with torchmetrics.

    ```yaml
    lpips: {type: calculate_lpips, net: alex, better: lower}
    ```
    """

    images_only = True

    perceptual = True

    def __init__(
        self,
        *,
        net: Annotated[Backbone, Field(description="backbone")] = "alex",
        weights_path: Annotated[str | None, Field(description="file with the backbone's torchvision weights")] = None,
        crop_border: CropBorder = 0,
        test_y_channel: TestYChannel = False,
        better: Improves = "lower",
    ) -> None:
        self.net, self.crop_border, self.test_y_channel, self.better = net, crop_border, test_y_channel, better
        self.minimum = SMALLEST + 2 * crop_border
        self._network = build_pretrained(lambda: _build(net), _FILES[net], weights_path)

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> float:
        """LPIPS of one image pair."""
        pair = cropped(output, target, self.crop_border, minimum=SMALLEST)
        first, second = (as_rgb(image, self.test_y_channel) for image in pair)
        return self._network.to(output.device)(first, second, normalize=True).item()  # synchronizes host and device

    def describe(self) -> str:
        """Backbone, channel, crop and range for the log."""
        return describe(f"LPIPS {self.net}", self.crop_border, self.test_y_channel)


def _build(net: Backbone) -> nn.Module:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    # Only the network: the metric object around it would synchronize its state over the processes.
    return LearnedPerceptualImagePatchSimilarity(net).net
