"""ParagonSR2: residual groups with depthwise context and per-image kernels, and a magic-kernel upsampler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from traiNNer.archs.magic_kernel import MagicUpsample, SharpeningTaps
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import NETWORKS
from traiNNer.utils.schema import NESTED_PROBLEMS, validate

if TYPE_CHECKING:
    from traiNNer.archs.paragonsr2fused_arch import ParagonSR2Fused

NEGATIVE_SLOPE = 0.1
INITIAL_GAMMA = 1e-5
MOMENTUM = 0.05
"""Weight of a step's mean kernel in the tracked kernel."""

logger = logging.getLogger("traiNNer")


def odd(size: int) -> int:
    """A kernel size that has a middle."""
    if size % 2 == 0:
        raise ValueError("an odd number")
    return size


KernelSize = Annotated[int, Field(ge=1), AfterValidator(odd)]


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """`block_kwargs`: what all blocks of a ParagonSR2 have in common."""

    branch_ratio: Annotated[
        float, Field(gt=0, le=1 / 3, description="channels of each of the three context branches, share of all")
    ] = 0.125
    square_kernel_size: Annotated[KernelSize, Field(description="side of the square context kernel, px, odd")] = 3
    band_kernel_size: Annotated[KernelSize, Field(description="length of the band context kernels, px, odd")] = 11
    dynamic_inference: Annotated[
        bool, Field(description="evaluate with each image's own kernels instead of the tracked ones")
    ] = False
    freeze_kernels: Annotated[
        bool, Field(description="train with the tracked kernels as they are; neither they nor their predictors change")
    ] = False


def check_block_kwargs(options: dict[str, Any]) -> dict[str, Any]:
    """The complete block options, checked as if they were a component's parameters."""
    try:
        return validate(BlockOptions, options)
    except ConfigError as error:
        problems = error.problems
    raise PydanticCustomError(NESTED_PROBLEMS, "invalid block options", {"problems": problems})


Scale = Annotated[int, Field(ge=1, le=16, description="enlargement factor")]
Channels = Annotated[int, Field(ge=1, description="image channels")]
Features = Annotated[int, Field(ge=1, description="channels inside the network")]
Groups = Annotated[int, Field(ge=1, description="residual groups")]
Blocks = Annotated[int, Field(ge=1, description="blocks in each group")]
Expansion = Annotated[float, Field(ge=1, description="channels of a block's transformer, multiple of num_feat")]
BlockKwargs = Annotated[
    dict[str, Any],
    AfterValidator(check_block_kwargs),
    Field(
        description="options of the blocks: branch_ratio (0.125), square_kernel_size (3 px), band_kernel_size (11 px), "
        "dynamic_inference (false), freeze_kernels (false)"
    ),
]
Alpha = Annotated[float, Field(description="sharpening before the enlargement, clamped to [0, 1]")]
HeadBlocks = Annotated[int, Field(ge=0, description="residual blocks at the output's size")]
Taps = Annotated[SharpeningTaps, Field(description="sharpening filter: Costella's of 2021, or the published code's")]


class LayerScale(nn.Module):
    """x + gamma y, one learned factor per channel; (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), INITIAL_GAMMA))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the scaled branch `y` to `x`."""
        return torch.addcmul(x, y, self.gamma[:, None, None])


class Context(nn.Module):
    """Depthwise k x k, 1 x b and b x 1 convolutions on three slices of the channels; the rest passes."""

    def __init__(self, channels: int, options: BlockOptions) -> None:
        super().__init__()
        slice_, side, band = int(channels * options.branch_ratio), options.square_kernel_size, options.band_kernel_size
        if slice_ == 0:
            message = f"found {options.branch_ratio:g}, less than one channel; accepted: at least 1 / num_feat"
            raise ConfigError(Problem(key="block_kwargs.branch_ratio", message=message))
        self.slices = (channels - 3 * slice_, slice_, slice_, slice_)
        self.dwconv_hw = nn.Conv2d(slice_, slice_, side, padding=side // 2, groups=slice_)
        self.dwconv_w = nn.Conv2d(slice_, slice_, (1, band), padding=(0, band // 2), groups=slice_)
        self.dwconv_h = nn.Conv2d(slice_, slice_, (band, 1), padding=(band // 2, 0), groups=slice_)

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, C, H, W)."""
        identity, square, row, column = x.split(self.slices, dim=1)
        return torch.cat((identity, self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)), dim=1)


class ChannelMeans(nn.Module):
    """(B, C, H, W) to (B, C), the mean over the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over the image."""
        return x.mean((2, 3))


class VectorConv2d(nn.Conv2d):
    """A 1x1 convolution of vectors, (B, C): torch's convolutions are slow on images of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Map the channels."""
        return F.linear(x, self.weight.flatten(1), self.bias)


class KernelGenerator(nn.Module):
    """A 3x3 kernel per sample and channel from the channels' means; (B, D, H, W) to (B, D, 3, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predictor = nn.Sequential(
            ChannelMeans(), VectorConv2d(channels, channels, 1), nn.ReLU(), VectorConv2d(channels, 9 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Predict the kernels for the features `x`."""
        return self.predictor(x).view(x.shape[0], x.shape[1], 3, 3)


def dynamic_depthwise(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter each sample and channel of (B, D, H, W) by its own kernel of (B, D, 3, 3), zero-padded.

    One grouped convolution over B D channels: on a CPU three times as fast as a sum of nine shifted products.
    """
    batch, channels, height, width = x.shape
    weight = kernels.reshape(batch * channels, 1, 3, 3)
    filtered = F.conv2d(x.reshape(1, batch * channels, height, width), weight, padding=1, groups=batch * channels)
    return filtered.view(batch, channels, height, width)


class DynamicTransformer(nn.Module):
    """1x1 convolution, a depthwise 3x3 convolution whose kernels follow from the image, LeakyReLU, 1x1 convolution.

    In training every sample has its own kernels, whose mean is tracked (see `ParagonSR2`). Evaluation uses the tracked
    kernel for every sample, so that no part of a result depends on the content of another; as long as nothing was
    tracked, the kernel that changes nothing.
    """

    tracked_kernel: Tensor
    tracked_initialized: Tensor
    identity_kernel: Tensor

    def __init__(self, channels: int, inner: int, options: BlockOptions) -> None:
        super().__init__()
        self.dynamic_inference, self.freeze_kernels = options.dynamic_inference, options.freeze_kernels
        self.project_in = nn.Conv2d(channels, inner, 1)
        self.kernel_generator = KernelGenerator(inner).requires_grad_(not options.freeze_kernels)
        self.project_out = nn.Conv2d(inner, channels, 1)
        identity = torch.zeros(inner, 1, 3, 3)
        identity[:, :, 1, 1] = 1
        self.register_buffer("tracked_kernel", identity.clone())
        self.register_buffer("tracked_initialized", torch.tensor(False))
        self.register_buffer("identity_kernel", identity)

    def forward(self, x: Tensor, means: list[Tensor]) -> Tensor:
        """Transform (B, C, H, W); in training, append the samples' mean kernel, (D, 1, 3, 3), to `means`."""
        hidden = self.project_in(x)
        if not self.freeze_kernels and (self.training or self.dynamic_inference):
            kernels = self.kernel_generator(hidden)
            if self.training:
                means.append(kernels.detach().mean(0, dtype=self.tracked_kernel.dtype).unsqueeze(1))
            hidden = dynamic_depthwise(hidden, kernels)
        else:
            hidden = F.conv2d(hidden, self.static_kernel(), padding=1, groups=hidden.shape[1])
        return self.project_out(F.leaky_relu(hidden, NEGATIVE_SLOPE))

    def static_kernel(self) -> Tensor:
        """The kernel of every sample in evaluation, (D, 1, 3, 3)."""
        return torch.where(self.tracked_initialized, self.tracked_kernel, self.identity_kernel)


class Block(nn.Module):
    """Context, then transformer, each added to its input through a learned factor per channel."""

    def __init__(self, channels: int, inner: int, options: BlockOptions) -> None:
        super().__init__()
        self.context = Context(channels, options)
        self.ls1 = LayerScale(channels)
        self.transformer = DynamicTransformer(channels, inner, options)
        self.ls2 = LayerScale(channels)

    def forward(self, x: Tensor, means: list[Tensor]) -> Tensor:
        """Transform (B, C, H, W); `means` as in `DynamicTransformer`."""
        x = self.ls1(x, self.context(x))
        return self.ls2(x, self.transformer(x, means))


class Group(nn.Module):
    """Blocks in sequence, plus the group's input."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, means: list[Tensor]) -> Tensor:
        """Transform (B, C, H, W); `means` as in `DynamicTransformer`."""
        residual = x
        for block in self.blocks:
            x = block(x, means)
        return x + residual


class HeadBlock(nn.Module):
    """x + conv2(LeakyReLU(conv1(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine (B, C, H, W)."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), NEGATIVE_SLOPE))


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Sizes of a ParagonSR2, around and within its blocks."""

    scale: int
    in_chans: int
    num_feat: int
    num_groups: int
    num_blocks: int
    ffn_expansion: float
    upsampler_alpha: float
    hr_blocks: int


class Trunk(nn.Module):
    """Everything of a ParagonSR2 but its blocks: (B, in_chans, H, W) to (B, in_chans, scale H, scale W).

    Args:
        frame: the sizes.
        taps: the upsampler's sharpening filter.
        make_block: builds one block from the channels outside and inside its transformer.
    """

    def __init__(self, frame: Frame, taps: SharpeningTaps, make_block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        features, inner = frame.num_feat, int(frame.num_feat * frame.ffn_expansion)
        groups = [[make_block(features, inner) for _ in range(frame.num_blocks)] for _ in range(frame.num_groups)]
        self.scale = frame.scale
        self.conv_in = nn.Conv2d(frame.in_chans, features, 3, padding=1)
        self.body = nn.ModuleList(Group(blocks) for blocks in groups)
        self.conv_fuse = nn.Conv2d(features, features, 3, padding=1)
        self.magic_upsampler = MagicUpsample(features, frame.upsampler_alpha, taps)
        self.hr_conv_in = nn.Conv2d(features, features, 3, padding=1)
        self.hr_head = nn.Sequential(*(HeadBlock(features) for _ in range(frame.hr_blocks)))
        self.conv_out = nn.Conv2d(features, frame.in_chans, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge images."""
        return self.enlarge(x, [])

    def enlarge(self, x: Tensor, means: list[Tensor]) -> Tensor:
        """Enlarge images and collect the blocks' mean kernels, see `DynamicTransformer`."""
        height, width = x.shape[-2:]
        shallow = self.conv_in(x)
        x = shallow
        for group in self.body:
            x = group(x, means)
        x = self.conv_fuse(x) + shallow
        x = self.magic_upsampler(x, (self.scale * height, self.scale * width))
        return self.conv_out(self.hr_head(self.hr_conv_in(x)))


@NETWORKS.register("ParagonSR2")
class ParagonSR2(Trunk):
    """Convolutional generator with per-image depthwise kernels and a magic-kernel upsampler.

    A block adds gamma1 context(x) and then gamma2 transformer(x) to its input x; see `Context`, `DynamicTransformer`
    and `MagicUpsample`. The transformers' kernels, which follow from the image, are tracked in training:

        tracked <- 0.95 tracked + 0.05 mean        (tracked <- mean at the first step)

    where `mean` is over the samples of an optimizer step; a micro-batch with a kernel that is not finite is left out.
    Evaluation uses the tracked kernels, and `fuse_for_release()` makes a plain convolutional network of them.

    `after_update()` tells that a step is complete. Up to then each micro-batch is tracked as a step of its own, so that
    a loop that accumulates no gradients need not call it. Since the rule is linear, several processes average the
    buffers before validating and saving, and never broadcast them. No host-device synchronization anywhere.

    Shapes: (B, in_chans, H, W) -> (B, in_chans, scale H, scale W), any H and W from 1.
    Range: images in [0, 1]; the output is not clipped.
    Reference: Philip Hofmann, ParagonSR2 (traiNNer-redux); J. P. Costella, https://johncostella.com/magic/.

    ```yaml
    network_g:
      type: ParagonSR2
      scale: 2
      num_feat: 48
      num_groups: 3
      num_blocks: 4
      block_kwargs: {band_kernel_size: 9}
    ```
    """

    step_start: Tensor
    step_sum: Tensor
    step_count: Tensor
    step_weight: Tensor

    def __init__(
        self,
        *,
        scale: Scale,
        in_chans: Channels = 3,
        num_feat: Features = 64,
        num_groups: Groups = 6,
        num_blocks: Blocks = 6,
        ffn_expansion: Expansion = 2.0,
        block_kwargs: BlockKwargs = {},  # noqa: B006 - never changed
        upsampler_alpha: Alpha = 0.5,
        hr_blocks: HeadBlocks = 1,
        upsampler_kernel: Taps = "magic2021",
        use_attention: Annotated[
            bool, Field(description="accepted and without effect: the architecture has no attention")
        ] = False,
    ) -> None:
        if use_attention:
            logger.warning("network_g.use_attention has no effect: ParagonSR2 has no attention that could be switched")
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
        options = BlockOptions(**block_kwargs)
        super().__init__(frame, upsampler_kernel, lambda channels, inner: Block(channels, inner, options))
        self.frame, self.options = frame, options
        self.network_info = network_info(frame, use_attention=False)  # for the notice not to come back with the weights
        size = sum(transformer.tracked_kernel.numel() for transformer in self.transformers())
        # the tracked kernels before the step and their weight in it, its micro-batches' sum and number
        self.register_buffer("step_start", torch.zeros(size), persistent=False)
        self.register_buffer("step_weight", torch.zeros(()), persistent=False)
        self.register_buffer("step_sum", torch.zeros(size), persistent=False)
        self.register_buffer("step_count", torch.zeros(()), persistent=False)

    def transformers(self) -> list[DynamicTransformer]:
        """The blocks' transformers, from the input to the output."""
        return [block.transformer for group in self.body for block in group.blocks]  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge images."""
        means: list[Tensor] = []
        x = self.enlarge(x, means)
        if means:
            self._track(means)
        return x

    @torch.no_grad()
    def _track(self, means: list[Tensor]) -> None:
        """Track a micro-batch's mean kernels, all blocks in one vector: a few small operations instead of many."""
        mean, tracked, initialized = _flat(means), self._tracked(), self._initialized()
        finite = (mean * 0).sum() == 0  # zero times infinity or NaN is NaN
        weight = torch.where(initialized, MOMENTUM, 1.0)
        first = self.step_count == 0
        self.step_start.copy_(torch.where(first, tracked, self.step_start))
        self.step_weight.copy_(torch.where(first, weight, self.step_weight))
        self.step_sum.add_(torch.where(finite, mean, 0.0))
        self.step_count.add_(finite)
        self._set_tracked(torch.where(finite, torch.lerp(tracked, mean, weight), tracked))
        torch._foreach_copy_(self._flags(), [initialized | finite] * len(means))

    @torch.no_grad()
    def after_update(self) -> None:
        """The optimizer step is complete: its micro-batches count as one batch."""
        mean = self.step_sum / self.step_count.clamp(min=1)
        step = torch.lerp(self.step_start, mean, self.step_weight)
        self._set_tracked(torch.where(self.step_count > 0, step, self._tracked()))
        self.step_sum.zero_()
        self.step_count.zero_()

    def fuse_for_release(self) -> ParagonSR2Fused:
        """The same function as this network in evaluation, with fewer and plainer operations; see `ParagonSR2Fused`.

        Raises:
            ConfigError: `block_kwargs.dynamic_inference` is set: kernels that depend on the image cannot be fused.
        """
        from traiNNer.archs.paragonsr2fused_arch import fuse

        return fuse(self)

    def _tracked(self) -> Tensor:
        return _flat([transformer.tracked_kernel for transformer in self.transformers()])

    def _flags(self) -> list[Tensor]:
        return [transformer.tracked_initialized for transformer in self.transformers()]

    def _initialized(self) -> Tensor:
        return torch.stack(self._flags()).all()

    def _set_tracked(self, flat: Tensor) -> None:
        buffers = [transformer.tracked_kernel for transformer in self.transformers()]
        parts = flat.split([buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def network_info(frame: Frame, **parameters: Any) -> NetworkInfo:
    """Facts for `build_network`, which adds the rest."""
    channels = frame.in_chans
    return NetworkInfo(type="", parameters=parameters, scale=frame.scale, in_channels=channels, out_channels=channels)


@dataclass(frozen=True)
class Variant:
    """A named size of ParagonSR2."""

    num_feat: int
    num_groups: int
    num_blocks: int
    ffn_expansion: float
    band_kernel_size: int
    hr_blocks: int


VARIANTS = {
    "paragonsr2_nano": Variant(24, 2, 2, 1.5, 9, 1),
    "paragonsr2_xs": Variant(32, 2, 3, 1.5, 11, 1),
    "paragonsr2_s": Variant(48, 3, 4, 2.0, 11, 2),
    "paragonsr2_m": Variant(64, 4, 6, 2.0, 13, 2),
    "paragonsr2_l": Variant(96, 6, 8, 2.0, 15, 3),
    "paragonsr2_xl": Variant(128, 8, 10, 2.0, 15, 3),
}


def register_variant(name: str, variant: Variant) -> None:
    """Offer `variant` as a network; of its parameters only channels, the upsampler's alpha and the head can be set."""

    def build(
        *,
        scale: Scale,
        in_chans: Channels = 3,
        upsampler_alpha: Alpha = 0.5,
        hr_blocks: HeadBlocks = variant.hr_blocks,
    ) -> ParagonSR2:
        return ParagonSR2(
            scale=scale,
            in_chans=in_chans,
            num_feat=variant.num_feat,
            num_groups=variant.num_groups,
            num_blocks=variant.num_blocks,
            ffn_expansion=variant.ffn_expansion,
            block_kwargs={"band_kernel_size": variant.band_kernel_size},
            upsampler_alpha=upsampler_alpha,
            hr_blocks=hr_blocks,
        )

    build.__name__ = build.__qualname__ = name
    v = variant
    build.__doc__ = f"""ParagonSR2 with {v.num_feat} features and {v.num_groups} groups of {v.num_blocks} blocks.

    Also fixed: ffn_expansion {v.ffn_expansion:g}, band_kernel_size {v.band_kernel_size} px. Only `in_chans`,
    `upsampler_alpha` and `hr_blocks` can be set besides the scale; for other sizes use `type: ParagonSR2`.

    Shapes: (B, in_chans, H, W) -> (B, in_chans, scale H, scale W), any H and W from 1.
    Range: images in [0, 1]; the output is not clipped.
    Reference: Philip Hofmann, ParagonSR2 (traiNNer-redux).

    ```yaml
    network_g:
      type: {name}
      scale: 2
    ```
    """
    NETWORKS.register(name)(build)


for _name, _variant in VARIANTS.items():
    register_variant(_name, _variant)
