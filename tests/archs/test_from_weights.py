"""Networks from nothing but a weights file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from traiNNer.archs import build_network
from traiNNer.archs.from_weights import network_from_weights
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.weights import network_metadata

LQ = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))


def tensors_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in net.state_dict().items()}


def test_foreign_weights_are_recognized(tmp_path: Path) -> None:
    net = build_network({"type": "span", "feature_channels": 8, "scale": 2}).eval()
    torch.save({"params_ema": tensors_of(net)}, tmp_path / "2x.pth")
    found = network_from_weights(tmp_path / "2x.pth")
    assert not found.training
    info = found.network_info
    assert (info.type, info.scale, info.in_channels, info.minimum) == ("SPAN", 2, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(found(LQ), net(LQ), rtol=0, atol=1e-6)


def test_sizes_that_a_recognized_network_needs_are_known(tmp_path: Path) -> None:
    save_file(tensors_of(build_network({"type": "safmn", "dim": 8, "n_blocks": 1})), tmp_path / "x.safetensors")
    assert network_from_weights(tmp_path / "x.safetensors").network_info.multiple_of == 8


@pytest.mark.parametrize("fused", [False, True])
def test_paragonsr2_before_and_after_fusing(fused: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_network({"type": "paragonsr2_nano", "scale": 2}).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
        if fused:
            net = net.fuse_for_release()
        info = net.network_info
        save_file(tensors_of(net), tmp_path / "x.safetensors", metadata=network_metadata(info, 7))
        found = network_from_weights(tmp_path / "x.safetensors")
        torch.testing.assert_close(found(LQ), net(LQ))
    assert found.network_info == info


def test_what_cannot_be_recognized_is_said(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"a\.safetensors, whose network is not recognized; accepted"):
        network_from_weights(tmp_path / "a.safetensors")
    metadata = {"type": "paragonsr9", "scale": "2", "parameters": json.dumps({"scale": 2})}
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "b.safetensors", metadata=metadata)
    with pytest.raises(ConfigError, match=r"b\.safetensors, whose metadata name .*unknown network 'paragonsr9'"):
        network_from_weights(tmp_path / "b.safetensors")
    save_file({"a.weight": torch.zeros(3)}, tmp_path / "c.safetensors", metadata=metadata | {"type": "compact"})
    with pytest.raises(ConfigError, match=r"c\.safetensors does not fit compact x2"):
        network_from_weights(tmp_path / "c.safetensors")
    with pytest.raises(ConfigError, match=r"none\.safetensors"):
        network_from_weights(tmp_path / "none.safetensors")
