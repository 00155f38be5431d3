"""DISTS and LPIPS as losses, against torchmetrics' networks and against their formulas."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from backbones import features, images, vgg
from torch import nn

from traiNNer.losses import build_loss
from traiNNer.losses.dists_loss import L2Pooling, dists
from traiNNer.losses.lpips_loss import lpips
from traiNNer.utils.pretrained import packaged_weights

Weights = Callable[[str], str]
NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 47, 66)])
def test_dists_is_torchmetrics_value_for_images_that_are_not_rounded(
    weights_file: Weights, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    from torchmetrics.functional.image import dists as module

    monkeypatch.setattr(module, "vgg16", lambda weights: SimpleNamespace(features=features("vgg16")))
    reference = module.DISTSNetwork().double()
    pair = images(*shape)
    expected = reference(*(image.double() for image in pair)).mean().item()

    loss = build_loss({"type": "distsloss", "weights_path": weights_file("vgg16")})

    assert expected > 0.01
    assert loss(*pair).item() == pytest.approx(expected, rel=1e-5)
    assert loss(*(image.double() for image in pair)).item() == pytest.approx(expected, rel=1e-9)


def test_dists_is_its_formula_channel_by_channel() -> None:
    generator = np.random.default_rng(0)
    pairs = [tuple(generator.normal(size=(2, channels, 5, 4)) for _ in range(2)) for channels in (3, 6)]
    alpha, beta = generator.uniform(size=(2, 9)) / 9
    total = alpha.sum() + beta.sum()
    expected = np.ones(2)
    for image in range(2):
        channel = 0
        for x, y in pairs:
            for f, g in zip(x[image], y[image], strict=True):
                mu, nu = f.mean(), g.mean()
                expected[image] -= alpha[channel] / total * (2 * mu * nu + 1e-6) / (mu**2 + nu**2 + 1e-6)
                sigma = ((f - mu) * (g - nu)).mean()
                expected[image] -= beta[channel] / total * (2 * sigma + 1e-6) / (f.var() + g.var() + 1e-6)
                channel += 1

    tensors = [tuple(map(torch.from_numpy, pair)) for pair in pairs]

    assert dists(tensors, torch.from_numpy(alpha), torch.from_numpy(beta)).numpy() == pytest.approx(expected, rel=1e-12)
    output = tensors[0][0].requires_grad_()
    weights = torch.from_numpy(alpha[:3]), torch.from_numpy(beta[:3])
    assert torch.autograd.gradcheck(lambda x: dists([(x, tensors[0][1])], *weights), (output,))


def test_dists_of_a_bright_flat_image_and_itself_is_zero_and_not_what_rounding_leaves() -> None:
    loss = build_loss({"type": "distsloss", "pretrained": False})
    flat = torch.full((1, 3, 32, 32), 0.9)
    assert loss(flat, flat).item() == pytest.approx(0, abs=1e-6)


def test_dists_options_make_a_difference(weights_file: Weights) -> None:
    pair = images(1, 3, 32, 32)

    def value(**options: Any) -> float:
        return build_loss({"type": "distsloss", "weights_path": weights_file("vgg16"), **options})(*pair).item()

    assert value(clip_min=0.9) == pytest.approx(0.9)
    assert len({value(), value(use_input_norm=False), value(load_weights=False)}) == 3


def test_l2_pooling_halves_and_blurs_squares() -> None:
    x = torch.rand(1, 2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = np.pad(x.numpy() ** 2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    window = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    expected = [
        [np.sqrt((padded[0, c, i : i + 3, j : j + 3] * window).sum() + 1e-12) for i in (0, 2, 4) for j in (0, 2, 4)]
        for c in range(2)
    ]
    assert L2Pooling(2).double()(x)[0].flatten(1).numpy() == pytest.approx(np.array(expected), rel=1e-12)


@pytest.mark.parametrize("net", NETWORKS)
def test_lpips_is_torchmetrics_value_for_images_that_are_not_rounded(weights_file: Weights, net: str) -> None:
    from torchmetrics.functional.image.lpips import _LPIPS

    reference: Any = _LPIPS(net=net, pnet_rand=True)
    own = dict(features(NETWORKS[net]).named_parameters())
    backbone: nn.Module = reference.net
    found = {name.split(".", 2 if net == "squeeze" else 1)[-1]: value for name, value in backbone.named_parameters()}
    assert found.keys() == own.keys()
    for name, value in found.items():
        value.data = own[name].float()
    reference = reference.double()
    pair = images(2, 3, 40, 35)
    expected = reference(*(image.double() for image in pair), normalize=True).mean().item()

    loss = build_loss({"type": "lpipsloss", "net": net, "weights_path": weights_file(NETWORKS[net])})

    assert expected > 0.01
    assert loss(*pair).item() == pytest.approx(expected, rel=1e-5)
    assert loss(*(image.double() for image in pair)).item() == pytest.approx(expected, rel=1e-6)


def test_lpips_is_its_formula_position_by_position(weights_file: Weights) -> None:
    pair = images(2, 3, 32, 36)
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    output, target = (vgg("vgg16", image, (shift + 1) / 2, scale / 2) for image in pair)
    linear = packaged_weights("torchmetrics", "functional/image/lpips_models/vgg.pth")
    expected = np.zeros(2)
    for index, name in enumerate(["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]):
        x, y = (values[name].numpy() for values in (output, target))
        weight = linear[f"lin{index}.model.1.weight"].numpy().reshape(-1).astype(float)
        for image in range(2):
            f, g = (v[image] / np.sqrt((v[image] ** 2).sum(axis=0) + 1e-8) for v in (x, y))
            expected[image] += (weight[:, None, None] * (f - g) ** 2).sum(axis=0).mean()

    loss = build_loss({"type": "lpipsloss", "weights_path": weights_file("vgg16")})

    assert loss(*pair).item() == pytest.approx(expected.mean(), rel=1e-5)


def test_the_gradient_of_lpips() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2, 4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lpips([(x, second)], [torch.arange(4.0).double()]), (first,))


@pytest.mark.parametrize("name", ["distsloss", "lpipsloss"])
def test_a_step_below_one_level_counts(weights_file: Weights, name: str) -> None:
    """As a metric both compare 8-bit levels; the loss must not."""
    loss = build_loss({"type": name, "weights_path": weights_file("vgg16")})
    target = torch.full((1, 3, 32, 32), 0.5)
    output = target.clone()
    output[..., ::2, :] += 0.4 / 255
    output.requires_grad_()
    value = loss(output, target)
    value.backward()
    assert value > 0
    assert output.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["distsloss", "lpipsloss"])
def test_flat_images_have_a_finite_gradient(name: str) -> None:
    loss = build_loss({"type": name, "pretrained": False})
    for levels in [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1e6, 0.5)]:
        output, target = (torch.full((1, 3, 33, 32), level) for level in levels)
        output.requires_grad_()
        loss(output, target).backward()
        assert torch.isfinite(output.grad).all()
        assert (output.grad.abs().sum() > 0) == (levels[0] != levels[1])
