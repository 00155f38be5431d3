"""Weights files of many origins: read, refused, fitted into a network."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.weights import WeightsFile, check_fits, load_into, network_metadata, read_weights


def make_net(scale: int = 2, features: int = 4) -> nn.Sequential:
    """A network of one hidden layer with pixel shuffle."""
    net = nn.Sequential(nn.Conv2d(3, features, 3), nn.Conv2d(features, 3 * scale**2, 3), nn.PixelShuffle(scale))
    net.network_info = NetworkInfo(type="tiny", scale=scale, parameters={"features": features, "dims": (1, 2)})
    return net


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return make_net()


@pytest.fixture
def other() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return tensors_of(make_net())


def save(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


WRAPPINGS = {
    "bare": lambda own, other: own,
    "params": lambda own, other: {"params": own},
    "params_ema before params": lambda own, other: {"params": other, "params_ema": own},
    "params-ema before params": lambda own, other: {"params": other, "params-ema": own},
    "state_dict with a counter": lambda own, other: {"epoch": 3, "state_dict": own},
    "module.": lambda own, other: {f"module.{name}": value for name, value in own.items()},
    "compiled": lambda own, other: {f"_orig_mod.{name}": value for name, value in own.items()},
    "both": lambda own, other: {"params": {f"module._orig_mod.{name}": value for name, value in own.items()}},
    "averaged": lambda own, other: {"n_averaged": torch.tensor(5)} | {f"module.{k}": v for k, v in own.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_is_read(wrapping: str, net: nn.Sequential, other: dict[str, Tensor], tmp_path: Path) -> None:
    content = WRAPPINGS[wrapping](tensors_of(net), other)
    assert equal(read_weights(save(tmp_path / "x.pth", content)).tensors, tensors_of(net))
    if all(isinstance(value, Tensor) for value in content.values()):
        assert equal(read_weights(save(tmp_path / "x.safetensors", content)).tensors, tensors_of(net))


def test_param_key_chooses_the_set(net: nn.Sequential, other: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"params": tensors_of(net), "params_ema": other, "iter": 5})
    assert equal(read_weights(path, param_key="params").tensors, tensors_of(net))
    assert equal(read_weights(path, param_key="params_ema").tensors, other)
    with pytest.raises(ConfigError, match=r"'param_ema'.*accepted as param_key: params, params_ema.*mean params_ema"):
        read_weights(path, param_key="param_ema")
    with pytest.raises(ConfigError, match="accepted as param_key: null, the file holds bare weights"):
        read_weights(save(tmp_path / "bare.pth", other), param_key="params")


def test_old_files_of_torch_are_read(net: nn.Sequential, tmp_path: Path) -> None:
    torch.save({"params": tensors_of(net)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert equal(read_weights(tmp_path / "x.pth").tensors, tensors_of(net))


def test_metadata_describe_the_network(net: nn.Sequential, tmp_path: Path) -> None:
    info = net.network_info
    save_file(tensors_of(net), tmp_path / "x.safetensors", metadata=network_metadata(info, 1200))
    metadata = read_weights(tmp_path / "x.safetensors").metadata
    assert json.loads(metadata.pop("parameters")) == {"features": 4, "dims": [1, 2]}
    version = metadata.pop("framework_version")
    assert version.count(".") == 2
    assert metadata == {"framework": "traiNNer", "type": "tiny", "scale": "2", "iteration": "1200"}


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"echo > {self.marker}",)


@pytest.mark.parametrize("how", ["zip", "old", "pickle"])
def test_a_file_that_would_run_code_is_refused(how: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "ran"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"params": Evil(marker)}))
    else:
        torch.save({"params": Evil(marker)}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ConfigError, match=r"evil\.pth.*run code.*accepted") as caught:
        read_weights(path)
    assert len(str(caught.value).splitlines()) == 1
    assert how == "pickle" or "system" in str(caught.value)
    assert not marker.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["safetensors", "pth", "old"])
def test_a_truncated_file_is_named(kind: str, share: float, net: nn.Sequential, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind.replace('old', 'pth')}"
    if kind == "old":
        torch.save(tensors_of(net), path, _use_new_zipfile_serialization=False)
    else:
        save(path, tensors_of(net))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ConfigError, match=r"x\.\w+, which is damaged") as caught:
        read_weights(path)
    assert len(str(caught.value).splitlines()) == 1


def test_other_files_are_explained(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "program.pt")
    torch.save({"iter": 1, "optimizers": []}, tmp_path / "state.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "5.state").touch()
    (tmp_path / "folder.pth").mkdir()
    for name, message in {
        "program.pt": "TorchScript",
        "state.pth": "no weights but iter, optimizers",
        "list.pth": "holds a list",
        "5.state": r"accepted: a file ending in .*resume_state",
        "folder.pth": "a folder",
        "nothing.pth": r"nothing\.pth, which is no file",
    }.items():
        with pytest.raises(ConfigError, match=message):
            read_weights(tmp_path / name)


def test_a_fitting_file_is_loaded_whole(net: nn.Sequential, other: dict[str, Tensor]) -> None:
    report = load_into(net, WeightsFile(Path("x.pth"), other), strict=True, where="net_g")
    assert report.fits
    assert report.lines == []
    assert report.loaded == 4
    assert equal(tensors_of(net), other)


def test_half_precision_files_are_loaded_in_full(net: nn.Sequential, other: dict[str, Tensor]) -> None:
    halves = {name: value.half() for name, value in other.items()}
    load_into(net, WeightsFile(Path("x.pth"), halves), strict=True, where="net_g")
    assert equal(tensors_of(net), {name: value.float() for name, value in halves.items()})


def test_another_scale_loads_what_fits_and_says_what_did_not(net: nn.Sequential) -> None:
    torch.manual_seed(2)
    before, x4 = tensors_of(net), make_net(scale=4)
    weights = WeightsFile(Path("x4.pth"), tensors_of(x4), network_metadata(x4.network_info, 1))
    with pytest.raises(
        ConfigError, match=r"x4\.pth does not fit tiny x2: 2 of another shape: 1\.weight \(48x4x3x3 in"
    ) as caught:
        load_into(net, weights, strict=True, where="pretrain_network_g")
    assert "the file looks like tiny x4" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert equal(tensors_of(net), before)
    report = load_into(net, weights, strict=False, where="pretrain_network_g")
    assert report.lines == [
        "pretrain_network_g: 2 of the network's 4 tensors were loaded from x4.pth",
        "  2 of another shape: 1.weight (48x4x3x3 in the file, 12x4x3x3 in the network), "
        "1.bias (48 in the file, 12 in the network)",
    ]
    after = tensors_of(net)
    assert equal(
        {name: after[name] for name in ("0.weight", "0.bias")}, {k: v for k, v in tensors_of(x4).items() if k[0] == "0"}
    )
    assert torch.equal(after["1.weight"], before["1.weight"])


def test_checking_changes_nothing(net: nn.Sequential, other: dict[str, Tensor]) -> None:
    before = tensors_of(net)
    assert check_fits(net, WeightsFile(Path("x.pth"), other), strict=True, where="net_g").fits
    assert equal(tensors_of(net), before)


def test_missing_and_unknown_names_are_listed_and_capped(net: nn.Sequential) -> None:
    tensors = {f"body.{index}.weight": torch.zeros(1) for index in range(50)}
    with pytest.raises(
        ConfigError, match=r"missing in the file: 0\.weight.*50 unknown to the network:.* and 46 more"
    ) as caught:
        check_fits(net, WeightsFile(Path("x.pth"), tensors), strict=True, where="net_g")
    assert "looks like another network" in str(caught.value)
    assert len(str(caught.value)) < 600
    report = load_into(net, WeightsFile(Path("x.pth"), tensors), strict=False, where="net_g")
    assert report.loaded == 0
    assert "nothing in it fits" in report.lines[0]


def test_what_a_network_derives_by_itself_need_not_fit(net: nn.Sequential, other: dict[str, Tensor]) -> None:
    net.register_buffer("attn_mask", torch.zeros(4))
    weights = WeightsFile(Path("x.pth"), {**other, "attn_mask": torch.zeros(9), "0.relative_index": torch.zeros(2)})
    with pytest.raises(ConfigError, match="attn_mask"):
        check_fits(net, weights, strict=True, where="net_g")
    net.derived_buffers = ("attn_mask", "relative_index")
    assert load_into(net, weights, strict=True, where="net_g").fits
    assert net.attn_mask.shape == (4,)


def test_weights_of_a_published_network_are_recognized(net: nn.Sequential) -> None:
    from spandrel.architectures.Compact import Compact

    tensors = Compact(num_feat=8, num_conv=2, upscale=3).state_dict()
    with pytest.raises(ConfigError, match=r"the file looks like .*Compact x3;"):
        check_fits(net, WeightsFile(Path("x.pth"), tensors), strict=True, where="net_g")
