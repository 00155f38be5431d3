"""Every registered loss: gradient, minimum at identity, pieces and whole, refusal of bad options."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from traiNNer.losses import build_loss, build_losses, needs
from traiNNer.losses.base import Loss, total
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES
from traiNNer.utils.schema import accepted_names

NAMES = LOSSES.names()

OPTIONS: dict[str, dict[str, Any]] = {
    name: {"pretrained": False} for name in NAMES if "pretrained" in accepted_names(LOSSES.get(name))
}
"""Beside the defaults; published weights cannot be counted on in a test."""


LATENTS = ("latent_mean", "latent_log_variance")
"""What losses of an encoder train; the others train the output."""


@cache
def built(name: str, **options: Any) -> Loss:
    """The loss with its defaults, shared by the tests: none may leave a trace in it."""
    return build_loss({"type": name, "loss_weight": 1.0, **OPTIONS.get(name, {}), **options})


def inputs(
    loss: nn.Module | None, dtype: torch.dtype = torch.float32, count: int = 2, **images: torch.Tensor
) -> dict[str, Any]:
    """What a loss asks for, or all there is; `images` replace the random ones. Logits are a convolution of images."""
    generator = torch.Generator().manual_seed(0)
    given: dict[str, Any] = {
        name: torch.rand(count, 3, 32, 32, generator=generator, dtype=dtype)
        for name in ("output", "target", "ema_output")
    }
    for name in LATENTS:
        given[name] = torch.randn(count, 4, 8, 8, generator=generator, dtype=dtype)
    given["lq"] = torch.rand(count, 3, 16, 16, generator=generator, dtype=dtype)
    given |= images
    kernel = torch.randn(1, 3, 3, 3, generator=generator, dtype=dtype)
    given["fake_logits"] = nn.functional.conv2d(given["output"], kernel)
    given["real_logits"] = nn.functional.conv2d(given["target"], kernel)
    given["current_iter"] = 1
    return given if loss is None else {name: given[name] for name in needs(loss)}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_to_what_it_trains_are_finite_and_not_zero(name: str) -> None:
    loss = built(name)
    trained = [each for each in LATENTS if each in needs(loss)] or ["output"]
    images = {each: inputs(None)[each].requires_grad_() for each in trained}
    value = total(loss(**inputs(loss, **images)))
    value.backward()
    assert value.shape == ()
    for gradient in (image.grad for image in images.values()):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_smallest_at_identity(name: str) -> None:
    loss, target = built(name), inputs(built("l1loss"))["target"]
    output = target.clone().requires_grad_()
    other, same = total(loss(**inputs(loss))), total(loss(**inputs(loss, output=output)))
    if loss.minimum is None:
        pytest.skip("by its definition not smallest there")
    assert abs(same - loss.minimum) < 1e-5
    assert same < other
    same.backward()
    assert torch.isfinite(output.grad).all()


def piece(value: Any, start: int, stop: int) -> Any:
    return value[start:stop] if isinstance(value, torch.Tensor) else value


SUMS = [name for name in NAMES if "reduction" in accepted_names(LOSSES.get(name)) and name != "psnrloss"]
"""psnrloss knows `mean` alone."""


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NAMES), *((name, {"reduction": "sum"}) for name in SUMS)],
    ids=lambda value: value if isinstance(value, str) else "".join(value.values()),
)
def test_pieces_equal_the_whole_in_float64(name: str, options: dict[str, Any]) -> None:
    """Pieces of unequal size, each by its share of the images, or for a sum over images by 1."""
    loss = built(name, **options)
    if loss.batch_coupled:
        pytest.skip("declared to be coupled")
    given = inputs(loss, torch.float64, count=3)
    whole = total(loss(**given))
    pieces = [
        total(loss(**{name: piece(value, start, stop) for name, value in given.items()}))
        * (1 if loss.sums_images else (stop - start) / 3)
        for start, stop in ((0, 2), (2, 3))
    ]
    torch.testing.assert_close(torch.stack(pieces).sum(), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_misspelled_parameters_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        build_loss({"type": name, "loss_weight": 1.0, "redaction": "mean", **OPTIONS.get(name, {})})


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("l1loss", lambda a, b: (a - b).abs().mean()),
        ("mseloss", lambda a, b: ((a - b) ** 2).mean()),
        ("charbonnierloss", lambda a, b: torch.sqrt((a - b) ** 2 + 1e-12).mean()),
    ],
)
def test_values_are_the_published_formulas(name: str, function: Any) -> None:
    loss = build_loss({"type": name, "loss_weight": 3.0})
    given = inputs(loss, torch.float64)
    torch.testing.assert_close(loss(**given), function(given["output"], given["target"]), rtol=1e-5, atol=0)
    assert loss.loss_weight == 3.0


def test_labels_and_spellings() -> None:
    entries = [
        {"type": "L1Loss", "loss_weight": 1.0},
        {"type": "l1", "loss_weight": 0.5},
        {"type": "charbonnier_loss", "loss_weight": 1.0, "name": "pixel"},
        {"type": "mse", "loss_weight": 0},
    ]
    assert list(build_losses(entries)) == ["l1loss", "l1loss_2", "pixel"]
    with pytest.raises(ConfigError, match="used twice"):
        build_losses([entries[2], entries[2]])


def test_a_loss_that_asks_for_what_there_is_not_is_not_registered() -> None:
    class Odd(nn.Module):
        def forward(self, output: torch.Tensor, discriminator: torch.Tensor) -> torch.Tensor:
            return output

    with pytest.raises(TypeError, match="asks for discriminator"):
        LOSSES.register("oddloss")(Odd)
    assert "oddloss" not in LOSSES.names()
