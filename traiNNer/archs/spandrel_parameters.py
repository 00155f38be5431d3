"""What the parameters of spandrel's networks mean and accept, by traiNNer-redux's names.

A name means the same in every network that has it; where it does not, the table of networks says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from traiNNer.archs import channels


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number, px")
    return value


def whole(description: str, minimum: int = 1) -> Any:
    """A whole number of at least `minimum`."""
    return Annotated[int, Field(ge=minimum, description=description)]


def share(description: str) -> Any:
    """A probability below 1."""
    return Annotated[float, Field(ge=0, lt=1, description=description)]


def positive(description: str) -> Any:
    """A number above 0."""
    return Annotated[float, Field(gt=0, description=description)]


def switch(description: str) -> Any:
    """true or false."""
    return Annotated[bool, Field(description=description)]


def several(description: str, minimum: int = 1) -> Any:
    """A list of whole numbers of at least `minimum`."""
    item = Annotated[int, Field(ge=minimum)]
    return Annotated[tuple[item, ...], Field(min_length=1, description=description)]


def two(description: str, minimum: int = 1) -> Any:
    """Two whole numbers of at least `minimum`."""
    item = Annotated[int, Field(ge=minimum)]
    return Annotated[tuple[item, item], Field(description=description)]


def one_of(description: str, values: tuple[Any, ...]) -> Any:
    """One of the given values."""
    return Annotated[Literal[values], Field(description=description)]


def only(default: Any, reason: str) -> Any:
    """A parameter of traiNNer-redux that spandrel's network lacks or does not use; other values are refused."""
    shown = {None: "null", True: "true", False: "false"}.get(default, repr(default)) if default != 1 else "1"

    def check(value: Any) -> Any:
        if value != default or isinstance(value, bool) != isinstance(default, bool):
            raise ValueError(f"{shown} ({reason})")
        return value

    return Annotated[Any, AfterValidator(check), Field(description=f"only {shown}: {reason}")]


odd = Annotated[int, Field(ge=1, description="side of the convolution kernel, px, odd"), AfterValidator(_odd)]

_CHANNELS = whole("channels of images (3, RGB) or fields; follows the data")
_HEADS = several("attention heads of each group; divides the channels")
_DEPTHS = several("blocks of each group")

PARAMETERS: dict[str, Any] = {
    **dict.fromkeys(channels.NAMES, _CHANNELS),
    **dict.fromkeys(("depths", "depth"), _DEPTHS),
    **dict.fromkeys(("num_heads", "num_heads_window", "num_heads_stripe"), _HEADS),
    **dict.fromkeys(("embed_dim", "embedding_dim", "dim", "nf", "n_feats", "width"), whole("feature channels")),
    **dict.fromkeys(("num_feat", "num_filters", "feature_channels"), whole("feature channels")),
    "ITL_blocks": whole("intra-patch transformer layers of each unit"),
    "SAL_blocks": whole("spatial-aware layers of each unit"),
    "UFONE_blocks": whole("units"),
    "act_mode": one_of("activation", ("relu", "leaky_relu", "elu", "silu", "gelu", "none")),
    "act_type": one_of("activation; only weights with prelu are recognized elsewhere", ("prelu", "relu", "leakyrelu")),
    "aim_reduction_ratio": whole("channels over those within the channel gate"),
    "anchor_one_stage": switch("reduce to anchors in one step instead of halvings"),
    "anchor_proj_type": one_of(
        "how anchors are made", ("avgpool", "maxpool", "conv2d", "separable_conv", "patchmerging")
    ),
    "anchor_window_down_factor": whole("pixels per anchor along a side"),
    "ape": switch("add a learned absolute position; fixes the image size"),
    "attn_drop_rate": share("share of attention weights that are dropped in training"),
    "bias": switch("biases in the convolutions"),
    "block_num": whole("attention blocks of each group"),
    "c_ratio": Annotated[float, Field(gt=0, le=1, description="channels kept by the recursive attention, a share")],
    "category_size": whole("pixels per category; not in the weights, so others assume 256, or 128 in the light one"),
    "ccm_type": one_of("channel mixer", ("DCCM", "CCM", "ICCM")),
    "compress_ratio": positive("channels over those within the convolution block"),
    "conv_ratio": Annotated[float, Field(gt=0, description="convolved channels over the feature channels")],
    "conv_scale": Annotated[float, Field(ge=0, description="weight of the convolution block's output")],
    "conv_type": one_of("convolution at a group's end", ("1conv", "3conv", "1conv1x1", "linear")),
    "convffn_kernel_size": odd,
    "dec_blk_nums": Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None, Field(description="blocks of each decoder; null: [2, 2, 2, 2]")
    ],
    "depth_per_group": whole("pairs of blocks in a group"),
    "drop_path": share("probability that the last block is skipped in training; rises from 0"),
    "drop_path_rate": share("probability that the last block is skipped in training; rises from 0"),
    "drop_rate": share("share of features that are dropped in training"),
    "dropout": share("share of channels that are dropped before the last convolution in training"),
    "enc_blk_nums": Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None, Field(description="blocks of each encoder; null: [2, 2, 4, 8]")
    ],
    "euclidean_dist": switch("attention by distance instead of by angle"),
    "expansion_factor": positive("channels within a feed-forward part over the feature channels"),
    "expansion_msg": positive("channels within the gated blocks at half size over the feature channels"),
    "expansion_ratio": positive("channels within a block over the feature channels"),
    "fast": switch("work at half size, with scale 2 only"),
    "ffn_expansion_factor": positive("channels within a feed-forward part over the feature channels"),
    "ffn_expansion_ratio": positive("channels within a feed-forward part over the feature channels"),
    "ffn_scale": positive("channels within the channel mixer over the feature channels"),
    "global_kernel_size": odd,
    "group_block_pattern": Annotated[
        tuple[Literal["spatial", "channel"], ...] | None,
        Field(description="kinds of blocks that repeat in a group; null: [spatial, channel]"),
    ],
    "img_range": positive("factor on the image before the first convolution; not in the weights, others assume 1"),
    "img_size": whole("side of the image for which attention masks are prepared, px; any other works too"),
    "init_method": one_of("initial weights of the blocks", ("n", "l", "w", "r")),
    "kernel_size": odd,
    "layer_norm": switch("normalize each pixel before a block instead of groups of channels after it"),
    "lk_type": one_of("large-kernel convolution", ("PLK", "SparsePLK", "RectSparsePLK")),
    "local_connection": switch("a convolution block beside the attention"),
    "lr_space": one_of("growth of the experts' channels", ("exp", "linear", "double")),
    "mid_dim": whole("channels of the upsampler"),
    "middle_blk_num": whole("blocks at the lowest resolution"),
    "mlp_ratio": positive("channels within a feed-forward part over the feature channels"),
    "n_block": whole("blocks of each group"),
    "n_blocks": whole("blocks"),
    "n_resblocks": whole("blocks of each group"),
    "n_resgroups": whole("groups"),
    "norm": switch("subtract the mean of photographs first"),
    "norm_groups": whole("groups of channels that are normalized together, without layer_norm"),
    "num_blocks": whole("blocks"),
    "num_conv": whole("convolutions between the first and the last"),
    "num_experts": whole("experts of each layer"),
    "num_groups": whole("groups"),
    "num_head": whole("attention heads; divides the channels; not in the weights, others assume 5"),
    "num_layers": whole("groups"),
    "num_modules": whole("groups"),
    "num_tokens": whole("entries of each dictionary"),
    "overlap_ratio": positive("overlap of the windows over their side"),
    "patch_norm": switch("normalize before the first block"),
    "patch_size": whole("side of an attention window, px; not in the weights, others assume 8"),
    "pe": switch("learned relative positions in the attention"),
    "pretrained_stripe_size": two("stripes for which position tables were trained, px; 0: these", minimum=0),
    "pretrained_window_size": two("windows for which position tables were trained, px; 0: these", minimum=0),
    "pro": switch("the pro weights' intensity range"),
    "qk_scale": Annotated[float | None, Field(gt=0, description="factor on the attention's logits; null: by channels")],
    "qkv_bias": switch("biases in the attention's projections"),
    "qkv_proj_type": one_of("projection to queries, keys and values", ("linear", "separable_conv")),
    "recursive": whole("reductions by 4 of the context"),
    "reducted_dim": whole("channels of queries and keys against the dictionary"),
    "reduction": whole("channels over those within the channel attention"),
    "res_num": whole("groups"),
    "rgb_mean": Annotated[tuple[float, float, float], Field(description="the mean that `norm` subtracts, in [0, 1]")],
    "rgb_range": positive("white after the factor that `norm` applies"),
    "sparse_dilations": several("dilations of the sparse convolutions"),
    "sparse_kernels": several("kernel sides of the sparse convolutions, px"),
    "split_ratio": Annotated[float, Field(gt=0, le=1, description="share of channels in the large convolution")],
    "split_size": two("height and width of an attention window, px"),
    "split_size_0": whole("short side of an attention window, px"),
    "split_size_1": whole("long side of an attention window, px"),
    "squeeze_factor": positive("channels over those within the channel attention"),
    "start_unshuffle": whole("factor by which the image is unshuffled first"),
    "stripe_groups": Annotated[
        tuple[Annotated[int, Field(ge=1)] | None, Annotated[int, Field(ge=1)] | None],
        Field(description="stripes along height and width, where the size is null"),
    ],
    "stripe_shift": switch("shift every second block's stripes"),
    "stripe_size": Annotated[
        tuple[Annotated[int, Field(ge=1)] | None, Annotated[int, Field(ge=1)] | None],
        Field(description="height and width of a stripe, px; null: by stripe_groups"),
    ],
    "topk": whole("experts that each image passes"),
    "unshuffle_mod": switch("with scale 1 and 2, unshuffle the image first and work at the size of scale 4"),
    "upsample_dim": whole("channels of the upsampler `pixelshuffle`"),
    "use_chk": switch("recompute activations in the backward pass: less memory, more time"),
    "use_checkpoint": switch("recompute activations in the backward pass: less memory, more time"),
    "use_ea": switch("element-wise attention"),
    "use_max_kernel": switch("add the largest kernel to the sparse ones"),
    "use_pixel_unshuffle": switch("with scale 1 and 2, unshuffle the image first and work at the size of scale 4"),
    "use_shuffle": switch("shuffle channels between the halves"),
    "window_size": whole("side of an attention window, px"),
    "with_idt": switch("add the input to the large convolution's output"),
}
"""Annotation of each parameter: type, range, meaning and unit."""
