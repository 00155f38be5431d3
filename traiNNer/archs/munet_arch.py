"""MUNet: a U-Net discriminator that enlarges with magic kernels."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from traiNNer.archs.magic_kernel import MagicUpsample
from traiNNer.archs.spectral_norm import SpectralNormConv2d, kaiming_
from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS


class UpBlock(nn.Module):
    """Enlarge to the skip's size, bring to its channels, concatenate, fuse."""

    def __init__(self, channels: int, skip_channels: int, slope: float) -> None:
        super().__init__()
        self.magic_upsample = MagicUpsample(channels, alpha=1.0)
        self.post_upsample_conv = SpectralNormConv2d(channels, skip_channels, 3, slope=slope)
        fusion = SpectralNormConv2d(2 * skip_channels, skip_channels, 3, slope=slope)
        self.fusion_conv = nn.Sequential(fusion, nn.LeakyReLU(slope))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, channels, h, w) and (B, skip_channels, H, W) to the latter's shape."""
        x = self.post_upsample_conv(self.magic_upsample(x, skip.shape[-2:]))
        return self.fusion_conv(torch.cat((x, skip), dim=1))


@NETWORKS.register("munet")
class MUNet(nn.Module):
    """U-Net discriminator with spectral norm and magic-kernel enlargement: one logit per pixel.

    The training loop must call `after_update()` after each optimizer step, see `SpectralNormConv2d`.

    Shapes: (B, num_in_ch, H, W) -> (B, 1, H, W), H and W at least 2^levels (16 px with the default ch_mult).
    Range: images in [0, 1]; logits without bounds.
    Reference: Philip Hofmann, MUNet (traiNNer-redux); Miyato et al., "Spectral Normalization for GANs", ICLR 2018.

    ```yaml
    network_d:
      type: munet
      num_feat: 64
    ```
    """

    def __init__(
        self,
        *,
        num_in_ch: Annotated[int, Field(ge=1, description="image channels")] = 3,
        num_feat: Annotated[int, Field(ge=1, description="channels at full size")] = 64,
        ch_mult: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...],
            Field(min_length=1, description="channels of each level, multiples of num_feat"),
        ] = (1, 2, 4, 8),
        slope: Annotated[float, Field(ge=0, lt=1, description="slope of the LeakyReLUs below zero")] = 0.2,
    ) -> None:
        super().__init__()
        widths = [num_feat, *(num_feat * factor for factor in ch_mult)]
        deepest = widths[-1]
        self.in_conv = kaiming_(nn.Conv2d(num_in_ch, num_feat, 3, padding=1), slope)
        self.down_blocks = nn.ModuleList(
            nn.Sequential(SpectralNormConv2d(before, after, 4, stride=2, slope=slope), nn.LeakyReLU(slope))
            for before, after in pairwise(widths)
        )
        self.mid_conv = nn.Sequential(
            SpectralNormConv2d(deepest, deepest, 3, slope=slope),
            nn.LeakyReLU(slope),
            SpectralNormConv2d(deepest, deepest, 3, slope=slope),
            nn.LeakyReLU(slope),
        )
        self.up_blocks = nn.ModuleList(UpBlock(deep, shallow, slope) for deep, shallow in pairwise(reversed(widths)))
        self.out_conv = SpectralNormConv2d(num_feat, 1, 3, bias=True, slope=slope)
        self.network_info = NetworkInfo(type="", in_channels=num_in_ch, out_channels=1, minimum=2 ** len(ch_mult))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of being real."""
        x = self.in_conv(x)
        skips = []
        for down in self.down_blocks:
            skips.append(x)
            x = down(x)
        x = self.mid_conv(x)
        for up in self.up_blocks:
            x = up(x, skips.pop())
        return self.out_conv(x)
