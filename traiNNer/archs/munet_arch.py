"""MUNet: a U-Net discriminator that enlarges with magic kernels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from traiNNer.archs.magic_kernel import MagicKernelUpsample
from traiNNer.types import NetworkInfo
from traiNNer.utils.registry import NETWORKS


class UpBlock(nn.Module):
    """Enlarge to the skip's size, bring to its channels, concatenate, fuse."""

    def __init__(self, channels: int, skip_channels: int, slope: float) -> None:
        super().__init__()
        self.magic_upsample = MagicKernelUpsample(channels, alpha=1.0)
        self.post_upsample_conv = spectral_norm(nn.Conv2d(channels, skip_channels, 3, padding=1, bias=False))
        fusion = spectral_norm(nn.Conv2d(2 * skip_channels, skip_channels, 3, padding=1, bias=False))
        self.fusion_conv = nn.Sequential(fusion, nn.LeakyReLU(slope))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, channels, h, w) and (B, skip_channels, H, W) to the latter's shape."""
        x = self.post_upsample_conv(self.magic_upsample(x, (skip.shape[-2], skip.shape[-1])))
        return self.fusion_conv(torch.cat((x, skip), dim=1))


@NETWORKS.register("munet")
class MUNet(nn.Module):
    """U-Net discriminator with spectral norm and magic-kernel enlargement.

    Shapes: (B, num_ch, H, W) to logits (B, 1, H, W), H and W at least 16 with four levels. Range: unbounded.
    Reference: Philip Hofmann's traiNNer-redux fork; Miyato et al., "Spectral normalization", ICLR 2018.

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
            tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, description="channels of each level over num_feat")
        ] = (1, 2, 4, 8),
        slope: Annotated[float, Field(ge=0, lt=1, description="slope of the LeakyReLUs below 0")] = 0.2,
    ) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        widths = [num_feat, *(num_feat * factor for factor in ch_mult)]
        self.down_blocks = nn.ModuleList(
            nn.Sequential(spectral_norm(nn.Conv2d(before, after, 4, 2, 1, bias=False)), nn.LeakyReLU(slope))
            for before, after in zip(widths, widths[1:], strict=False)
        )
        deepest = widths[-1]
        self.mid_conv = nn.Sequential(
            spectral_norm(nn.Conv2d(deepest, deepest, 3, padding=1, bias=False)),
            nn.LeakyReLU(slope),
            spectral_norm(nn.Conv2d(deepest, deepest, 3, padding=1, bias=False)),
            nn.LeakyReLU(slope),
        )
        reversed_widths = widths[::-1]
        self.up_blocks = nn.ModuleList(
            UpBlock(channels, skip, slope) for channels, skip in zip(reversed_widths, reversed_widths[1:], strict=False)
        )
        self.out_conv = spectral_norm(nn.Conv2d(num_feat, 1, 3, padding=1))
        self.network_info = NetworkInfo(
            type="munet", in_channels=num_in_ch, out_channels=1, minimum=2 ** len(ch_mult), batch_coupled=False
        )
        _initialize(self, slope)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of real or generated, for every pixel."""
        x = self.in_conv(x)
        skips = [x]
        for down in self.down_blocks:
            x = down(x)
            skips.append(x)
        x = self.mid_conv(skips.pop())
        for up in self.up_blocks:
            x = up(x, skips.pop())
        return self.out_conv(x)


@torch.no_grad()
def _initialize(net: nn.Module, slope: float) -> None:
    """Kaiming initialization of the learned convolutions; the fixed taps stay."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and any(parameter.requires_grad for parameter in module.parameters()):
            parametrized = getattr(module, "parametrizations", None)
            weight = module.weight if parametrized is None else parametrized.weight.original
            nn.init.kaiming_normal_(weight, a=slope, mode="fan_in", nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
