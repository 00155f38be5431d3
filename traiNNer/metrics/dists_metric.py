"""DISTS: deep image structure and texture similarity."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from traiNNer.metrics.comparison import CropBorder, Improves, TestYChannel, as_rgb, cropped, describe
from traiNNer.utils.pretrained import build_pretrained
from traiNNer.utils.registry import METRICS

SMALLEST = 32
"""Side that five halvings in VGG16 and the filters on them need, px."""


@METRICS.register("dists", "calculate_dists")
class DISTS:
    """1 - sum of alpha l(x, y) + beta s(x, y) over the channels of the image and of five VGG16 layers.

    l compares the means of a feature map, s the covariance with the variances.
    Shapes: output and target (1, 3, H, W), RGB in [0, 1], at least 32 px after the crop; compared as 8-bit levels
    (luma is repeated over the three channels). Range: [0, 1], lower is better, 0 for identical images.
    Reference: Ding et al., TPAMI 2020; computed by torchmetrics, without resizing. The backbone's weights are
    torchvision's (downloaded once, or `weights_path`), alpha and beta come with torchmetrics.

    ```yaml
    dists: {type: calculate_dists, better: lower}
    ```
    """

    images_only = True

    perceptual = True

    def __init__(
        self,
        *,
        weights_path: Annotated[str | None, Field(description="file with VGG16's torchvision weights")] = None,
        crop_border: CropBorder = 0,
        test_y_channel: TestYChannel = False,
        better: Improves = "lower",
    ) -> None:
        self.crop_border, self.test_y_channel, self.better = crop_border, test_y_channel, better
        self.minimum = SMALLEST + 2 * crop_border
        self._network = build_pretrained(self._build, "vgg16-397923af.pth", weights_path)

    @staticmethod
    def _build() -> nn.Module:
        from torchmetrics.functional.image.dists import DISTSNetwork

        return DISTSNetwork()

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> float:
        """DISTS of one image pair."""
        pair = cropped(output, target, self.crop_border, minimum=SMALLEST)
        first, second = (as_rgb(image, self.test_y_channel) for image in pair)
        return self._network.to(output.device)(first, second).item()  # synchronizes host and device

    def describe(self) -> str:
        """Channel, crop and range for the log."""
        return describe("DISTS", self.crop_border, self.test_y_channel)
