"""The networks in perceptual losses: constant, repeatable, no larger than needed, and differentiated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from traiNNer.losses import build_loss
from traiNNer.utils.errors import ConfigError

LOSSES = ["perceptualloss", "convnextperceptualloss", "distsloss", "lpipsloss", "contextualloss"]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_names_weights_path_when_there_is_no_file_and_no_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens on the discard port
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*weights_path: FILE, or the file at .*checkpoints"):
        build_loss({"type": name})
    with pytest.raises(ConfigError, match=r"weights_path: found .*nothing.pth, which is no file"):
        build_loss({"type": name, "weights_path": str(tmp_path / "nothing.pth")})


@pytest.mark.parametrize("name", LOSSES)
def test_random_weights_are_the_same_in_every_run_and_leave_the_generators_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, second = (build_loss({"type": name, "pretrained": False}) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [key for key, _ in first.named_buffers()] == [key for key, _ in second.named_buffers()]
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_a_losss_network_never_changes_and_is_in_no_checkpoint(name: str) -> None:
    loss = build_loss({"type": name, "pretrained": False})
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}
    loss.load_state_dict({})
    assert not any(buffer.requires_grad for buffer in loss.buffers())
    pair = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    value = loss(*pair)
    loss.train()  # stochastic depth and dropout stay off
    assert not any(module.training for module in loss.features.modules())
    assert loss(*pair) == value


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_slope_of_the_value(name: str) -> None:
    loss = build_loss({"type": name, "pretrained": False})
    generator = torch.Generator().manual_seed(0)
    output, target, direction = torch.rand(3, 1, 3, 32, 32, generator=generator, dtype=torch.float64)
    output.requires_grad_()
    loss(output, target).backward()
    step = 1e-8 * (direction - 0.5)  # small, so that no maximum changes place
    with torch.no_grad():
        slope = (loss(output + step, target) - loss(output - step, target)) / 2
    assert (output.grad * step).sum().item() == pytest.approx(slope.item(), rel=1e-3)


def test_only_what_is_needed_is_kept() -> None:
    loss = build_loss({"type": "perceptualloss", "pretrained": False, "layers": ["relu1_2", "conv2_1"]})
    assert len(loss.features.layers) == 6
    assert sum(buffer.numel() for buffer in loss.buffers()) < 120_000
