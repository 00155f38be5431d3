"""What all these losses have in common: any size from 32 px, finite gradients anywhere, the slope that they claim."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from traiNNer.losses import build_loss, needs
from traiNNer.losses.base import Loss, total
from traiNNer.utils.errors import ConfigError

NAMES = [
    "averageloss", "bicubicloss", "chcloss", "checkerboardloss", "colorloss", "consistencyloss", "ffloss", "fftloss",
    "hsluvloss", "laplacianpyramidloss", "ldlloss", "lumaloss",
]  # fmt: skip
BLIND_TO_CONSTANTS = {"checkerboardloss", "colorloss", "laplacianpyramidloss", "ldlloss"}
"""Their value for two flat greys is smallest by definition."""


def call(loss: Loss, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    given = {"output": output, "target": target, "ema_output": target + 0.01}
    return total(loss(**{name: given[name] for name in needs(loss)}))


def noise(*size: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return list(torch.rand(2, *size, generator=torch.Generator().manual_seed(0), dtype=dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 3, 32, 32), (2, 3, 33, 57), (1, 3, 40, 35)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_size_from_32_px_in_any_layout(name: str, size: tuple[int, ...], layout: torch.memory_format) -> None:
    output, target = (image.to(memory_format=layout) for image in noise(*size))
    loss, plain = build_loss({"type": name}), noise(*size)
    value = call(loss, output.requires_grad_(), target)
    value.backward()
    assert value.shape == ()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert (output.grad != 0).float().mean() > 0.85
    torch.testing.assert_close(value, call(loss, *plain), rtol=1e-5, atol=0)
    exact = call(loss, *noise(*size, dtype=torch.float64))
    assert exact.dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0, -1e4, 1e4])
def test_gradients_are_finite_and_there_for_flat_images(name: str, level: float) -> None:
    _, target = noise(1, 3, 32, 32)
    loss = build_loss({"type": name})
    flat = torch.full_like(target, level)
    for other in (target, torch.full_like(target, 0.3), flat):
        output = flat.clone().requires_grad_()
        value = call(loss, output, other)
        value.backward()
        assert output.grad is not None
        assert torch.isfinite(value)
        assert torch.isfinite(output.grad).all()
        clipped = name == "chcloss" and abs(level) > 1
        blind = name in BLIND_TO_CONSTANTS and other is not target
        if not (clipped or blind or other is flat):
            assert output.grad.abs().sum() > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ldlloss"])  # no gradient through its map
def test_the_gradient_is_the_slope_of_the_value(name: str) -> None:
    options: dict[str, Any] = {"consistencyloss": {"blur_kernel_size": 3}, "chcloss": {"loss_lambda": 0.1}}.get(
        name, {}
    )
    options = {"scale": 2} if name in ("averageloss", "bicubicloss", "colorloss", "checkerboardloss") else options
    options = {"alpha": 0.0} if name == "ffloss" else options  # its weights have no gradient
    loss = build_loss({"type": name, **options})
    output, target = noise(1, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda image: call(loss, image, target), output.requires_grad_(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("averageloss", {"scale": 0}),
        ("averageloss", {"criterion": "l3"}),
        ("bicubicloss", {"scale": 2.5}),
        ("chcloss", {"loss_lambda": -0.1}),
        ("chcloss", {"criterion": "charbonnier"}),
        ("checkerboardloss", {"scale": 1}),
        ("checkerboardloss", {"eps": 0.0}),
        ("colorloss", {"scale": 64}),
        ("consistencyloss", {"blur_kernel_size": 20}),
        ("consistencyloss", {"blur_sigma": 0.0}),
        ("consistencyloss", {"brightness": -1.0}),
        ("ffloss", {"patch_factor": 0}),
        ("ffloss", {"alpha": -1.0}),
        ("fftloss", {"reduction": "none"}),
        ("hsluvloss", {"hue_weight": -1.0}),
        ("hsluvloss", {"blur_strength": 11.0}),
        ("laplacianpyramidloss", {"levels": 0}),
        ("ldlloss", {"criterion": "fro"}),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        build_loss({"type": name, **options})
