"""Rows of the table of spandrel's networks: those of convolutions."""

from __future__ import annotations

from typing import Any

from traiNNer.archs.spandrel_family import OFF, SHUFFLED, Family, Parameters, constant
from traiNNer.archs.spandrel_parameters import one_of, whole


def _esrgan(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    factor = 4 // parameters["scale"] if parameters.pop("use_pixel_unshuffle") and parameters["scale"] < 3 else None
    if factor is not None:
        parameters |= {"scale": 4, "in_nc": parameters["in_nc"] * factor**2, "shuffle_factor": factor}
    return "ESRGAN", parameters


def _mosr(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    short = {"pixelshuffle": "ps", "dysample": "dys", "geoensemblepixelshuffle": "gps"}
    upsampler = short.get(parameters["upsampler"], parameters["upsampler"])
    return "MoSR", parameters | {"upsampler": upsampler, "upscale": parameters.pop("scale")}


def _nafnet(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    parameters["enc_blk_nums"] = parameters["enc_blk_nums"] or [2, 2, 4, 8]
    parameters["dec_blk_nums"] = parameters["dec_blk_nums"] or [2, 2, 2, 2]
    del parameters["scale"]
    return "NAFNet", parameters


def _rcan(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if parameters["scale"] == 1 and not parameters["unshuffle_mod"]:
        raise ValueError("scale 1 goes with unshuffle_mod")
    return "RCAN", parameters


def _realcugan(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    scale, fast = parameters.pop("scale"), parameters.pop("fast")
    if not fast:
        return f"UpCunet{scale}x", parameters
    if scale != 2 or parameters.pop("pro"):
        raise ValueError("fast goes with scale 2 and without pro")
    return "UpCunet2x_fast", parameters


def _realplksr(parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    dysample = parameters.pop("upsampler") == "dysample"
    return "RealPLKSR", parameters | {"dysample": dysample, "upscaling_factor": parameters.pop("scale")}


def _is_unshuffled(parameters: Parameters) -> bool:
    return parameters["scale"] < 3 and parameters["use_pixel_unshuffle"]


CONVOLUTION: tuple[Family, ...] = (
    Family(
        module="Compact",
        summary="Plain convolutions and one pixel shuffle over the image enlarged by its nearest pixels.",
        reference="Wang et al., 'Real-ESRGAN', ICCVW 2021 (SRVGGNetCompact)",
        scales=SHUFFLED,
        defaults={
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 64,
            "num_conv": 16,
            "act_type": "prelu",
            "learn_residual": True,
        },
        variants={
            "compact": {},
            "ultracompact": {"num_conv": 8},
            "superultracompact": {"num_feat": 24, "num_conv": 8},
        },
        only={"learn_residual": "spandrel's Compact always learns the residual"},
    ),
    Family(
        module="ESRGAN",
        summary="Residual-in-residual dense blocks, enlarged by nearest pixels and convolutions.",
        reference="Wang et al., 'ESRGAN', ECCVW 2018; with unshuffling 'Real-ESRGAN', ICCVW 2021",
        scales=(1, 2, 4, 8),
        minimum=constant(2),
        multiple_of=lambda parameters: 4 if _is_unshuffled(parameters) else 1,
        defaults={"use_pixel_unshuffle": True, "in_nc": 3, "out_nc": 3, "num_filters": 64, "num_blocks": 23},
        variants={"esrgan": {}, "esrgan_lite": {"num_filters": 32, "num_blocks": 12}},
        adapt=_esrgan,
    ),
    Family(
        module="MoESR",
        summary="Gated convolution blocks with a gate at half size after each group.",
        reference="umzi2, github.com/umzi2/MoESR",
        scales=SHUFFLED,
        scale="scale",
        minimum=constant(2),
        defaults={
            "in_ch": 3,
            "out_ch": 3,
            "dim": 64,
            "n_blocks": 9,
            "n_block": 4,
            "expansion_factor": 8 / 3,
            "expansion_msg": 1.5,
            "upsampler": "pixelshuffledirect",
            "upsample_dim": 64,
        },
        variants={"moesr2": {}},
        annotations={
            "n_blocks": whole("groups"),
            "upsampler": one_of(
                "how the image is enlarged", ("pixelshuffledirect", "pixelshuffle", "nearest+conv", "dysample", "conv")
            ),
        },
        derived=("MetaUpsample",),
    ),
    Family(
        module="MoSR",
        summary="Gated convolution blocks after MambaOut.",
        reference="umzi2, github.com/umzi2/MoSR; Yu and Wang, 'MambaOut', CVPR 2025",
        scales=SHUFFLED,
        defaults={
            "in_ch": 3,
            "out_ch": 3,
            "n_block": 24,
            "dim": 64,
            "upsampler": "pixelshuffle",
            "drop_path": 0.0,
            "kernel_size": 7,
            "expansion_ratio": 1.5,
            "conv_ratio": 1.0,
        },
        variants={"mosr": {}, "mosr_t": {"n_block": 5, "dim": 48}},
        adapt=_mosr,
        annotations={
            "n_block": whole("blocks"),
            "upsampler": one_of(
                "how the image is enlarged",
                ("pixelshuffle", "dysample", "geoensemblepixelshuffle", "ps", "dys", "gps"),
            ),
        },
        derived=("init_pos",),
    ),
    Family(
        module="NAFNet",
        summary="U-Net without activation functions, for restoration at the same size.",
        reference="Chen et al., 'Simple Baselines for Image Restoration', ECCV 2022",
        scales=(1,),
        scale=None,
        half=constant(False),
        defaults={"img_channel": 3, "width": 32, "enc_blk_nums": None, "middle_blk_num": 12, "dec_blk_nums": None},
        variants={"nafnet32": {}, "nafnet64": {"width": 64}},
        adapt=_nafnet,
    ),
    Family(
        module="PLKSR",
        summary="Convolutions with large kernels on part of the channels.",
        reference="Lee et al., 'Partial Large Kernel CNNs for Efficient Super-Resolution', arXiv:2404.11848",
        scales=SHUFFLED,
        scale="upscaling_factor",
        defaults={
            "dim": 64,
            "n_blocks": 28,
            "ccm_type": "DCCM",
            "kernel_size": 17,
            "split_ratio": 0.25,
            "lk_type": "PLK",
            "use_max_kernel": False,
            "sparse_kernels": (5, 5, 5, 5),
            "sparse_dilations": (1, 2, 3, 4),
            "with_idt": False,
            "use_ea": True,
        },
        variants={"plksr": {}, "plksr_tiny": {"n_blocks": 12, "kernel_size": 13, "use_ea": False}},
    ),
    Family(
        module="PLKSR",
        network="RealPLKSR",
        summary="PLKSR with normalization, for degraded images.",
        reference="muslll, github.com/neosr-project/neosr; Lee et al., 'Partial Large Kernel CNNs', arXiv:2404.11848",
        scales=SHUFFLED,
        half=lambda parameters: parameters["layer_norm"],
        defaults={
            "in_ch": 3,
            "out_ch": 3,
            "dim": 64,
            "n_blocks": 28,
            "kernel_size": 17,
            "split_ratio": 0.25,
            "use_ea": True,
            "norm_groups": 4,
            "dropout": 0,
            "upsampler": "pixelshuffle",
            "layer_norm": True,
        },
        variants={
            "realplksr": {},
            "realplksr_large": {"dim": 96},
            "realplksr_tiny": {"n_blocks": 12, "kernel_size": 13, "use_ea": False},
        },
        only={"in_ch": "images are RGB", "out_ch": "images are RGB"},
        adapt=_realplksr,
        annotations={"upsampler": one_of("how the image is enlarged", ("pixelshuffle", "dysample"))},
        derived=("init_pos",),
    ),
    Family(
        module="RCAN",
        summary="Residual groups with channel attention.",
        reference="Zhang et al., 'Image SR Using Very Deep Residual Channel Attention Networks', ECCV 2018",
        scales=SHUFFLED,
        adapt=_rcan,
        minimum=constant(4),
        half=constant(False),
        defaults={
            "n_resgroups": 10,
            "n_resblocks": 20,
            "n_feats": 64,
            "n_colors": 3,
            "rgb_range": 255,
            "norm": False,
            "kernel_size": 3,
            "reduction": 16,
            "res_scale": 1,
            "act_mode": "relu",
            "unshuffle_mod": False,
        },
        variants={"rcan": {}, "rcan_l": {"n_feats": 96}, "rcan_unshuffle": {"unshuffle_mod": True}},
        only={"res_scale": "spandrel's RCAN does not use it"},
        may_be_zero={r"\.conv_du\.": OFF},
        untrained={r"^(sub|add)_mean\.": "the mean of photographs is a constant"},
    ),
    Family(
        module="RealCUGAN",
        summary="Two U-Nets in a row with squeeze and excitation.",
        reference="bilibili, github.com/bilibili/ailab (Real-CUGAN); nagadomi, waifu2x (CUNet)",
        scales=(2, 3, 4),
        scale=None,
        minimum=lambda parameters: 40 if parameters["fast"] else 32,
        multiple_of=lambda parameters: 4 if parameters["fast"] else 1,
        defaults={"pro": False, "fast": False, "in_channels": 3, "out_channels": 3},
        variants={"realcugan": {}},
        adapt=_realcugan,
    ),
    Family(
        module="SAFMN",
        summary="Spatially adaptive feature modulation by several resolutions.",
        reference="Sun et al., 'Spatially-Adaptive Feature Modulation for Efficient Image Super-Resolution', ICCV 2023",
        scales=SHUFFLED,
        scale="upscaling_factor",
        multiple_of=constant(8),
        half=constant(False),
        defaults={"dim": 36, "n_blocks": 8, "ffn_scale": 2.0},
        variants={"safmn": {}, "safmn_l": {"dim": 128, "n_blocks": 16}},
    ),
    Family(
        module="SPAN",
        summary="Convolutions with attention that has no parameters; three convolutions merge to one after training.",
        reference="Wan et al., 'Swift Parameter-free Attention Network for Efficient Super-Resolution', CVPRW 2024",
        scales=SHUFFLED,
        defaults={
            "num_in_ch": 3,
            "num_out_ch": 3,
            "feature_channels": 52,
            "num_blocks": 6,
            "bias": True,
            "norm": False,
            "img_range": 255.0,
            "rgb_mean": (0.4488, 0.4371, 0.404),
        },
        variants={
            "span": {},
            "span_s": {"feature_channels": 48},
            "span_f32": {"feature_channels": 32},
            "span_f64": {"feature_channels": 64},
            "span_f96": {"feature_channels": 96},
        },
        only={"num_blocks": "spandrel's SPAN has six", "bias": "spandrel's SPAN always has biases"},
        untrained={r"\.eval_conv\.": "merged from the trained convolutions"},
    ),
    Family(
        module="SeemoRe",
        summary="Experts of low rank, one of which is chosen for each image, and striped convolutions.",
        reference="Zamfir et al., 'See More Details: Efficient Image Super-Resolution by Experts Mining', ICML 2024",
        scales=SHUFFLED,
        scale="scale",
        minimum=lambda parameters: max(16, 4 ** parameters["recursive"]),
        half=constant(False),
        defaults={
            "in_chans": 3,
            "num_experts": 3,
            "num_layers": 6,
            "embedding_dim": 36,
            "img_range": 1.0,
            "use_shuffle": True,
            "global_kernel_size": 11,
            "recursive": 2,
            "lr_space": "exp",
            "topk": 1,
        },
        variants={"seemore_t": {}},
        may_be_zero={r"\.experts\.": "the experts that no image of the batch chose"},
    ),
)
