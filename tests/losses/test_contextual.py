"""Contextual loss against loops over features as the paper writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from backbones import images, vgg

from traiNNer.losses import build_loss
from traiNNer.losses.contextual_loss import contextual, distances, similarities
from traiNNer.utils.errors import ConfigError

Weights = Callable[[str], str]


def distance(kind: str, x: np.ndarray, y: np.ndarray, mean: np.ndarray) -> float:
    if kind == "l1":
        return float(np.abs(x - y).sum())
    if kind == "l2":
        return float(((x - y) ** 2).sum())
    a, b = x - mean, y - mean
    return float((1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) / 2)


def similarity(d: np.ndarray, h: float) -> np.ndarray:
    cx = np.zeros_like(d)
    for i, row in enumerate(d):
        w = [math.exp((1 - value / (row.min() + 1e-5)) / h) for value in row]
        cx[i] = np.array(w) / sum(w)
    return cx


def features(image: np.ndarray) -> np.ndarray:
    """(C, H, W) as rows."""
    return image.reshape(len(image), -1).T


def table(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    mean = y.mean(axis=0)
    return np.array([[distance(kind, a, b, mean) for b in y] for a in x])


def loss_of(cx: np.ndarray) -> float:
    return -math.log(sum(max(cx[:, j]) for j in range(cx.shape[1])) / cx.shape[1])


def expected_value(kind: str, form: str, x: np.ndarray, y: np.ndarray, h: float) -> float:
    rows, columns = features(x), features(y)
    cx = similarity(table(kind, rows, columns), h)
    if form == "bilateral":
        _, height, width = x.shape
        places = np.array([(r / (height + 1), c / (width + 1)) for r in range(height) for c in range(width)])
        cx = 0.9 * cx + 0.1 * similarity(table("l2", places, places), h)
    if form == "symmetric":
        return (loss_of(cx) + loss_of(similarity(table(kind, columns, rows), h))) / 2
    return loss_of(cx)


@pytest.mark.parametrize("kind", ["cosine", "l1", "l2"])
@pytest.mark.parametrize("form", ["regular", "symmetric", "bilateral"])
def test_the_value_is_the_papers_for_pixels(kind: str, form: str) -> None:
    pair = [image.double() for image in images(2, 3, 5, 4)]
    loss = build_loss(
        {"type": "contextualloss", "use_vgg": False, "distance_type": kind, "calc_type": form, "band_width": 0.3}
    )
    expected = np.mean([expected_value(kind, form, x.numpy(), y.numpy(), 0.3) for x, y in zip(*pair, strict=True)])
    assert loss(*pair).item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("net", ["vgg19", "vgg16"])
@pytest.mark.parametrize("z_norm", [False, True])
def test_the_value_is_the_papers_for_features(weights_file: Weights, net: str, z_norm: bool) -> None:
    pair = images(2, 3, 32, 40)
    statistics = () if z_norm else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    output, target = (vgg(net, image, *statistics) for image in pair)
    weights = {"conv3_2": 0.5, "conv4_2": 2.0}
    expected = np.mean(
        [
            sum(
                w * expected_value("cosine", "regular", output[n][i].numpy(), target[n][i].numpy(), 0.5)
                for n, w in weights.items()
            )
            for i in range(2)
        ]
    )
    loss = build_loss(
        {
            "type": "contextualloss",
            "layer_weights": weights,
            "net": net,
            "z_norm": z_norm,
            "weights_path": weights_file(net),
        }
    )
    assert loss(*pair).item() == pytest.approx(expected, rel=1e-5)


def test_quarters_are_compared_each_with_its_own() -> None:
    output, target = (image.double() for image in images(1, 3, 7, 5))
    corners = [
        (slice(0, 3), slice(0, 2)),
        (slice(0, 3), slice(2, 5)),
        (slice(3, 7), slice(0, 2)),
        (slice(3, 7), slice(2, 5)),
    ]
    whole = build_loss({"type": "contextualloss", "use_vgg": False})
    parts = [whole(output[:, :, r, c], target[:, :, r, c]).item() for r, c in corners]
    quartered = build_loss({"type": "contextualloss", "use_vgg": False, "crop_quarter": True})
    assert quartered(output, target).item() == pytest.approx(np.mean(parts), rel=1e-12)


def test_many_features_are_thinned_out_evenly_and_alike_in_both_images() -> None:
    output, target = (image.double() for image in images(1, 3, 6, 6))
    thinned = build_loss({"type": "contextualloss", "use_vgg": False, "max_1d_size": 3, "distance_type": "l2"})
    kept = [0, 4, 8, 12, 16, 20, 24, 28, 32]
    x, y = (image[0].flatten(1)[:, kept].unflatten(1, (3, 3)) for image in (output, target))
    assert thinned(output, target).item() == pytest.approx(
        expected_value("l2", "regular", x.numpy(), y.numpy(), 0.5), rel=1e-10
    )
    assert thinned(target, target).item() == pytest.approx(0, abs=1e-6)


def test_features_that_moved_are_found_again() -> None:
    _, target = images(1, 3, 8, 8)
    moved = target.flip(-1)
    other, _ = images(1, 3, 8, 8, seed=1)
    regular, bilateral = (
        build_loss({"type": "contextualloss", "use_vgg": False, "distance_type": "l2", "calc_type": form})
        for form in ("regular", "bilateral")
    )
    assert regular(moved, target) < 0.01 < regular(other, target)
    assert bilateral(moved, target) > bilateral(target, target) + 0.05


def test_the_offset_of_equation_3_cancels() -> None:
    pair = images(1, 3, 6, 6)
    values = [build_loss({"type": "contextualloss", "use_vgg": False, "b": b})(*pair).item() for b in (1.0, 0.2)]
    assert values[0] == values[1]


@pytest.mark.parametrize("kind", ["cosine", "l1", "l2"])
def test_gradient(kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: contextual(similarities(distances(v, y, kind))), (x,))


@pytest.mark.parametrize("options", [{}, {"distance_type": "l1"}, {"distance_type": "l2"}, {"calc_type": "bilateral"}])
def test_flat_images_have_a_finite_gradient(options: dict[str, Any]) -> None:
    loss = build_loss({"type": "contextualloss", "pretrained": False, **options})
    for levels in [(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (1e6, 0.5)]:
        output, target = (torch.full((1, 3, 32, 35), level) for level in levels)
        output.requires_grad_()
        loss(output, target).backward()
        assert torch.isfinite(output.grad).all()


def test_mistakes_are_messages() -> None:
    for options, message in [
        ({"net": "vgg16", "layer_weights": {"conv3_4": 1.0}}, "layer_weights.conv3_4: vgg16 has no layer"),
        ({"layer_weights": {"conv3_9": 1.0}}, "did you mean"),
        ({"band_width": 0}, "greater than 0"),
        ({"calc_type": "bilaterl"}, r"did you mean bilateral\?"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build_loss({"type": "contextualloss", "pretrained": False, **options})
