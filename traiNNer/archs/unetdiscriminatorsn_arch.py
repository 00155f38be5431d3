"""Real-ESRGAN's U-Net discriminator with spectral norm."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS

SLOPE = 0.2


@NETWORKS.register("unetdiscriminatorsn")
class UNetDiscriminatorSN(nn.Module):
    """U-Net discriminator with spectral norm: three halvings, three bilinear doublings, skips by addition.

    Shapes: (B, num_in_ch, H, W) to logits (B, 1, H, W), H and W multiples of 8. Range: unbounded.
    Reference: Wang et al., "Real-ESRGAN", ICCV workshops 2021; state-dict names as BasicSR's.

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
        width = num_feat
        self.conv0 = nn.Conv2d(num_in_ch, width, 3, 1, 1)
        self.conv1 = spectral_norm(nn.Conv2d(width, width * 2, 4, 2, 1, bias=False))
        self.conv2 = spectral_norm(nn.Conv2d(width * 2, width * 4, 4, 2, 1, bias=False))
        self.conv3 = spectral_norm(nn.Conv2d(width * 4, width * 8, 4, 2, 1, bias=False))
        self.conv4 = spectral_norm(nn.Conv2d(width * 8, width * 4, 3, 1, 1, bias=False))
        self.conv5 = spectral_norm(nn.Conv2d(width * 4, width * 2, 3, 1, 1, bias=False))
        self.conv6 = spectral_norm(nn.Conv2d(width * 2, width, 3, 1, 1, bias=False))
        self.conv7 = spectral_norm(nn.Conv2d(width, width, 3, 1, 1, bias=False))
        self.conv8 = spectral_norm(nn.Conv2d(width, width, 3, 1, 1, bias=False))
        self.conv9 = nn.Conv2d(width, 1, 3, 1, 1)
        self.network_info = NetworkInfo(
            type="unetdiscriminatorsn", in_channels=num_in_ch, out_channels=1, multiple_of=8, minimum=8
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of real or generated, for every pixel."""
        x0 = F.leaky_relu(self.conv0(x), SLOPE)
        x1 = F.leaky_relu(self.conv1(x0), SLOPE)
        x2 = F.leaky_relu(self.conv2(x1), SLOPE)
        x3 = F.leaky_relu(self.conv3(x2), SLOPE)
        x4 = self._up(self.conv4, x3, x2)
        x5 = self._up(self.conv5, x4, x1)
        x6 = self._up(self.conv6, x5, x0)
        out = F.leaky_relu(self.conv7(x6), SLOPE)
        out = F.leaky_relu(self.conv8(out), SLOPE)
        return self.conv9(out)

    def _up(self, conv: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)), SLOPE)
        return x + skip if self.skip_connection else x
