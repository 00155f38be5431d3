"""Features of torchvision's networks: from a file, by a seed, cut off, constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from traiNNer.utils.errors import ConfigError
from traiNNer.utils.pretrained import torchvision_features


def random_file(path: Path, **changes: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """AlexNet's first convolution as torchvision's file has it, the rest left out or as `changes` say."""
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {"features.0.weight": (64, 3, 11, 11), "features.0.bias": (64,), **changes}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(state, path)
    return str(path), state


def test_a_file_needs_only_the_layers_that_are_kept(tmp_path: Path) -> None:
    path, state = random_file(tmp_path / "weights.pth", **{"classifier.1.bias": (7,)})
    network = torchvision_features("alexnet", 2, weights_path=path)
    image = torch.rand(1, 3, 32, 32)
    expected = torch.conv2d(image, state["features.0.weight"], state["features.0.bias"], stride=4, padding=2).relu()
    assert len(network) == 2
    assert torch.equal(network(image), expected)


def test_a_file_in_the_hub_cache_is_taken_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    _, state = random_file(tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    network = torchvision_features("alexnet", 1)
    assert torch.equal(network[0].weight, state["features.0.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.0.bias": (65,)}, r"features.0.bias has the shape \(65,\), not \(64,\)"),
        ({"features.0.weight": (1,)}, "features.0.weight has the shape"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path, _ = random_file(tmp_path / "weights.pth", **changes)
    with pytest.raises(ConfigError, match=f"weights_path: .*does not hold alexnet-owt-7be5be79.pth: {message}"):
        torchvision_features("alexnet", 2, weights_path=path)
    with pytest.raises(ConfigError, match=r"features.3.weight is missing|has the shape"):
        torchvision_features("alexnet", 4, weights_path=path)


def test_random_weights_leave_the_generators_alone() -> None:
    before = torch.get_rng_state()
    first, second = (torchvision_features("vgg19", 3, pretrained=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[2].weight, second[2].weight)
    assert first[2].weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_features_are_constant() -> None:
    network = torchvision_features("squeezenet1_1", 4, pretrained=False)
    assert list(network.parameters()) == []
    assert network.state_dict() == {}
    assert next(network.buffers()).device.type == "cpu"
    assert {buffer.dtype for buffer in network.double().buffers()} == {torch.float64}
