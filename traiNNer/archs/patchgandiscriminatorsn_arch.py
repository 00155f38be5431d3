"""PatchGAN discriminators with spectral norm, at one size or at several."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS

SLOPE = 0.2

Channels = Annotated[int, Field(ge=1, description="image channels")]
Width = Annotated[int, Field(ge=1, description="channels of the first layer")]
Layers = Annotated[int, Field(ge=1, description="halvings of the size, the first included")]
Sigmoid = Annotated[bool, Field(description="probabilities instead of logits")]


@NETWORKS.register("patchgandiscriminatorsn")
class PatchGANDiscriminatorSN(nn.Module):
    """PatchGAN discriminator with spectral norm: a logit for every patch.

    Shapes: (B, input_nc, H, W) to (B, 1, h, w) with h about H / 2^n_layers. Range: unbounded, or [0, 1] with sigmoid.
    Reference: Isola et al., "Image-to-image translation with conditional adversarial networks", CVPR 2017.

    ```yaml
    network_d:
      type: patchgandiscriminatorsn
      ndf: 64
      n_layers: 3
    ```
    """

    def __init__(self, *, input_nc: Channels = 3, ndf: Width = 64, n_layers: Layers = 3, use_sigmoid: Sigmoid = False) -> None:
        super().__init__()
        widths = [input_nc, *(ndf * min(2**level, 8) for level in range(n_layers + 1))]
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            stride = 2 if level < n_layers else 1
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride, 2)), nn.LeakyReLU(SLOPE)]
        layers.append(spectral_norm(nn.Conv2d(widths[-1], 1, 4, 1, 2)))
        if use_sigmoid:
            layers.append(nn.Sigmoid())
        self.layers = nn.Sequential(*layers)
        self.network_info = NetworkInfo(type="patchgandiscriminatorsn", in_channels=input_nc, out_channels=1)

    def forward(self, x: Tensor) -> Tensor:
        """A logit for every patch."""
        return self.layers(x)
