"""Every registered loss: gradient, minimum at identity, pieces and whole, refusal of bad options."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from traiNNer.losses import build_loss, build_losses, needs
from traiNNer.losses.base import Loss
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES
from traiNNer.utils.schema import accepted_names

NAMES = LOSSES.names()

OPTIONS: dict[str, dict[str, Any]] = {
    name: {"pretrained": False} for name in NAMES if "pretrained" in accepted_names(LOSSES.get(name))
}
"""Beside the defaults; published weights cannot be counted on in a test."""


@cache
def built(name: str) -> Loss:
    """The loss with its defaults, shared by the tests: none may leave a trace in it."""
    return build_loss({"type": name, "loss_weight": 1.0, **OPTIONS.get(name, {})})


def total(value: Tensor | dict[str, Tensor]) -> Tensor:
    """A loss's value as one scalar: itself, or the sum of its named components."""
    return value if isinstance(value, Tensor) else torch.stack(list(value.values())).sum()


def inputs(loss: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = {
        name: torch.rand(2, 3, 32, 32, generator=generator, dtype=dtype) for name in ("output", "target", "ema_output")
    }
    images["lq"] = torch.rand(2, 3, 16, 16, generator=generator, dtype=dtype)
    return {name: images[name] for name in needs(loss)}


@pytest.mark.parametrize("name", NAMES)
def test_gradient_to_the_output_is_finite_and_not_zero(name: str) -> None:
    loss = built(name)
    given = inputs(loss)
    given["output"].requires_grad_()
    value = total(loss(**given))
    value.backward()
    gradient = given["output"].grad
    assert value.shape == ()
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_smallest_at_identity(name: str) -> None:
    loss = built(name)
    given = inputs(loss)
    other = total(loss(**given))
    given["output"] = given["target"].clone().requires_grad_()
    same = total(loss(**given))
    if loss.minimum is None:
        pytest.skip("by its definition not smallest there")
    assert abs(same - loss.minimum) < 1e-5
    assert same < other
    same.backward()
    assert torch.isfinite(given["output"].grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_pieces_equal_the_whole_in_float64(name: str) -> None:
    loss = built(name)
    if loss.batch_coupled:
        pytest.skip("declared to be coupled")
    given = inputs(loss, torch.float64)
    whole = total(loss(**given))
    pieces = [total(loss(**{key: value[index : index + 1] for key, value in given.items()})) for index in range(2)]
    torch.testing.assert_close(torch.stack(pieces).mean(), whole)


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


def test_a_negative_weight_is_refused_until_it_has_a_meaning() -> None:
    with pytest.raises(ConfigError, match="not supported yet"):
        build_loss({"type": "l1loss", "loss_weight": -1.0})


def test_a_loss_that_asks_for_what_there_is_not_is_not_registered() -> None:
    class Odd(nn.Module):
        def forward(self, output: torch.Tensor, discriminator: torch.Tensor) -> torch.Tensor:
            return output

    with pytest.raises(TypeError, match="asks for discriminator"):
        LOSSES.register("oddloss")(Odd)
    assert "oddloss" not in LOSSES.names()
