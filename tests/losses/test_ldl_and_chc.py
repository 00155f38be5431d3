"""LDL and CHC: against float64 NumPy versions of their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from traiNNer.losses import build_loss
from traiNNer.losses.ldl_loss import artifact_map
from traiNNer.utils.errors import ConfigError


def images(*size: int) -> list[torch.Tensor]:
    return list(torch.rand(3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def ldl_map(output: np.ndarray, target: np.ndarray, ema_output: np.ndarray) -> np.ndarray:
    residual, ema_residual = (np.abs(target - image).sum(axis=1) for image in (output, ema_output))
    padded = np.pad(residual, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    local = windows.var(axis=(-2, -1), ddof=1)
    whole = residual.var(axis=(1, 2), ddof=1) ** (1 / 5)
    return np.where(residual < ema_residual, 0, whole[:, None, None] * local)[:, None]


@pytest.mark.parametrize("size", [(2, 3, 32, 32), (1, 3, 37, 51)])
def test_ldlloss_is_weighted_by_the_artifact_map(size: tuple[int, ...]) -> None:
    output, target, ema_output = images(*size)
    weights = ldl_map(output.numpy(), target.numpy(), ema_output.numpy())
    np.testing.assert_allclose(artifact_map(output, target, ema_output).numpy(), weights, rtol=1e-9)
    error = weights * (output - target).numpy()
    loss = build_loss({"type": "ldlloss"})
    assert float(loss(output, target, ema_output)) == pytest.approx(np.abs(error).mean(), rel=1e-9)
    single = loss(output.float(), target.float(), ema_output.float())
    assert float(single) == pytest.approx(np.abs(error).mean(), rel=1e-5)
    squared = build_loss({"type": "ldlloss", "criterion": "l2"})
    assert float(squared(output, target, ema_output)) == pytest.approx(np.square(error).mean(), rel=1e-9)


def test_ldlloss_has_no_gradient_through_its_map() -> None:
    output, target, ema_output = (image.requires_grad_() for image in images(1, 3, 16, 16))
    loss = build_loss({"type": "ldlloss"})
    loss(output, target.detach(), ema_output).backward()
    weights = artifact_map(output, target, ema_output).expand_as(output)
    torch.testing.assert_close(output.grad, weights * (output - target).detach().sign() / output.numel())
    assert ema_output.grad is None


def test_ldlloss_forgives_what_the_moving_average_does_worse() -> None:
    output, target, _ = images(1, 3, 16, 16)
    loss = build_loss({"type": "ldlloss"})
    assert loss(output, target, target + 2) == 0
    assert loss(output, target, target) > 0


def test_a_small_variance_beside_a_large_residual_is_not_lost_in_rounding() -> None:
    _, target, noise = images(1, 3, 32, 32)
    output = target + 0.9 + 1e-3 * noise
    exact, single = (artifact_map(*(image.to(kind) for image in (output, target, target)))
                     for kind in (torch.float64, torch.float32))  # fmt: skip
    assert ((single - exact).abs() / exact).max() < 0.02


def chc(output: np.ndarray, target: np.ndarray, criterion: str, weight: float, low: float, high: float) -> np.ndarray:
    cosine = (output * target).sum(axis=1) / np.linalg.norm(output, axis=1) / np.linalg.norm(target, axis=1)
    difference = np.abs(output - target) if criterion == "l1" else np.sqrt((output - target) ** 2 + 1e-12)
    return np.clip(difference + weight * (1 - cosine.mean()), low, high)


@pytest.mark.parametrize("criterion", ["l1", "huber"])
@pytest.mark.parametrize("weight", [0.0, 0.02, 1.0])
def test_chcloss_is_its_definition(criterion: str, weight: float) -> None:
    output, target, _ = images(2, 3, 21, 18)
    options = {"criterion": criterion, "loss_lambda": weight, "clip_min": 0.05, "clip_max": 0.6}
    values = chc(output.numpy(), target.numpy(), criterion, weight, 0.05, 0.6)
    loss = build_loss({"type": "chcloss", **options})
    assert float(loss(output, target)) == pytest.approx(values.mean(), rel=1e-9)
    total = build_loss({"type": "chcloss", "reduction": "sum", **options})
    assert float(total(output, target)) == pytest.approx(values.sum(), rel=1e-9)
    pieces = torch.stack([loss(output[index : index + 1], target[index : index + 1]) for index in range(2)]).mean()
    assert loss.batch_coupled != torch.isclose(pieces, loss(output, target), rtol=1e-12)
    assert float(loss(target, target)) == pytest.approx(loss.minimum, rel=1e-9)


def test_chcloss_has_no_gradient_outside_its_bounds() -> None:
    target = torch.full((1, 3, 1, 3), 0.2)
    output = (target + torch.tensor([0.001, 0.1, 1.5])).requires_grad_()
    build_loss({"type": "chcloss"})(output, target).backward()
    assert output.grad is not None
    assert (output.grad != 0)[0, 0, 0].tolist() == [False, True, False]


@pytest.mark.parametrize("output_level", [0.0, 1.0])
def test_chcloss_of_black_has_a_gradient_of_the_usual_size(output_level: float) -> None:
    target = images(1, 3, 32, 32)[1].float()
    for first, second in ((output_level, target), (output_level, torch.zeros_like(target))):
        output = torch.full_like(target, first, requires_grad=True)
        build_loss({"type": "chcloss", "loss_lambda": 0.02})(output, second).backward()
        assert output.grad is not None
        assert torch.isfinite(output.grad).all()
        assert output.grad.abs().max() < 0.01


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"clip_max: found 0\.1; accepted: more than clip_min, 0\.2"):
        build_loss({"type": "chcloss", "clip_min": 0.2, "clip_max": 0.1})
