"""ParagonSR2: a generator of depthwise blocks whose kernels depend on the sample while training.

Source: the architecture published in Philip Hofmann's traiNNer-redux fork; names and shapes are those of its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from traiNNer.archs.magic_kernel import MagicKernelUpsample, UpsamplerKernel
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.logging import get_logger
from traiNNer.utils.registry import NETWORKS
from traiNNer.utils.schema import validate

SLOPE = 0.1
INITIAL_SCALE = 1e-5

Scale = Annotated[int, Field(ge=1, le=16, description="enlargement factor")]
Alpha = Annotated[float, Field(ge=0, le=1, description="amount of sharpening before the enlargement")]
HrBlocks = Annotated[int, Field(ge=0, description="residual blocks after the enlargement")]


class LayerScale(nn.Module):
    """One learned factor per channel; (B, C, H, W) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), INITIAL_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel."""
        return x * self.gamma.view(1, -1, 1, 1)


class InceptionDepthwise(nn.Module):
    """Depthwise k x k, 1 x b and b x 1 convolutions on three small groups of channels; the others pass.

    Source: Yu et al., "InceptionNeXt", CVPR 2024. Shapes: (B, C, H, W) in and out.
    """

    def __init__(self, channels: int, *, branch_ratio: float, square_kernel_size: int, band_kernel_size: int) -> None:
        super().__init__()
        part = int(channels * branch_ratio)
        square, band = square_kernel_size, band_kernel_size
        self.dwconv_hw = nn.Conv2d(part, part, square, padding=square // 2, groups=part)
        self.dwconv_w = nn.Conv2d(part, part, (1, band), padding=(0, band // 2), groups=part)
        self.dwconv_h = nn.Conv2d(part, part, (band, 1), padding=(band // 2, 0), groups=part)
        self._split = (channels - 3 * part, part, part, part)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the last three groups of channels."""
        passed, square, wide, high = torch.split(x, self._split, dim=1)
        return torch.cat((passed, self.dwconv_hw(square), self.dwconv_w(wide), self.dwconv_h(high)), dim=1)


class KernelGenerator(nn.Module):
    """Depthwise 3 x 3 kernels from the image's mean: (B, D, H, W) to (B, D, 3, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predictor = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, 9 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The kernels of each sample."""
        return self.predictor(x).reshape(x.shape[0], x.shape[1], 3, 3)


class DynamicTransformer(nn.Module):
    """1 x 1 up, a depthwise 3 x 3 with a kernel per sample and channel, LeakyReLU, 1 x 1 down.

    While training, the mean of the samples' kernels is tracked, t <- t + momentum (mean - t), the first time copied,
    once per optimizer step: forward passes add up what `after_update` takes, so that micro-batches count as one batch.
    Kernels that are not finite are left out. In evaluation the tracked kernel stands for every sample's, and the
    identity where none was tracked. Nothing is read back from the device.

    Args:
        channels: of input and output.
        hidden: between the two 1 x 1 convolutions.
        momentum: of the tracking.
        dynamic_inference: use each sample's own kernels in evaluation too.
        track: False freezes the tracked kernel.
    """

    tracked_kernel: Tensor
    tracked_initialized: Tensor
    identity_kernel: Tensor
    pending_sum: Tensor
    pending_count: Tensor

    def __init__(self, channels: int, hidden: int, *, momentum: float, dynamic_inference: bool, track: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(channels, hidden, 1)
        self.kernel_generator = KernelGenerator(hidden)
        self.project_out = nn.Conv2d(hidden, channels, 1)
        self.momentum, self.dynamic_inference, self.track = momentum, dynamic_inference, track
        identity = torch.zeros(hidden, 1, 3, 3)
        identity[:, :, 1, 1] = 1.0
        self.register_buffer("tracked_kernel", torch.zeros(hidden, 1, 3, 3))
        self.register_buffer("tracked_initialized", torch.tensor(False))
        self.register_buffer("identity_kernel", identity)
        self.register_buffer("pending_sum", torch.zeros(hidden, 1, 3, 3), persistent=False)
        self.register_buffer("pending_count", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in and out."""
        x = self.project_in(x)
        if self.training or self.dynamic_inference:
            kernels = self.kernel_generator(x)
            if self.training and self.track:
                self._note(kernels.detach().float())
            x = _depthwise_per_sample(x, kernels)
        else:
            x = F.conv2d(x, self.static_kernel().to(x.dtype), padding=1, groups=x.shape[1])
        return self.project_out(F.leaky_relu(x, SLOPE))

    def static_kernel(self) -> Tensor:
        """The kernel of evaluation, (D, 1, 3, 3)."""
        return torch.where(self.tracked_initialized, self.tracked_kernel, self.identity_kernel)

    @torch.no_grad()
    def after_update(self) -> None:
        """Move the tracked kernel by what the forward passes since the last call noted; call once per optimizer step."""
        noted = self.pending_count > 0
        mean = self.pending_sum / self.pending_count.clamp(min=1)
        moved = torch.where(self.tracked_initialized, torch.lerp(self.tracked_kernel, mean, self.momentum), mean)
        self.tracked_kernel.copy_(torch.where(noted, moved, self.tracked_kernel))
        self.tracked_initialized.logical_or_(noted)
        self.pending_sum.zero_()
        self.pending_count.zero_()

    @torch.no_grad()
    def _note(self, kernels: Tensor) -> None:
        mean = kernels.mean(dim=0).unsqueeze(1)
        finite = torch.isfinite(mean).all()
        self.pending_sum.add_(torch.where(finite, mean, 0.0))
        self.pending_count.add_(finite)


def _depthwise_per_sample(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve channel c of sample b of (B, D, H, W) with its own kernel of (B, D, 3, 3), as one grouped convolution."""
    batch, channels, height, width = x.shape
    folded = x.reshape(1, batch * channels, height, width)
    weights = kernels.reshape(batch * channels, 1, 3, 3)
    return F.conv2d(folded, weights, padding=1, groups=batch * channels).reshape(batch, channels, height, width)


class ParagonBlock(nn.Module):
    """x + ls1(context(x)), then x + ls2(transformer(x)); (B, C, H, W) in and out."""

    def __init__(self, channels: int, ffn_expansion: float, options: dict[str, Any]) -> None:
        super().__init__()
        self.context = InceptionDepthwise(
            channels,
            branch_ratio=options["branch_ratio"],
            square_kernel_size=options["square_kernel_size"],
            band_kernel_size=options["band_kernel_size"],
        )
        self.ls1 = LayerScale(channels)
        self.transformer = DynamicTransformer(
            channels,
            int(channels * ffn_expansion),
            momentum=options["track_momentum"],
            dynamic_inference=options["dynamic_inference"],
            track=options["track_kernels"],
        )
        self.ls2 = LayerScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        x = x + self.ls1(self.context(x))
        return x + self.ls2(self.transformer(x))


class ResidualGroup(nn.Module):
    """Blocks in sequence plus the group's input; (B, C, H, W) in and out."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """One group."""
        return x + self.blocks(x)


class ResidualBlock(nn.Module):
    """x + conv2(LeakyReLU(conv1(x))); (B, C, H, W) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE))


def block_options(
    *,
    branch_ratio: Annotated[float, Field(gt=0, le=1 / 3, description="share of the channels in each branch")] = 0.125,
    square_kernel_size: Annotated[int, Field(ge=1, multiple_of=1, description="side of the square kernel, px, odd")] = 3,
    band_kernel_size: Annotated[int, Field(ge=1, description="length of the band kernels, px, odd")] = 11,
    track_momentum: Annotated[float, Field(gt=0, le=1, description="momentum of the tracked kernels")] = 0.05,
    dynamic_inference: Annotated[bool, Field(description="each sample's own kernels in evaluation too")] = False,
    track_kernels: Annotated[bool, Field(description="false freezes the tracked kernels")] = True,
) -> dict[str, Any]:
    """The parameters of every block (`block_kwargs`)."""
    return {
        "branch_ratio": branch_ratio,
        "square_kernel_size": square_kernel_size,
        "band_kernel_size": band_kernel_size,
        "track_momentum": track_momentum,
        "dynamic_inference": dynamic_inference,
        "track_kernels": track_kernels,
    }


@NETWORKS.register("ParagonSR2")
class ParagonSR2(nn.Module):
    """ParagonSR2 with parameters of one's own.

    conv_in; residual groups of blocks (depthwise context, then a pointwise-dynamic-pointwise transformer); conv_fuse
    plus the output of conv_in; magic-kernel enlargement; convolutions at the high resolution.

    Shapes: (B, in_chans, H, W) to (B, in_chans, scale H, scale W), any H and W. Range: [0, 1] in, about that out.
    Reference: Philip Hofmann's traiNNer-redux fork.

    ```yaml
    network_g:
      type: ParagonSR2
      num_feat: 48
      num_groups: 3
      num_blocks: 4
    ```
    """

    def __init__(
        self,
        *,
        scale: Scale,
        in_chans: Annotated[int, Field(ge=1, description="image channels")] = 3,
        num_feat: Annotated[int, Field(ge=1, description="channels of the features")] = 64,
        num_groups: Annotated[int, Field(ge=1, description="residual groups")] = 6,
        num_blocks: Annotated[int, Field(ge=1, description="blocks in each group")] = 6,
        ffn_expansion: Annotated[float, Field(gt=0, description="hidden channels of a transformer over num_feat")] = 2.0,
        block_kwargs: Annotated[dict[str, Any] | None, Field(description="parameters of the blocks")] = None,
        upsampler_alpha: Alpha = 0.5,
        hr_blocks: HrBlocks = 1,
        upsampler_kernel: Annotated[UpsamplerKernel, Field(description="taps of the enlargement")] = "magic2021",
        use_attention: Annotated[bool | None, Field(description="accepted; the architecture has no attention")] = None,
    ) -> None:
        super().__init__()
        options = _checked_block_options(block_kwargs or {}, num_feat)
        if use_attention:
            get_logger().info("ParagonSR2: use_attention changes nothing, the architecture has no attention switch")
        self.scale = scale
        self.conv_in = nn.Conv2d(in_chans, num_feat, 3, padding=1)
        groups = ([ParagonBlock(num_feat, ffn_expansion, options) for _ in range(num_blocks)] for _ in range(num_groups))
        self.body = nn.Sequential(*(ResidualGroup(list(blocks)) for blocks in groups))
        self.conv_fuse = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.magic_upsampler = MagicKernelUpsample(num_feat, alpha=upsampler_alpha, kernel=upsampler_kernel)
        self.hr_conv_in = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.hr_head = nn.Sequential(*(ResidualBlock(num_feat) for _ in range(hr_blocks)))
        self.conv_out = nn.Conv2d(num_feat, in_chans, 3, padding=1)
        self.network_info = NetworkInfo(type="ParagonSR2", scale=scale, in_channels=in_chans, out_channels=in_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge (B, in_chans, H, W) to (B, in_chans, scale H, scale W)."""
        shallow = self.conv_in(x)
        features = self.conv_fuse(self.body(shallow)) + shallow
        size = (self.scale * x.shape[-2], self.scale * x.shape[-1])
        features = self.hr_conv_in(self.magic_upsampler(features, size))
        return self.conv_out(self.hr_head(features))

    @torch.no_grad()
    def fuse_for_release(self) -> ParagonSR2:
        """Put plain convolutions in the place of kernel generators and layer scales, in place; returns the network.

        The fused network gives what evaluation gave, is smaller and faster, and can be exported; it cannot be trained
        on, and its state dict has names of its own.
        """
        self.eval()
        for group in self.body:
            for index, block in enumerate(group.blocks):  # type: ignore[arg-type]
                if isinstance(block, ParagonBlock):
                    group.blocks[index] = FusedBlock(block)  # type: ignore[index]
        return self


class FusedBlock(nn.Module):
    """A `ParagonBlock` as evaluation computes it, with its factors folded into convolutions; (B, C, H, W) in and out."""

    def __init__(self, block: ParagonBlock) -> None:
        super().__init__()
        self.context = copy.deepcopy(block.context)
        passed = self.context._split[0]
        gamma = block.ls1.gamma.detach()
        branches = (self.context.dwconv_hw, self.context.dwconv_w, self.context.dwconv_h)
        for branch, factor in zip(branches, gamma[passed:].split(self.context._split[1:]), strict=True):
            branch.weight.mul_(factor.view(-1, 1, 1, 1))
            branch.bias.mul_(factor)  # type: ignore[union-attr]
        self.register_buffer("passed_gamma", gamma[:passed].view(1, -1, 1, 1).clone())
        transformer = block.transformer
        self.project_in = copy.deepcopy(transformer.project_in)
        hidden = self.project_in.out_channels
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.depthwise.weight.copy_(transformer.static_kernel())
        self.project_out = copy.deepcopy(transformer.project_out)
        self.project_out.weight.mul_(block.ls2.gamma.view(-1, 1, 1, 1))
        self.project_out.bias.mul_(block.ls2.gamma)  # type: ignore[union-attr]
        self.requires_grad_(False)

    passed_gamma: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        context = self.context
        passed, square, wide, high = torch.split(x, context._split, dim=1)
        scaled = (passed * self.passed_gamma, context.dwconv_hw(square), context.dwconv_w(wide), context.dwconv_h(high))
        x = x + torch.cat(scaled, dim=1)
        return x + self.project_out(F.leaky_relu(self.depthwise(self.project_in(x)), SLOPE))


def _checked_block_options(options: dict[str, Any], num_feat: int) -> dict[str, Any]:
    try:
        checked = validate(block_options, options)
    except ConfigError as error:
        raise ConfigError([problem.under("block_kwargs") for problem in error.problems]) from None
    even = [key for key in ("square_kernel_size", "band_kernel_size") if checked[key] % 2 == 0]
    if even:
        raise ConfigError(f"block_kwargs.{even[0]}: found {checked[even[0]]}; accepted: an odd number")
    if int(num_feat * checked["branch_ratio"]) < 1:
        raise ConfigError(f"num_feat: found {num_feat}; accepted: at least {round(1 / checked['branch_ratio'])}, one channel a branch")
    return checked


VARIANTS: dict[str, tuple[int, int, int, float, int, int]] = {
    "paragonsr2_nano": (24, 2, 2, 1.5, 9, 1),
    "paragonsr2_xs": (32, 2, 3, 1.5, 11, 1),
    "paragonsr2_s": (48, 3, 4, 2.0, 11, 2),
    "paragonsr2_m": (64, 4, 6, 2.0, 13, 2),
    "paragonsr2_l": (96, 6, 8, 2.0, 15, 3),
    "paragonsr2_xl": (128, 8, 10, 2.0, 15, 3),
}
"""Name to features, groups, blocks, FFN expansion, band kernel and blocks after the enlargement."""


def _variant(name: str) -> Callable[..., ParagonSR2]:
    features, groups, blocks, expansion, band, hr = VARIANTS[name]

    def build(*, scale: Scale, upsampler_alpha: Alpha = 0.5, hr_blocks: HrBlocks = hr) -> ParagonSR2:
        return ParagonSR2(
            scale=scale,
            num_feat=features,
            num_groups=groups,
            num_blocks=blocks,
            ffn_expansion=expansion,
            block_kwargs={"band_kernel_size": band},
            upsampler_alpha=upsampler_alpha,
            hr_blocks=hr_blocks,
        )

    build.__name__ = name
    build.__doc__ = f"""ParagonSR2 with {features} features, {groups} groups of {blocks} blocks, expansion {expansion:g}.

    `upsampler_alpha` and `hr_blocks` may be given; anything else needs `type: ParagonSR2`.

    Shapes: (B, 3, H, W) to (B, 3, scale H, scale W), any H and W. Range: [0, 1] in, about that out.
    Reference: Philip Hofmann's traiNNer-redux fork.

    ```yaml
    network_g:
      type: {name}
    ```
    """
    return build


for _name in VARIANTS:
    NETWORKS.register(_name)(_variant(_name))
