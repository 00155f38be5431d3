"""PatchGAN: a discriminator of patches, with spectral norm."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from traiNNer.archs.spectral_norm import SpectralNormConv2d
from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS

NEGATIVE_SLOPE = 0.2
WIDEST = 512
"""Channels up to which the layers double, as in pix2pixHD."""

Channels = Annotated[int, Field(ge=1, description="image channels")]
Width = Annotated[int, Field(ge=1, description="channels of the first layer; they double up to 512")]
Layers = Annotated[int, Field(ge=1, description="halvings of the size")]
Sigmoid = Annotated[bool, Field(description="probabilities instead of logits")]


@NETWORKS.register("patchgandiscriminatorsn")
class PatchGANDiscriminatorSN(nn.Module):
    """Stack of 4x4 convolutions with spectral norm: one logit per patch, 70 x 70 px with three layers.

    The training loop must call `after_update()` after each optimizer step, see `SpectralNormConv2d`.

    Shapes: (B, input_nc, H, W) -> (B, 1, h, w), h about H / 2^n_layers + 3; any H and W from 1.
    Range: images in [0, 1]; logits without bounds, or with `use_sigmoid` probabilities.
    Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017; paddings of
    Wang et al., pix2pixHD, CVPR 2018.

    ```yaml
    network_d:
      type: patchgandiscriminatorsn
      ndf: 64
      n_layers: 3
    ```
    """

    def __init__(
        self, *, input_nc: Channels = 3, ndf: Width = 64, n_layers: Layers = 3, use_sigmoid: Sigmoid = False
    ) -> None:
        super().__init__()
        widths = [input_nc, ndf]
        while len(widths) < n_layers + 2:
            widths.append(min(widths[-1] * 2, WIDEST))
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if level < n_layers else 1
            layers += [SpectralNormConv2d(before, after, 4, stride, 2, bias=True), nn.LeakyReLU(NEGATIVE_SLOPE)]
        layers.append(SpectralNormConv2d(widths[-1], 1, 4, 1, 2, bias=True))
        if use_sigmoid:
            layers.append(nn.Sigmoid())
        self.model = nn.Sequential(*layers)
        self.network_info = NetworkInfo(type="", in_channels=input_nc, out_channels=1)

    def forward(self, x: Tensor) -> Tensor:
        """A value for every patch."""
        return self.model(x)
