"""The 64 generators through spandrel: built, trained for a step, and loaded by spandrel's own loader."""

import copy
import json
import pickle
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from traiNNer.archs import build_network, channels
from traiNNer.archs.from_weights import network_from_weights
from traiNNer.archs.spandrel_arch import default_parameters, scales_of
from traiNNer.archs.spandrel_family import Family
from traiNNer.archs.spandrel_parameters import PARAMETERS
from traiNNer.archs.spandrel_table import FAMILIES
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError, RunError
from traiNNer.utils.registry import NETWORKS
from traiNNer.utils.weights import load_into, network_metadata, read_weights

NAMES = [
    "atd",
    "atd_light",
    "craft",
    "dctlsa",
    "ditn_real",
    "esrgan",
    "esrgan_lite",
    "grl_b",
    "grl_s",
    "grl_t",
    "mosr",
    "mosr_t",
    "nafnet32",
    "nafnet64",
    "omnisr",
    "plksr",
    "plksr_tiny",
    "realcugan",
    "rgt",
    "rgt_s",
    "safmn",
    "safmn_l",
    "seemore_t",
    "swin2sr_l",
    "swin2sr_m",
    "swin2sr_s",
    "swinir_l",
    "swinir_m",
    "swinir_s",
    "compact",
    "dat",
    "dat_2",
    "dat_2_l",
    "dat_light",
    "dat_s",
    "drct",
    "drct_l",
    "drct_xl",
    "fdat",
    "fdat_large",
    "fdat_light",
    "fdat_medium",
    "fdat_medium_aligned",
    "fdat_tiny",
    "fdat_xl",
    "hat_l",
    "hat_l_aligned",
    "hat_m",
    "hat_m_aligned",
    "hat_s",
    "moesr2",
    "rcan",
    "rcan_l",
    "rcan_unshuffle",
    "realplksr",
    "realplksr_large",
    "realplksr_tiny",
    "span",
    "span_f32",
    "span_f64",
    "span_f96",
    "span_s",
    "superultracompact",
    "ultracompact",
]

FAMILY = {name: family for family in FAMILIES for name in family.variants}

TWO = {"depths": [2, 2], "num_heads": [2, 2], "embed_dim": 16}
SMALL: dict[str, dict[str, Any]] = {
    "atd": TWO | {"window_size": 8, "num_tokens": 8, "reducted_dim": 3, "img_size": 16},
    "craft": {"embed_dim": 24, "depths": [1, 1], "num_heads": [6, 6]},
    "compact": {"num_feat": 8, "num_conv": 2},
    "dat": {"depth": [3, 2], "num_heads": [2, 2], "embed_dim": 16, "split_size": [4, 8], "img_size": 16},
    "dctlsa": {"nf": 20},
    "ditn_real": {"dim": 8, "ITL_blocks": 2, "SAL_blocks": 2},
    "drct": TWO | {"window_size": 8, "img_size": 16},
    "esrgan": {"num_filters": 8, "num_blocks": 2},
    "fdat": {"embed_dim": 16, "num_groups": 2, "depth_per_group": 2, "num_heads": 2, "mid_dim": 8},
    "grl_t": {"embed_dim": 8, "depths": [1], "num_heads_window": [1], "num_heads_stripe": [1]},
    "hat_m": TWO | {"window_size": 8, "compress_ratio": 4, "squeeze_factor": 4, "num_feat": 8},
    "moesr2": {"dim": 16, "n_blocks": 2, "n_block": 2, "upsample_dim": 8},
    "mosr": {"dim": 8, "n_block": 2},
    "nafnet32": {"width": 8, "enc_blk_nums": [1, 2], "middle_blk_num": 2, "dec_blk_nums": [2, 1]},
    "omnisr": {"num_feat": 16, "res_num": 2},
    "plksr": {"dim": 16, "n_blocks": 2, "kernel_size": 5},
    "realplksr": {"dim": 16, "n_blocks": 2, "kernel_size": 5},
    "rcan": {"n_resgroups": 2, "n_resblocks": 2, "n_feats": 16, "reduction": 4},
    "rgt": {"depth": [3, 3], "num_heads": [2, 2], "embed_dim": 16, "split_size": [4, 8], "img_size": 16},
    "realcugan": {},
    "safmn": {"dim": 8, "n_blocks": 2},
    "span": {"feature_channels": 8},
    "seemore_t": {"embedding_dim": 8, "num_layers": 2, "global_kernel_size": 5},
    "swin2sr_m": TWO | {"window_size": 4, "img_size": 16},
    "swinir_m": TWO | {"window_size": 4, "img_size": 16},
}
"""A small network of each family; what spandrel's loader has to guess keeps its default."""

STILL = {"drop_path_rate": 0.0, "drop_path": 0.0}
"""Nothing is skipped at random."""


def small(name: str, **others: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network({"type": name, **SMALL[name], **others})


def still(name: str) -> dict[str, Any]:
    return {key: value for key, value in STILL.items() if key in FAMILY[name].defaults}


def smallest(net: nn.Module, batch: int = 1, at_least: int = 1) -> Tensor:
    """An image that the network takes, not square."""
    info: NetworkInfo = net.network_info
    side = -(-max(info.minimum, at_least) // info.multiple_of) * info.multiple_of
    return torch.rand(batch, 3, side, side + info.multiple_of, generator=torch.Generator().manual_seed(1))


def move(net: nn.Module, spread: float = 0.02) -> None:
    """Leave the initial weights, where some factors are zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))


def matches(name: str, patterns: Any) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def check_a_step(net: nn.Module, family: Family, batch: int = 2) -> None:
    move(net)
    lq = smallest(net, batch)
    before = lq.clone()
    trained = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    frozen = {name for name, _ in net.named_parameters()} - set(trained)
    values = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    output = net.train()(lq)
    assert torch.equal(lq, before)
    assert output.shape == (batch, 3, *(net.network_info.scale * side for side in lq.shape[2:]))
    (output - torch.rand(output.shape)).abs().sum().backward()
    assert {name for name, parameter in trained.items() if parameter.grad is None} == set()
    assert all(parameter.grad.isfinite().all() for parameter in trained.values())
    pushed = {name for name in trained if not matches(name, family.may_be_zero)}
    assert {name for name in pushed if not trained[name].grad.any()} == set()
    optimizer.step()
    assert {name for name in pushed if torch.equal(values[name], trained[name])} == set()
    assert frozen == {name for name, _ in net.named_parameters() if matches(name, family.untrained)}


def load_elsewhere(net: nn.Module, path: Path) -> Any:
    import spandrel

    save_file({name: tensor.contiguous() for name, tensor in net.eval().state_dict().items()}, path)
    return spandrel.ModelLoader().load_from_file(path)


def assert_same_elsewhere(net: nn.Module, path: Path) -> None:
    """spandrel's loader finds the same network, with the same output and the same facts about it."""
    move(net)
    elsewhere, info = load_elsewhere(net, path), net.network_info
    lq = smallest(net)
    with torch.no_grad():
        torch.testing.assert_close(net(lq), elsewhere.model.eval()(lq), rtol=0, atol=1e-6)
    assert (elsewhere.scale, elsewhere.input_channels, elsewhere.output_channels) == (info.scale, 3, 3)
    assert (elsewhere.supports_half, elsewhere.supports_bfloat16) == (info.supports_half, info.supports_bfloat16)
    size = elsewhere.size_requirements
    assert info.multiple_of % size.multiple_of == 0
    assert info.minimum >= size.minimum
    assert not size.square


def test_all_64_names_are_offered_with_traiNNer_reduxs_defaults() -> None:
    assert set(FAMILY) == set(NAMES)
    assert len(NAMES) == 64
    assert set(NAMES) <= set(NETWORKS.names())
    assert NETWORKS.validate({"type": "swinir_m"})["img_size"] == 48
    assert NETWORKS.validate({"type": "span"})["feature_channels"] == 52
    assert NETWORKS.validate({"type": "hat_s"})["compress_ratio"] == 24
    assert NETWORKS.validate({"type": "dat_light"})["depth"] == (18,)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_what_the_signature_accepts(name: str) -> None:
    family = FAMILY[name]
    assert set(family.defaults) - set(PARAMETERS) <= set(family.annotations) | set(family.only)
    defaults = default_parameters(name, family)
    written = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    for scale in scales_of(name, family):
        assert NETWORKS.validate({"type": name, **written, "scale": scale}) == defaults | {"scale": scale}


def test_spandrel_is_imported_only_to_build() -> None:
    code = (
        "import sys, traiNNer.archs.spandrel_arch as a; a.NETWORKS.validate({'type': 'swinir_m', 'scale': 2});"
        "print([m for m in sys.modules if m.startswith(('spandrel', 'torchvision'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", SMALL)
class TestSmall:
    def test_takes_a_training_step(self, name: str) -> None:
        check_a_step(small(name, **still(name)), FAMILY[name])

    def test_weights_load_in_spandrels_loader(self, name: str, tmp_path: Path) -> None:
        net = small(name)
        assert net.network_info.type == name
        assert_same_elsewhere(net, tmp_path / "x.safetensors")

    def test_is_built_again_from_its_file_copied_and_pickled(self, name: str, tmp_path: Path) -> None:
        net = small(name).eval()
        move(net)
        tensors = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
        save_file(tensors, tmp_path / "x.safetensors", metadata=network_metadata(net.network_info, 5))
        again = network_from_weights(tmp_path / "x.safetensors")
        assert again.network_info == net.network_info
        lq = smallest(net)
        with torch.no_grad():
            expected = net(lq)
            for other in (again, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
                assert torch.equal(other(lq), expected)
                move(net)
                assert torch.equal(other(lq), expected)  # with weights of its own

    def test_misspelled_and_impossible_parameters_are_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match="unknown key; accepted: "):
            build_network({"type": name, "embed_dims": 3})
        with pytest.raises(ConfigError, match=r"scale: found 7; accepted: "):
            build_network({"type": name, "scale": 7})
        for key, reason in FAMILY[name].only.items():
            default = default_parameters(name, FAMILY[name])[key]
            other = (not default) if isinstance(default, bool) else "else" if isinstance(default, str) else 9
            with pytest.raises(ConfigError, match=rf"{key}: found .*; accepted: .*{re.escape(reason)}"):
                build_network({"type": name, key: other})


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_scale_loads_in_spandrels_loader(name: str, tmp_path: Path) -> None:
    for scale in scales_of(name, FAMILY[name]):
        others = {"unshuffle_mod": True} if name == "rcan" and scale == 1 else {}
        assert_same_elsewhere(small(name, scale=scale, **others), tmp_path / "x.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fdat_tiny", "swin2sr_l", "swinir_l", "rcan_unshuffle"])
def test_scales_of_other_upsamplers_load_in_spandrels_loader(name: str, tmp_path: Path) -> None:
    sibling = next(sibling for sibling in SMALL if FAMILY[sibling] is FAMILY[name])
    for scale in scales_of(name, FAMILY[name]):
        net = build_network({"type": name, **SMALL[sibling], "scale": scale})
        assert_same_elsewhere(net, tmp_path / "x.safetensors")


LIGHT = 2_000_000
"""Parameters of a network whose step takes seconds."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_at_its_defaults(name: str, tmp_path: Path) -> None:
    """The published sizes: spandrel's loader, and where it takes seconds a step on the smallest image.

    Each family takes a step at a small size in another test.
    """
    torch.manual_seed(0)
    net = build_network({"type": name, **still(name)})
    expected = default_parameters(name, FAMILY[name]) | still(name)
    assert net.network_info.parameters == json.loads(json.dumps(expected))
    if sum(parameter.numel() for parameter in net.parameters()) < LIGHT:
        check_a_step(net, FAMILY[name])
    assert_same_elsewhere(net, tmp_path / "x.safetensors")


ALIKE = {
    "img_size": "attention masks are computed for other sizes when they come",
    "use_chk": "changes memory and time only",
    "use_checkpoint": "changes memory and time only",
}
"""Parameters without an effect on the output."""

TOGETHER: dict[str, dict[str, Any]] = {
    "norm_groups": {"layer_norm": False},
    "rgb_range": {"norm": True},
    "img_range/span": {"norm": True},
    "rgb_mean": {"norm": True},
    "sparse_kernels": {"lk_type": "SparsePLK"},
    "sparse_dilations": {"lk_type": "SparsePLK"},
    "use_max_kernel": {"lk_type": "SparsePLK"},
    "fast": {"scale": 2},
    "unshuffle_mod": {"scale": 2},
    "use_pixel_unshuffle": {"scale": 2},
    "anchor_one_stage": {"anchor_proj_type": "conv2d"},
    "local_connection": {"embed_dim": 24},
    "upsample_dim": {"upsampler": "pixelshuffle"},
}
"""What a parameter needs to have an effect."""

ELSEWHERE: dict[str, list[Any]] = {
    "qk_scale": [0.3],
    "group_block_pattern": [("channel",)],
    "enc_blk_nums": [(1, 1)],
    "dec_blk_nums": [(1, 1)],
    "stripe_groups": [(2, None)],
    "drop_path_rate": [0.6],
    "dropout": [0.5],
    "sparse_kernels": [(3, 5, 5, 5)],
    "mlp_ratio": [3],
    "img_size": [32],
    "recursive": [1],
    "split_size_0": [8],
    "split_size_1": [8],
    "expansion_factor": [3],
    "expansion_msg": [2.0],
    "expansion_ratio": [2.0],
    "stripe_size": [(16, 16)],
    "pretrained_window_size": [(4, 4)],
    "pretrained_stripe_size": [(4, 4)],
}


def away_from(default: Any, key: str, annotation: Any) -> list[Any]:
    """Values other than the default."""
    kind = typing.get_args(annotation)[0]
    if key in ELSEWHERE:
        return ELSEWHERE[key]
    if typing.get_origin(kind) is typing.Literal:
        return [value for value in typing.get_args(kind) if value != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int) and key.endswith("kernel_size"):
        return [default + 2]
    if isinstance(default, tuple):
        return [tuple(2 * value for value in default)]
    return [default / 2] if isinstance(default, float) and default else [2 * default or 0.3]


def behaviour(name: str, parameters: dict[str, Any]) -> list[Any]:
    """Shapes, initial weights, and what the network does in evaluation and in training."""
    torch.manual_seed(0)
    net = build_network({"type": name, **parameters})
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    start = [round(float(parameter.detach().double().abs().sum()), 6) for parameter in net.parameters()]
    move(net, 0.2)
    lq = smallest(net, 2, at_least=32)
    with torch.no_grad():
        outputs = [net.eval()(lq[:1])]
        torch.manual_seed(3)
        outputs += [net.train()(lq) for _ in range(3)]
    assert all(output.isfinite().all() for output in outputs)
    return [shapes, start, [output.numpy().tobytes() for output in outputs]]


def aliases(name: str, key: str) -> set[Any]:
    return {"ps"} if (name, key) == ("mosr", "upsampler") else set()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_has_an_effect(name: str) -> None:
    family = FAMILY[name]
    small_grl = {"embed_dim": 24, "depths": [4], "window_size": 8, "stripe_size": [8, 16], "img_size": 16}
    base = SMALL[name] | (small_grl if name == "grl_t" else {})
    signature = NETWORKS.get(name).__signature__
    without_effect = []
    for key in NETWORKS.validate({"type": name, **base}):
        if key == "scale" or key in family.only or key in ALIKE:
            continue
        if key in channels.NAMES:  # input and output at once, in `test_other_channels_than_those_of_images`
            continue
        with_it = base | TOGETHER.get(f"{key}/{name}", TOGETHER.get(key, {}))
        default_there = NETWORKS.validate({"type": name, **with_it})[key]
        usual = behaviour(name, with_it)
        values = away_from(default_there, key, signature.parameters[key].annotation)
        effects = []
        for value in values:
            if value in aliases(name, key):
                continue
            try:
                effects.append(behaviour(name, with_it | {key: value}) != usual)
            except ConfigError:
                continue  # refused, which is not silent either
        if values and not (effects and all(effects)):
            without_effect.append(key)
    assert without_effect == []


@pytest.mark.parametrize(
    ("name", "key"),
    [("dat", "use_chk"), ("rgt", "use_chk"), ("swinir_m", "use_checkpoint"), ("swin2sr_m", "use_checkpoint")],
)
def test_recomputing_activations_gives_the_same_gradients(name: str, key: str) -> None:
    gradients = []
    for value in (False, True):
        net = small(name, **still(name), **{key: value}).train()
        net(smallest(net, 2)).sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "swinir_m", "depths": [2, 2], "num_heads": [2]}, "depths has 2 values and num_heads has 1 values"),
        ({"type": "swinir_m", "embed_dim": 50}, "do not go together"),
        ({"type": "mosr", "kernel_size": 6}, "kernel_size: found 6; accepted: an odd number"),
        ({"type": "esrgan", "scale": 3}, "scale: found 3; accepted: 1, 2, 4 or 8"),
        ({"type": "nafnet32", "scale": 2}, "scale: found 2; accepted: 1"),
        ({"type": "swin2sr_l", "scale": 2}, "scale: found 2; accepted: 4"),
        ({"type": "swinir_m", "upsampler": "nearest+conv", "scale": 3}, "do not go together"),
        ({"type": "moesr2", "upsampler": "conv", "n_blocks": 1}, r"the output is \S+ instead of"),
        ({"type": "realcugan", "fast": True}, "fast goes with scale 2"),
        ({"type": "rcan", "scale": 1}, "scale 1 goes with unshuffle_mod"),
        ({"type": "compact", "num_in_ch": 0}, "num_in_ch: found 0; accepted: at least 1"),
        ({"type": "ditn_real", "inp_channels": 2, **SMALL["ditn_real"]}, r"the output is \S+ instead of 1x2x"),
        ({"type": "realplksr", "in_ch": 2}, r"in_ch: found 2; accepted: 3 \(images are RGB\)"),
        ({"type": "span", "feature_channels": "many"}, "feature_channels: found 'many'; accepted: a whole number"),
    ],
)
def test_what_does_not_work_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_network(options)
    assert len(str(caught.value).splitlines()) == 1


RGB_ONLY = {"craft", "ditn_real", "plksr", "realplksr", "safmn", "seemore_t"}
"""Families whose networks in spandrel are for three channels."""


@pytest.mark.parametrize("name", [name for name in SMALL if name not in RGB_ONLY])
def test_other_channels_than_those_of_images(name: str) -> None:
    """Building with parameters away from the defaults enlarges one field of so many channels."""
    family = FAMILY[name]
    names = [key for key in channels.NAMES if key in family.defaults]
    scale = min(scales_of(name, family), key=lambda each: abs(each - 2))
    net = small(name, scale=scale, **dict.fromkeys(names, 2))
    info = net.network_info
    assert (info.in_channels, info.out_channels) == (2, 2)
    assert names


def test_building_leaves_the_random_state_to_the_weights() -> None:
    """Trying out other parameters draws nothing."""
    from spandrel.architectures.DRCT import DRCT

    net = small("drct")
    after = torch.rand(1)
    torch.manual_seed(0)
    DRCT(**TWO, window_size=8, img_size=16, upsampler="pixelshuffle", upscale=4)
    assert torch.equal(torch.rand(1), after)
    assert net.training


def test_masks_of_another_image_size_do_not_matter(tmp_path: Path) -> None:
    """As in published weights, which were trained on other crops."""
    net, other = small("swinir_m", img_size=32).eval(), small("swinir_m").eval()
    move(net)
    save_file(net.state_dict(), tmp_path / "x.safetensors")
    assert load_into(other, read_weights(tmp_path / "x.safetensors"), strict=True, where="net_g").fits
    lq = smallest(net)
    with torch.no_grad():
        assert torch.equal(net(lq), other(lq))


class TestSpan:
    def test_evaluation_equals_training_and_changes_nothing(self) -> None:
        net = small("span")
        move(net, 0.1)
        lq = smallest(net, at_least=16)
        state = {name: tensor.clone() for name, tensor in net.named_parameters()}
        with torch.no_grad():
            trained = net.train()(lq)
            with torch.autocast("cpu", torch.bfloat16):
                net.eval()(lq)
            torch.testing.assert_close(net.eval()(lq), trained, rtol=1e-4, atol=1e-5)
        after = dict(net.named_parameters())
        assert all(torch.equal(state[name], after[name]) for name in state)

    def test_saved_weights_hold_the_merged_ones(self) -> None:
        net = small("span")
        move(net, 0.1)
        conv, features = net.conv_1, torch.rand(1, 3, 8, 8)
        saved = net.state_dict()
        weight, bias = saved["conv_1.eval_conv.weight"], saved["conv_1.eval_conv.bias"]
        merged = nn.functional.conv2d(features, weight, bias, padding=1)
        torch.testing.assert_close(merged, conv.train()(features), rtol=1e-4, atol=1e-5)


def test_seemore_chooses_for_each_image_of_a_batch() -> None:
    net = small("seemore_t").eval()
    move(net, 0.3)
    lq = torch.cat((smallest(net, 3), 1 - smallest(net, 1)))
    with torch.no_grad():
        torch.testing.assert_close(net(lq), torch.cat([net(image) for image in lq.split(1)]), rtol=1e-3, atol=1e-3)


def test_rcan_leaves_its_input_alone() -> None:
    net = small("rcan", norm=True)
    lq = smallest(net)
    before = lq.clone()
    net(lq)
    assert torch.equal(lq, before)
    assert not net.sub_mean.weight.requires_grad


def test_batch_normalization_of_one_image_is_explained() -> None:
    net = small("dat").train()
    with pytest.raises(RunError, match=r"dat trains on at least 2 images at a time.*batch_size_per_gpu"):
        net(smallest(net))
    assert net.eval()(smallest(net)).isfinite().all()


def test_noise_and_batch_statistics_are_known() -> None:
    assert small("dat", drop_path_rate=0.0).network_info.batch_coupled
    assert small("swinir_m").network_info.batch_coupled
    assert not small("swinir_m", drop_path_rate=0.0).network_info.batch_coupled
    assert small("realplksr", dropout=0.2).network_info.batch_coupled
    assert not small("realplksr").network_info.batch_coupled
