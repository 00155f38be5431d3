"""LPIPS and DISTS with random backbones; the published weights cannot be counted on in a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from traiNNer.metrics import build_metric
from traiNNer.utils.errors import ConfigError


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights files of torchvision's backbones with random weights, under the metric that reads them."""
    import torchvision

    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    builders = {"lpips": torchvision.models.alexnet, "dists": torchvision.models.vgg16}
    for name, build in builders.items():
        with torch.device("meta"):
            network = build(weights=None)
        generator = torch.Generator().manual_seed(1)
        state = {
            key: torch.randn(value.shape, generator=generator) * (2 / max(1, value[0].numel())) ** 0.5
            if key.startswith("features")
            else torch.zeros(1).expand(value.shape)  # never used, and takes no space in the file
            for key, value in network.state_dict().items()
        }
        torch.save(state, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in builders}


@pytest.mark.parametrize("name", ["lpips", "dists"])
@pytest.mark.parametrize("luma", [False, True])
def test_zero_at_identity_and_growing_with_the_error(backbones: dict[str, str], name: str, luma: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, 72, 80, generator=generator)
    noise = torch.randn(target.shape, generator=generator)
    state = torch.get_rng_state()
    metric = build_metric({"type": f"calculate_{name}", "weights_path": backbones[name], "test_y_channel": luma})
    values = [metric(target + strength * noise, target) for strength in (0.0, 0.05, 0.5)]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values[0] < values[1] < values[2]
    assert metric.better == "lower"
    assert torch.equal(torch.get_rng_state(), state)


def test_crop_leaves_the_border_out(backbones: dict[str, str]) -> None:
    target = torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    output = target.clone()
    output[..., :4] = 1 - output[..., :4]
    options = {"type": "lpips", "weights_path": backbones["lpips"]}
    assert build_metric(options)(output, target) > 1e-4
    assert build_metric({**options, "crop_border": 4})(output, target) == pytest.approx(0, abs=1e-6)


def test_the_hub_folder_is_left_as_it_was(backbones: dict[str, str]) -> None:
    before = torch.hub.get_dir()
    build_metric({"type": "lpips", "weights_path": backbones["lpips"]})
    assert torch.hub.get_dir() == before


def test_wrong_or_missing_weights_are_messages(backbones: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights_path.*nothing\.pth"):
        build_metric({"type": "lpips", "weights_path": str(tmp_path / "nothing.pth")})
    with pytest.raises(ConfigError, match=r"weights_path.*does not hold alexnet"):
        build_metric({"type": "lpips", "weights_path": backbones["dists"]})


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_without_a_network_the_message_says_where_the_file_belongs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens on the discard port
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*weights_path: FILE, or the file at .*checkpoints"):
        build_metric({"type": name})
