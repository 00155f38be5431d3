"""Spectral losses and metrics where a target is flat, weak, far from 0, or not what they measure."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from traiNNer.losses import build_loss
from traiNNer.metrics import build_metric
from traiNNer.utils.errors import ConfigError

SPECTRA = ("raps_distance", "hf_share", "grid_energy")


def white(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Flat images


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("options", [{}, {"quantization": 0.0}], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_a_flat_image_is_not_ruined_by_rounding(name: str, options: dict[str, float], level: float) -> None:
    target = torch.full((1, 3, 48, 64), level)
    output = target * (1 + 3e-8 * white(1, 3, 48, 64).float())
    assert build_metric({"type": name, **options})(output, target) < 1


@pytest.mark.parametrize(("name", "limit"), [("raps_distance", 3.5), ("hf_share", 0.1), ("grid_energy", 3.5)])
def test_noise_below_a_level_on_a_flat_image_counts_little(name: str, limit: float) -> None:
    """Noise of 0.001 has the power of rounding to 8 bits, so that it is a factor of two, 3 dB."""
    target = torch.ones(1, 3, 48, 64, dtype=torch.float64)
    metric = build_metric({"type": name})
    assert metric(target + 1e-3 * white(1, 3, 48, 64), target) < limit
    assert metric((target + 1e-3 * white(1, 3, 48, 64)).mul(255).round() / 255, target) < limit


def test_noise_of_rounding_is_what_the_floor_takes_it_for() -> None:
    """Values of many levels, rounded: twice the floor for a flat target, 10 log10(2) dB in every bin."""
    image = torch.rand(1, 8, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise, flat = image.mul(255).round() / 255 - image, torch.zeros_like(image)
    for options in ({"channel_mode": "each"}, {"channel_mode": "mean"}):
        assert build_metric({"type": "raps_distance", **options})(noise, flat) == pytest.approx(3.01, abs=0.4)
    assert build_metric({"type": "grid_energy"})(noise, flat) == pytest.approx(3.01, abs=0.4)
    assert build_metric({"type": "hf_share"})(noise, flat) < 0.01


# What is not measured


@pytest.mark.parametrize("name", ["field_error", "spectrum_error"])
def test_metrics_of_volumes_refuse_images(name: str) -> None:
    metric = build_metric({"type": name, "volume": True, "crop_border": 1})
    with pytest.raises(ConfigError, match=r"found a tensor of 4 axes; accepted: \(B, C, D, H, W\)"):
        metric(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
    with pytest.raises(ConfigError, match="found 16x16x1 px; accepted: "):
        metric(torch.rand(1, 3, 1, 16, 16), torch.rand(1, 3, 1, 16, 16))
    with pytest.raises(ConfigError, match="found a tensor of 3 axes; accepted: "):
        build_metric({"type": name})(torch.rand(3, 16, 16), torch.rand(3, 16, 16))
    with pytest.raises(ConfigError, match="16x16x5 px is too small for this metric: at least 4x4x4 px must remain"):
        metric(torch.rand(1, 3, 5, 16, 16), torch.rand(1, 3, 5, 16, 16))


def test_the_border_of_a_volume_is_that_of_its_depth_too() -> None:
    target = torch.rand(1, 2, 8, 9, 10)
    output = target.clone()
    output[:, :, 0] += 1
    output[:, :, -1] += 1
    assert build_metric({"type": "field_error", "volume": True, "crop_border": 1})(output, target) == 0


@pytest.mark.parametrize("name", ["fielderrorloss", "spectrumerrorloss", "waveletloss"])
def test_losses_refuse_shapes_that_differ(name: str) -> None:
    given = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    with pytest.raises(ConfigError, match=r"output of \(2, 3, 16, 16\) cannot .* target of \(2, 1, 16, 16\)"):
        build_loss({"type": name})(*given)
