"""What every loss of structure, edges and correlation stands: odd sizes, flat and far-off images, float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from traiNNer.losses import build_loss, needs
from traiNNer.losses.base import Loss

NAMES = [
    "huberloss",
    "psnrloss",
    "ssimloss",
    "mssimloss",
    "msssiml1loss",
    "gradientvarianceloss",
    "tvloss",
    "sobeledgeloss",
    "nccloss",
    "cosimloss",
]
BLIND = {
    "tvloss": {"zeros", "ones", "gray"},  # the smallest there is
    "nccloss": {"large"},  # the target but for brightness and contrast
    "cosimloss": {"below zero"},  # the opposite colour everywhere
    "gradientvarianceloss": {"zeros", "below zero"},  # variance's own minimum; the target's variance
}
"""Where a loss has no slope by its definition."""
Content = Callable[[torch.Tensor], torch.Tensor]
OUTPUTS: dict[str, Content] = {
    "target": torch.clone,
    "zeros": torch.zeros_like,
    "ones": torch.ones_like,
    "gray": lambda target: torch.full_like(target, 0.5),
    "large": lambda target: 1e4 * target - 3e3,
    "large and flat": lambda target: torch.full_like(target, 1e4),
    "below zero": lambda target: -target,
    "noise": lambda target: torch.rand(target.shape, generator=torch.Generator().manual_seed(1)).to(target),
}


def image(height: int = 32, width: int = 32, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)).to(dtype)


TARGETS = {"texture": image(), "flat": torch.full((2, 3, 32, 32), 0.25), "black": torch.zeros(2, 3, 32, 32)}


def value_and_gradient(loss: Loss, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    output = output.detach().requires_grad_()
    inputs = {name: {"output": output, "target": target}[name] for name in needs(loss)}
    value = loss(**inputs)
    (gradient,) = torch.autograd.grad(value, output)
    return value.detach(), gradient


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", OUTPUTS)
@pytest.mark.parametrize("target", TARGETS)
def test_value_and_gradient_are_finite(name: str, content: str, target: str) -> None:
    reference = TARGETS[target]
    value, gradient = value_and_gradient(build_loss({"type": name}), OUTPUTS[content](reference), reference)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", ["zeros", "ones", "gray", "large", "below zero", "noise"])
def test_there_is_a_gradient_wherever_the_output_is_not_the_target(name: str, content: str) -> None:
    if content in BLIND.get(name, ()):
        pytest.skip("by its definition without a slope there")
    target = image()
    _, gradient = value_and_gradient(build_loss({"type": name}), OUTPUTS[content](target), target)
    assert (gradient != 0).any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tvloss"])
@pytest.mark.parametrize("content", ["zeros", "ones", "gray"])
def test_flat_images_that_are_equal_have_the_smallest_value(name: str, content: str) -> None:
    loss = build_loss({"type": name})
    flat = OUTPUTS[content](image())
    value, gradient = value_and_gradient(loss, flat, flat)
    assert loss.minimum is not None
    assert value.item() == pytest.approx(loss.minimum, abs=1e-5)
    assert gradient.abs().max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 33), (33, 32), (37, 71), (128, 32)])
def test_every_crop_from_32_px_on_has_a_value(name: str, size: tuple[int, int]) -> None:
    target = image(*size)
    value, gradient = value_and_gradient(build_loss({"type": name}), OUTPUTS["noise"](target), target)
    assert value.shape == ()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_float64_stays_float64_and_agrees_with_float32(name: str) -> None:
    target = image(33, 40, torch.float64)
    output = target + 0.1 * OUTPUTS["noise"](target)
    loss = build_loss({"type": name})
    exact, gradient = value_and_gradient(loss, output, target)
    rough, _ = value_and_gradient(loss, output.float(), target.float())
    assert (exact.dtype, gradient.dtype, rough.dtype) == (torch.float64, torch.float64, torch.float32)
    assert rough.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_slope(name: str) -> None:
    side = 24 if name == "gradientvarianceloss" else 12
    target = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    output = (target + 0.2 * noise).requires_grad_()
    loss = build_loss({"type": name})
    extra = {} if name == "tvloss" else {"target": target}
    assert torch.autograd.gradcheck(lambda x: loss(output=x, **extra), (output,), fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_a_function_of_its_inputs(name: str) -> None:
    """No randomness, and no state that a call leaves behind for the next one's value."""
    target = image()
    output = OUTPUTS["noise"](target)
    loss = build_loss({"type": name})
    first = value_and_gradient(loss, output, target)
    value_and_gradient(loss, image(64, 48), image(64, 48))
    second = value_and_gradient(loss, output, target)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert dict(loss.state_dict()) == {}


@pytest.mark.parametrize("name", NAMES)
def test_pixels_outside_the_range_still_have_a_gradient(name: str) -> None:
    """A clamp to [0, 1] would leave them as they are."""
    target = image()
    output = target.clone()
    output[:, :, 12:20, 12:20] += 2 * OUTPUTS["noise"](target)[:, :, 12:20, 12:20] + 1
    _, gradient = value_and_gradient(build_loss({"type": name}), output, target)
    assert (gradient[:, :, 12:20, 12:20] != 0).float().mean() > 0.9
