"""Perceptual losses against their formulas in float64, from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from backbones import MEAN, STD, features, images, vgg
from numpy.lib.stride_tricks import sliding_window_view

from traiNNer.losses import build_loss
from traiNNer.losses.perceptual_loss import frequency_distance, position_distance, style_distance
from traiNNer.utils.errors import ConfigError

Weights = Callable[[str], str]
CONV = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
RELU = {name.replace("conv", "relu"): weight for name, weight in CONV.items()}


def perceptual(weights_file: Weights, **options: Any) -> Any:
    return build_loss({"type": "perceptualloss", "weights_path": weights_file("vgg19"), **options})


def charbonnier(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt((x - y) ** 2 + 1e-12).mean())


def l1(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.abs(x - y).mean())


def l2(x: np.ndarray, y: np.ndarray) -> float:
    return float(((x - y) ** 2).mean())


def gram(x: np.ndarray) -> np.ndarray:
    channels, height, width = x.shape[1:]
    return np.einsum("bchw,bdhw->bcd", x, x) / (channels * height * width)


def style(x: np.ndarray, y: np.ndarray) -> float:
    return float(((gram(x) - gram(y)) ** 2).sum() / len(x))


def positions(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for f, g in zip(x.reshape(-1, x[0, 0].size), y.reshape(-1, y[0, 0].size), strict=True):
        total += np.abs(np.cumsum(f / (f.sum() + 1e-14)) - np.cumsum(g / (g.sum() + 1e-14))).sum()
    return total / (x.shape[0] * x.shape[1])


def frequencies(x: np.ndarray, y: np.ndarray, vectors: np.ndarray, phase_weight: float, stride: int) -> float:
    size = vectors.shape[-1]

    def projected(part: np.ndarray) -> np.ndarray:
        patches = sliding_window_view(part, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
        found = np.einsum("bchwij,ncij->bnhw", patches, vectors, optimize=True)
        return np.sort(found.reshape(*found.shape[:2], -1), axis=-1)

    first, second = np.fft.fft2(x), np.fft.fft2(y)
    for spectrum in (first, second):  # real in exact arithmetic
        own = np.ix_(*[[k for k in range(size) if 2 * k % size == 0] for size in x.shape[2:]])
        for channel in spectrum.reshape(-1, *x.shape[2:]):
            channel[own] = channel[own].real
    amplitude = np.abs(projected(np.abs(first)) - projected(np.abs(second))).mean()
    return float(amplitude + phase_weight * np.abs(projected(np.angle(first)) - projected(np.angle(second))).mean())


PAIR = images(2, 3, 32, 37)


@cache
def layers() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    output, target = (vgg("vgg19", image) for image in PAIR)
    return {name: (output[name].numpy(), target[name].numpy()) for name in output}


@pytest.mark.parametrize(
    ("options", "weights", "distance"),
    [
        ({}, CONV, charbonnier),
        ({"criterion": "l1", "layers": ["conv2_2"]}, {"conv2_2": 1}, l1),
        ({"criterion": "l2", "layers": ["conv2_2"], "perceptual_weight": 3.0}, {"conv2_2": 3}, l2),
        ({"criterion": "pd", "layers": ["relu2_2"]}, {"relu2_2": 0.01}, positions),
        ({"layers": ["relu3_4", "relu1_2", "pool2"]}, {"relu1_2": 1, "pool2": 1, "relu3_4": 1}, charbonnier),
        ({"layer_weights": {"conv3_1": 2, "pool1": 0.5, "conv5_4": 0}}, {"conv3_1": 2, "pool1": 0.5}, charbonnier),
    ],
)
def test_the_value_is_the_formula_on_vgg19s_features(
    weights_file: Weights, options: dict[str, Any], weights: dict[str, float], distance: Any
) -> None:
    expected = sum(weight * distance(*layers()[name]) for name, weight in weights.items())

    loss = perceptual(weights_file, **options)

    assert loss(*PAIR).item() == pytest.approx(expected, rel=1e-5)
    assert loss(*(image.double() for image in PAIR)).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [("charbonnier", CONV), ("l2", CONV), ("fd", RELU), ("pd", RELU), ("fd+l1", {**CONV, **RELU})],
)
def test_layers_of_each_criterion(criterion: str, expected: dict[str, float]) -> None:
    loss = build_loss({"type": "perceptualloss", "pretrained": False, "criterion": criterion, "num_proj_fd": 1})
    assert loss.weights == expected


def test_a_mixture_takes_l1_before_and_the_distribution_behind_the_activation(weights_file: Weights) -> None:
    found = layers()
    named = {"relu2_1": 1.0, "conv2_2": 2.0}

    plain = perceptual(weights_file, layer_weights=named, criterion="pd+l1")
    halves = perceptual(weights_file, layer_weights=named, criterion="pd+l1", alpha=[0.25, 0], w_lambda=0.1)

    assert plain(*PAIR).item() == pytest.approx(
        0.01 * positions(*found["relu2_1"]) + 2 * l1(*found["conv2_2"]), rel=1e-5
    )
    mixed = 0.25 * 0.1 * positions(*found["relu2_1"]) + 0.75 * l1(*found["relu2_1"])
    assert halves(*PAIR).item() == pytest.approx(mixed + 2 * l1(*found["conv2_2"]), rel=1e-5)


@pytest.mark.parametrize("layer", ["relu2_2", "relu5_1"])  # 16x18 frequencies, and 2x2: fewer than a projection has
def test_fd_compares_sorted_projections_of_amplitude_and_phase(weights_file: Weights, layer: str) -> None:
    loss = perceptual(weights_file, layers=[layer], criterion="fd", num_proj_fd=6, phase_weight_fd=0.5, stride_fd=2)
    vectors = loss.get_buffer(f"projections_{layer}").double().numpy()
    assert np.linalg.norm(vectors.reshape(6, -1), axis=1) == pytest.approx(1, rel=1e-6)
    x, y = layers()[layer]
    pair = [image.double() for image in PAIR]
    vectors = vectors[..., : x.shape[2], : x.shape[3]]
    vectors /= np.linalg.norm(vectors.reshape(6, -1), axis=1)[:, None, None, None]

    assert loss(*pair).item() == pytest.approx(0.01 * frequencies(x, y, vectors, 0.5, 2), rel=1e-6)


def test_rounding_turns_no_phase_of_fd_and_nothing_has_no_phase() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 1, 3, 20, 18, generator=generator, dtype=torch.float64)
    vectors = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    expected = frequencies(x.numpy(), y.numpy(), vectors.numpy(), 1.0, 1)
    assert frequency_distance(x, y, vectors).item() == pytest.approx(expected, rel=1e-10)
    assert frequency_distance(x.float(), y.float(), vectors).item() == pytest.approx(expected, rel=1e-5)

    faint = (x * 1e-24).float().requires_grad_()
    frequency_distance(faint, y.float(), vectors).backward()
    assert torch.isfinite(faint.grad).all()


def test_style_is_a_component_of_its_own(weights_file: Weights) -> None:
    found = layers()
    options = {"layer_weights": {"relu1_2": 0.5, "relu3_1": 2.0}, "style_weight": 10.0}

    both = perceptual(weights_file, **options)(*PAIR)
    alone = perceptual(weights_file, **options, perceptual_weight=0.0)(*PAIR)

    assert list(both) == ["perceptual", "style"]
    assert list(alone) == ["style"]
    expected = 10 * (0.5 * style(*found["relu1_2"]) + 2 * style(*found["relu3_1"]))
    assert both["style"].item() == pytest.approx(expected, rel=1e-5)
    assert alone["style"].item() == both["style"].item()
    assert both["perceptual"].item() == pytest.approx(
        0.5 * charbonnier(*found["relu1_2"]) + 2 * charbonnier(*found["relu3_1"]), rel=1e-5
    )


def test_gradients_of_the_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    vectors = torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64)
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: style_distance(x, second), (first,))
    assert torch.autograd.gradcheck(lambda x: position_distance(x, second), (first,))
    assert torch.autograd.gradcheck(lambda x: frequency_distance(x, second, vectors, phase_weight=0.3), (first,))


@pytest.mark.parametrize("criterion", ["charbonnier", "l1", "l2", "pd", "fd", "pd+l1", "fd+l1"])
def test_flat_images_have_a_finite_gradient(criterion: str) -> None:
    loss = build_loss({"type": "perceptualloss", "pretrained": False, "criterion": criterion, "num_proj_fd": 4})
    for levels in [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1e6, 0.5)]:
        output, target = (torch.full((1, 3, 33, 32), level) for level in levels)
        output.requires_grad_()
        loss(output, target).backward()
        assert torch.isfinite(output.grad).all()
        assert (output.grad.abs().sum() > 0) == (levels[0] != levels[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["relu1_2", "rellu3_4"]}, r"layers\[1\]: found 'rellu3_4'.*did you mean relu3_4\?"),
        ({"layer_weights": {"convv3_4": 1.0}}, r"layer_weights.convv3_4: .*did you mean conv3_4\?"),
        ({"layer_weights": {"conv3_4": -1.0}}, "at least 0"),
        ({"layer_weights": {"conv3_4": 0}}, "found only zeros"),
        ({"layers": ["conv3_4"], "layer_weights": {"conv3_4": 1.0}}, "layers: found beside layer_weights"),
        ({"layers": []}, "at least 1"),
        ({"criterion": "l1", "alpha": [0.5]}, "alpha: found beside criterion l1"),
        ({"criterion": "pd+l1", "alpha": [0.5]}, "alpha: found 1 values; accepted: one for each of conv1_2, relu1_2"),
        ({"perceptual_weight": 0}, "perceptual_weight: found 0 beside style_weight 0"),
        ({"criterion": "fdl"}, r"criterion: .*did you mean fd\?"),
    ],
)
def test_mistakes_are_messages(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_loss({"type": "perceptualloss", "pretrained": False, **options})


@pytest.mark.parametrize("layers_", [[0, 1, 2, 3], [3, 1]])
def test_convnext_is_the_formula_on_the_stages_of_torchvisions_network(
    weights_file: Weights, layers_: list[int]
) -> None:
    pair = images(2, 3, 36, 45)
    weights = [0.5, 1.0, 2.0, 4.0][: len(layers_)]
    mean, std = (torch.tensor(values).double().view(1, 3, 1, 1) for values in (MEAN, STD))
    network, results = features("convnext_tiny"), []
    for image in pair:
        values, stages = (image.double() - mean) / (std + 1e-3), []
        for index, module in enumerate(network):
            values = module(values)
            stages += [values] if index % 2 else []
        results.append(stages)
    expected = sum(
        weight * l1(results[0][layer].numpy(), results[1][layer].numpy())
        for layer, weight in zip(layers_, weights, strict=True)
    ) / sum(weights)

    loss = build_loss(
        {
            "type": "convnextperceptualloss",
            "layers": layers_,
            "layer_weights": weights,
            "eps": 1e-3,
            "weights_path": weights_file("convnext_tiny"),
        }
    )

    assert loss(*pair).item() == pytest.approx(expected, rel=1e-5)
    assert loss(*(image.double() for image in pair)).item() == pytest.approx(expected, rel=1e-8)


def test_convnext_defaults_and_mistakes() -> None:
    def build(**options: Any) -> Any:
        return build_loss({"type": "convnextperceptualloss", "pretrained": False, **options})

    pair = images(1, 3, 32, 32)
    assert build()(*pair) == build(layers=[2, 1], layer_weights=[0.5, 1.0])(*pair)
    assert build(layers=[0, 1, 2])(*pair) == build(layers=[0, 1, 2], layer_weights=[2, 2, 2])(*pair)
    for options, message in [
        ({"layers": [4]}, "at most 3"),
        ({"layers": [1, 1]}, "each stage once"),
        ({"layer_weights": [1.0]}, r"one for each of the layers \[1, 2\]"),
        ({"layer_weights": [0, 0]}, "not all 0"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build(**options)
