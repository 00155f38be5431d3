"""Real-ESRGAN's U-Net discriminator with spectral norm."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from traiNNer.archs.spectral_norm import SpectralNormConv2d
from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS

NEGATIVE_SLOPE = 0.2


@NETWORKS.register("unetdiscriminatorsn")
class UNetDiscriminatorSN(nn.Module):
    """U-Net discriminator with spectral norm: one logit per pixel.

    Three halvings and three bilinear enlargements, to which the features of the same size are added. Sizes that are not
    multiples of 8 are enlarged to those of the features they meet. The training loop must call `after_update()` after
    each optimizer step, see `SpectralNormConv2d`.

    Shapes: (B, num_in_ch, H, W) -> (B, 1, H, W), H and W at least 8.
    Range: images in [0, 1]; logits without bounds.
    Reference: Wang et al., "Real-ESRGAN", ICCV workshops 2021.

    ```yaml
    network_d:
      type: unetdiscriminatorsn
      num_feat: 64
    ```
    """

    def __init__(
        self,
        *,
        num_in_ch: Annotated[int, Field(ge=1, description="image channels")] = 3,
        num_feat: Annotated[int, Field(ge=1, description="channels at full size")] = 64,
        skip_connection: Annotated[bool, Field(description="add the features of the way down on the way up")] = True,
    ) -> None:
        super().__init__()
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.conv1 = SpectralNormConv2d(num_feat, num_feat * 2, 4, stride=2)
        self.conv2 = SpectralNormConv2d(num_feat * 2, num_feat * 4, 4, stride=2)
        self.conv3 = SpectralNormConv2d(num_feat * 4, num_feat * 8, 4, stride=2)
        self.conv4 = SpectralNormConv2d(num_feat * 8, num_feat * 4, 3)
        self.conv5 = SpectralNormConv2d(num_feat * 4, num_feat * 2, 3)
        self.conv6 = SpectralNormConv2d(num_feat * 2, num_feat, 3)
        self.conv7 = SpectralNormConv2d(num_feat, num_feat, 3)
        self.conv8 = SpectralNormConv2d(num_feat, num_feat, 3)
        self.conv9 = nn.Conv2d(num_feat, 1, 3, padding=1)
        self.network_info = NetworkInfo(type="", in_channels=num_in_ch, out_channels=1, minimum=8)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of being real."""
        full = _activate(self.conv0(x))
        half = _activate(self.conv1(full))
        quarter = _activate(self.conv2(half))
        x = _activate(self.conv3(quarter))
        for conv, skip in ((self.conv4, quarter), (self.conv5, half), (self.conv6, full)):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = _activate(conv(x))
            if self.skip_connection:
                x = x + skip
        return self.conv9(_activate(self.conv8(_activate(self.conv7(x)))))


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, NEGATIVE_SLOPE)
