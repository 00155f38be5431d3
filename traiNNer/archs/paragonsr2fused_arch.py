"""ParagonSR2 as it is released: the function of its evaluation in plain convolutions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from traiNNer.archs.paragonsr2_arch import (
    NEGATIVE_SLOPE,
    Alpha,
    Block,
    BlockOptions,
    Blocks,
    Channels,
    Context,
    Expansion,
    Features,
    Frame,
    Groups,
    HeadBlocks,
    KernelSize,
    ParagonSR2,
    Scale,
    Trunk,
    network_info,
)
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import NETWORKS


class FusedContext(Context):
    """Context, its factors and the residual in one: y = (identity_scale x1, square(x2), row(x3), column(x4))."""

    identity_scale: Tensor

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__(channels, options)
        self.identity_scale = nn.Parameter(torch.ones(self.slices[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, C, H, W)."""
        identity, square, row, column = x.split(self.slices, dim=1)
        identity = identity * self.identity_scale[:, None, None]
        return torch.cat((identity, self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)), dim=1)


class FusedBlock(nn.Module):
    """y = context(x), then y + project_out(LeakyReLU(depthwise(project_in(y))))."""

    def __init__(self, channels: int, inner: int, options: BlockOptions) -> None:
        super().__init__()
        self.context = FusedContext(channels, options)
        self.project_in = nn.Conv2d(channels, inner, 1)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.project_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor, means: list[Tensor]) -> Tensor:
        """Transform (B, C, H, W); `means` stays as it is, no kernel depends on the image."""
        x = self.context(x)
        hidden = F.leaky_relu(self.depthwise(self.project_in(x)), NEGATIVE_SLOPE)
        return x + self.project_out(hidden)

    @torch.no_grad()
    def take(self, block: Block) -> None:
        """Compute what `block` computes in evaluation; in float64, rounded once."""
        fused, context, transformer = self.context, block.context, block.transformer
        factors = block.ls1.gamma.double().split(context.slices)
        fused.identity_scale.copy_(1 + factors[0])
        for name, factor in zip(("dwconv_hw", "dwconv_w", "dwconv_h"), factors[1:], strict=True):
            _take_scaled(getattr(fused, name), getattr(context, name), factor, residual=True)
        self.project_in.load_state_dict(transformer.project_in.state_dict())
        self.depthwise.weight.copy_(transformer.static_kernel())
        _take_scaled(self.project_out, transformer.project_out, block.ls2.gamma.double())


def _take_scaled(to: nn.Conv2d, source: nn.Conv2d, factor: Tensor, *, residual: bool = False) -> None:
    """The weights of factor * source(x), plus x itself through the kernel's middle if `residual`."""
    weight = source.weight.double() * factor[:, None, None, None]
    if residual:
        weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] += 1
    to.weight.copy_(weight)
    cast("Tensor", to.bias).copy_(cast("Tensor", source.bias).double() * factor)


@NETWORKS.register("ParagonSR2Fused")
class ParagonSR2Fused(Trunk):
    """A released ParagonSR2: `ParagonSR2.fuse_for_release()` makes one of a trained network.

    Factors, residuals and tracked kernels are folded into plain convolutions, and the kernels' predictors are gone:
    smaller, faster and easy to export, for upscaling. Its state dict has names of its own; a file with it is loaded by
    building this type with the same parameters, which is what the metadata in the file leads to. To train on, keep the
    weights that were not fused.

    Shapes: (B, in_chans, H, W) -> (B, in_chans, scale H, scale W), any H and W from 1.
    Range: images in [0, 1]; the output is not clipped.
    Reference: Philip Hofmann, ParagonSR2 (traiNNer-redux).

    ```yaml
    network_g:
      type: ParagonSR2Fused
      scale: 2
      num_feat: 24
      num_groups: 2
      num_blocks: 2
      ffn_expansion: 1.5
      band_kernel_size: 9
    ```
    """

    def __init__(
        self,
        *,
        scale: Scale,
        in_chans: Channels = 3,
        num_feat: Features = 64,
        num_groups: Groups = 6,
        num_blocks: Blocks = 6,
        ffn_expansion: Expansion = 2.0,
        branch_ratio: Annotated[
            float, Field(gt=0, le=1 / 3, description="channels of each of the three context branches, share of all")
        ] = 0.125,
        square_kernel_size: Annotated[KernelSize, Field(description="side of the square context kernel, px, odd")] = 3,
        band_kernel_size: Annotated[KernelSize, Field(description="length of the band context kernels, px, odd")] = 11,
        upsampler_alpha: Alpha = 0.5,
        hr_blocks: HeadBlocks = 1,
    ) -> None:
        frame = Frame(
            scale=scale,
            in_chans=in_chans,
            num_feat=num_feat,
            num_groups=num_groups,
            num_blocks=num_blocks,
            ffn_expansion=ffn_expansion,
            upsampler_alpha=upsampler_alpha,
            hr_blocks=hr_blocks,
        )
        options = BlockOptions(
            branch_ratio=branch_ratio, square_kernel_size=square_kernel_size, band_kernel_size=band_kernel_size
        )
        super().__init__(frame, "magic2021", lambda channels, inner: FusedBlock(channels, inner, options))
        self.network_info = network_info(frame)


def fuse(net: ParagonSR2) -> ParagonSR2Fused:
    """The released form of a network, on its device and in evaluation mode; see `ParagonSR2.fuse_for_release`."""
    from traiNNer.archs import build_network

    if net.options.dynamic_inference:
        message = "found true; accepted for a release: false, since kernels that depend on the image cannot be fused"
        raise ConfigError(Problem(key="block_kwargs.dynamic_inference", message=message))
    context = {name: getattr(net.options, name) for name in ("branch_ratio", "square_kernel_size", "band_kernel_size")}
    fused = cast("ParagonSR2Fused", build_network({"type": "ParagonSR2Fused", **asdict(net.frame), **context}))
    fused.to(net.conv_in.weight)
    blocks = zip(_blocks(fused), _blocks(net), strict=True)
    for own, block in blocks:
        cast("FusedBlock", own).take(cast("Block", block))
    common = {name: value for name, value in net.state_dict().items() if not name.startswith("body.")}
    fused.load_state_dict(common, strict=False)
    return fused.eval().requires_grad_(False)


def _blocks(net: Trunk) -> list[nn.Module]:
    return [block for group in net.body for block in cast("nn.ModuleList", group.blocks)]
