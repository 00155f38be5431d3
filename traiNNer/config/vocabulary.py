"""What traiNNer-redux and its fork know and this version does not yet: such a name is refused as that, not as a typo.

The one place to edit when a feature arrives: remove its names here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Later:
    """An option that is not supported yet.

    With one of its `off` values it changes nothing there either, so it is left out with a notice; the same holds for a
    detail of a feature whose `switch`, a key beside it, is written as false.
    """

    off: tuple[Any, ...] = ()
    switch: str | None = None


def _words(text: str) -> list[str]:
    return text.split()


def _details(switch: str, names: str) -> dict[str, Later]:
    return {name: Later(switch=switch) for name in _words(names)}


DISABLED = {"enabled": False}

TOP_LEVEL: dict[str, Later] = {
    "network_g_teacher": Later(),
    "network_ae": Later(),
    "input_pixel_format": Later(off=("rgb",)),
    "output_pixel_format": Later(off=("rgb",)),
    "watch": Later(off=(False,)),
    "find_unused_parameters": Later(off=(False,)),
    "dist_params": Later(off=({"backend": "nccl", "port": 29500},)),
    "onnx": Later(),
    "high_order_degradation": Later(off=(False,)),
    **_details(
        "high_order_degradation",
        "high_order_degradations_debug high_order_degradations_debug_limit dataroot_lq_prob lq_usm "
        "lq_usm_radius_range blur_prob thicklines_prob resize_prob resize_mode_list resize_mode_prob resize_range "
        "gaussian_noise_prob noise_range poisson_scale_range gray_noise_prob jpeg_prob jpeg_range blur_prob2 "
        "resize_prob2 resize_mode_list2 resize_mode_prob2 resize_range2 gaussian_noise_prob2 noise_range2 "
        "poisson_scale_range2 gray_noise_prob2 jpeg_prob2 jpeg_range2 resize_mode_list3 resize_mode_prob3 "
        "queue_size",
    ),
}

SET_BY_PROGRAM = _words("launcher rank world_size is_train root_path start_iter switch_iter_per_epoch contents")
"""Fields of traiNNer-redux's options that its program fills in; no option file has them."""

SECTIONS: dict[str, dict[str, Later]] = {
    "": TOP_LEVEL,
    "train": {
        "eco": Later(off=({}, DISABLED)),
        "ema_switch_iter": Later(off=(0,)),
        "restart_scheduler": Later(off=(False,)),
        "optim_ae": Later(),
        "use_moa": Later(off=(False,)),
        **_details("use_moa", "moa_augs moa_probs moa_debug moa_debug_limit"),
    },
    "path": {
        f"pretrain_network_{name}": Later()
        for name in _words("g_teacher g_path g_ema ae ae_path ae_ema ae_decoder ae_decoder_ema")
    },
    "logger": {"wandb": Later(off=({}, {"project": None}, {"resume_id": None}, {"project": None, "resume_id": None}))},
}
"""By section: the keys that are not supported yet."""

DATASET_KEYS: dict[str, Later] = {
    **{
        name: Later()
        for name in _words(
            "color mean std prefetch_mode clip_size lq_resize_mode blur_kernel_size kernel_list kernel_prob "
            "kernel_range sinc_prob blur_sigma betag_range betap_range blur_kernel_size2 kernel_list2 kernel_prob2 "
            "kernel_range2 sinc_prob2 blur_sigma2 betag_range2 betap_range2 final_sinc_prob final_kernel_range"
        )
    },
    "num_prefetch_queue": Later(off=(1,)),
}
"""Keys of a data set's section, unless the data set has a parameter of that name."""

# What perceptual losses have beside in traiNNer-redux and, before it, in BasicSR: other networks and ranges, ...
LOSS_KEYS: dict[str, Later] = {
    "vgg_type": Later(off=("vgg19",)),
    "use_input_norm": Later(off=(True,)),
    "range_norm": Later(off=(False,)),
    "as_loss": Later(off=(True,)),
    "resize_input": Later(off=(False,)),
    "clip_min": Later(off=(0, 0.0)),
    "antialiased": Later(off=(False,)),
    "verbose_logging": Later(off=(False, True)),
}
"""Keys of an entry of `train.losses`, unless the loss has a parameter of that name."""

OLD_LOSSES: dict[str, str | None] = {
    "pixel_opt": None,
    "mssim_opt": "mssimloss",
    "ms_ssim_l1_opt": "msssiml1loss",
    "perceptual_opt": "perceptualloss",
    "contextual_opt": "contextualloss",
    "dists_opt": "distsloss",
    "hr_inversion_opt": "hrinversionloss",
    "dinov2_opt": "dinov2loss",
    "topiq_opt": "topiqloss",
    "pd_opt": "pdloss",
    "fd_opt": "fdloss",
    "ldl_opt": "ldlloss",
    "hsluv_opt": "hsluvloss",
    "gan_opt": "ganloss",
    "color_opt": "colorloss",
    "luma_opt": "lumaloss",
    "avg_opt": "averageloss",
    "bicubic_opt": "bicubicloss",
}
"""The old form of the entries of `train.losses`, with the type that such a section has when it names none."""

NAMES: dict[str, list[str]] = {
    "network": _words(
        "artcnn artcnn_r16f96 artcnn_r3f24 artcnn_r5f48 artcnn_r8f24 artcnn_r8f48 artcnn_r8f64 cascadedgaze "
        "dat_iln dat_iln_2 dat_iln_light dat_iln_s dis_balanced dis_fast docres docres_base docres_large eimn "
        "eimn_a eimn_l elan elan_light emt escrealm escrealm_xl flexnet gaterv3 gaterv3_r gaterv3_s hit_sir "
        "hit_sng hit_srf lkfmixer_b lkfmixer_l lkfmixer_t lmlt lmlt_base lmlt_large lmlt_tiny man man_light "
        "man_tiny metaflexnet mosrv2 rtmosr rtmosr_l rtmosr_ul scunet_aaf6aa sebica sebica_mini spanf spanf3 "
        "spanplus spanplus_s spanplus_st spanplus_sts srformerv2 temporalspan temporalspanv2 tfdat tscunet "
        "docres_discriminator dunet metagan2 metagan3 multiscalepatchgandiscriminatorsn vggstylediscriminator dwt "
        "dwt_s hat_iln_l hat_iln_l_aligned hat_iln_m hat_iln_m_aligned hat_iln_s"
    ),
    "loss": _words(
        "adistsloss aesoploss averageloss bcewithlogitsdiceloss bicubicloss charbonnierloss colorloss "
        "contextualloss cosimloss distsloss ffloss fftloss fliploss ganloss gradientvarianceloss hsluvloss l1loss "
        "ldlloss linedistillerloss lumaloss mseloss mssimloss msssiml1loss multiscaleganloss nccloss "
        "perceptualanimeloss perceptualfp16loss perceptualloss psnrloss sobeledgeloss ssimloss "
        "structuretextureloss chcloss checkerboardloss consistencyloss contrastiveloss convnextperceptualloss "
        "dinoperceptualloss huberloss laplacianpyramidloss modelasloss multiscaler3ganloss r3ganloss tvloss "
        "hrinversionloss dinov2loss topiqloss pdloss fdloss klloss"
    ),
    "metric": _words("dists lpips psnr ssim topiq topiq_nr"),
    "data set": _words(
        "basedataset pairedimagedataset pairedvideodataset realesrgandataset realesrganpaireddataset "
        "singlegtdataset singleimagedataset singlelqdataset singlevideodataset"
    ),
    "optimizer": _words(
        "AdamWScheduleFree Adan AdanScheduleFree Adam AdamW NAdam RAdam SGD RMSprop StableAdamW SOAP ADOPT Lion Prodigy"
    ),
    "scheduler": _words(
        "CyclicLR LambdaLR MultiplicativeLR SequentialLR ChainedScheduler CosineAnnealingWarmupLR KneeLR"
    ),
}
"""By kind: the names that are known to exist; consulted only for a name that is not registered."""
