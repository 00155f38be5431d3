"""When `build_loss` wraps a loss, and what a wrapped loss returns, evaluates and sends back as gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest
import torch
from pydantic import Field
from torch import Tensor

from traiNNer.losses import build_loss, build_losses
from traiNNer.losses.base import Loss
from traiNNer.losses.iterative_loss_wrapper import IterativeLossWrapper
from traiNNer.losses.l1_loss import L1Loss
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES

KEYS = {
    "start_iter": 0,
    "target_iter": 0,
    "target_weight": 0.5,
    "disable_after": 100,
    "schedule_type": "linear",
    "knots": [[0, 0.5]],
    "discriminator_start_iter": 0,
}
"""Every key of a schedule but loss_weight, with a value that keeps the weight at 0.5 for 100 iterations."""

RISING = {"type": "l1loss", "loss_weight": 0.0, "start_iter": 10, "target_iter": 20, "target_weight": 0.3}


class PairLoss(Loss):
    """The mean error and the mean squared error, by name; it counts its calls."""

    def __init__(self, *, power: Annotated[float, Field(description="of the second part")] = 2.0) -> None:
        super().__init__()
        self.power, self.calls = power, 0

    def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        error = (output - target).abs()
        return {"error": error.mean(), "squared": error.pow(self.power).mean()}


class IterationLoss(Loss):
    """The iteration, for a loss that needs it."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Tensor, current_iter: int) -> Tensor:
        return output.mean() * 0 + current_iter


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Losses that exist for the duration of a test."""
    names = {"WrapperTestPairLoss": PairLoss, "WrapperTestIterationLoss": IterationLoss}
    for name, loss in names.items():
        LOSSES.register(name)(loss)
    yield
    for name in names:
        del LOSSES._factories[LOSSES.normalize(name)], LOSSES._spelled[LOSSES.normalize(name)]


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 3, 8, 8, generator=generator)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_alone_makes_a_wrapper(key: str, images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({"type": "l1loss", "loss_weight": 0.5, key: KEYS[key]})
    assert type(loss) is IterativeLossWrapper
    assert type(loss.loss) is L1Loss
    assert torch.equal(loss(*images, current_iter=50), L1Loss()(*images) * 0.5)


@pytest.mark.parametrize("more", [{}, {"name": "mine"}, {"reduction": "sum"}, dict.fromkeys(KEYS)], ids=str)
def test_without_them_it_is_the_bare_loss(more: dict, images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({"type": "l1loss", "loss_weight": 0.25, **more})
    assert type(loss) is L1Loss
    assert loss.loss_weight == 0.25
    assert torch.equal(loss(*images), L1Loss(reduction=more.get("reduction", "mean"))(*images))


def test_a_parameter_of_the_loss_is_not_a_key_of_its_schedule(images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({"type": "WrapperTestPairLoss", "loss_weight": 0.25, "power": 3.0})
    assert type(loss) is PairLoss
    assert torch.equal(loss(*images)["squared"], (images[0] - images[1]).abs().pow(3).mean())


@pytest.mark.parametrize("spelling", ["L1Loss", "l1_loss", "l1", "L1"])
def test_a_type_is_one_in_every_spelling(spelling: str) -> None:
    loss = build_loss({**RISING, "type": spelling})
    assert isinstance(loss, IterativeLossWrapper)
    assert (type(loss.loss), loss.label, loss.loss_weight) == (L1Loss, "l1loss", 0.0)


@pytest.mark.parametrize("current_iter", [11, 15, 19, 20, 21, 1000])
def test_a_call_returns_the_weighted_value(current_iter: int, images: tuple[Tensor, Tensor]) -> None:
    loss, value = build_loss(RISING), L1Loss()(*images)
    weight = 0.3 * min(1.0, (current_iter - 10) / 10)
    torch.testing.assert_close(loss(*images, current_iter=current_iter), value * weight, rtol=1e-6, atol=0)
    named = loss(output=images[0], target=images[1], current_iter=current_iter)
    assert torch.equal(named, loss(*images, current_iter=current_iter))


def test_every_part_of_a_dict_is_weighted(images: tuple[Tensor, Tensor]) -> None:
    bare = build_loss({"type": "WrapperTestPairLoss", "loss_weight": 0.5})
    loss = build_loss({**RISING, "type": "WrapperTestPairLoss"})
    value, weighted = bare(*images), loss(*images, current_iter=15)
    assert weighted.keys() == value.keys() == {"error", "squared"}
    for name, part in weighted.items():
        torch.testing.assert_close(part, value[name] * 0.15, rtol=1e-6, atol=0)


def test_at_weight_zero_the_loss_is_not_evaluated(images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({**RISING, "type": "WrapperTestPairLoss", "disable_after": 30})
    for current_iter in (1, 9, 10, 31, 1000):
        value = loss(*images, current_iter=current_iter)
        assert value.shape == ()
        assert value == 0
    assert loss.loss.calls == 0
    for current_iter in (11, 20, 30):
        loss(*images, current_iter=current_iter)
    assert loss.loss.calls == 3


def test_the_gradient_scales_with_the_weight(images: tuple[Tensor, Tensor]) -> None:
    output = images[0].requires_grad_()
    (whole,) = torch.autograd.grad(L1Loss()(output, images[1]), output)
    loss = build_loss(RISING)
    for current_iter, weight in ((12, 0.06), (15, 0.15), (20, 0.3), (99, 0.3)):
        (gradient,) = torch.autograd.grad(loss(output, images[1], current_iter=current_iter), output)
        torch.testing.assert_close(gradient, whole * weight, rtol=1e-6, atol=0)


def test_a_negative_weight_stays_negative(images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({"type": "l1loss", "loss_weight": -1.0, "target_weight": -0.5, "target_iter": 10})
    torch.testing.assert_close(loss(*images, current_iter=5), L1Loss()(*images) * -0.75, rtol=1e-6, atol=0)


def test_a_wrapped_loss_hands_the_iteration_to_a_loss_that_needs_it(images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss({"type": "WrapperTestIterationLoss", "loss_weight": 0.5, "start_iter": 3})
    assert loss(images[0], current_iter=2) == 0
    assert loss(images[0], current_iter=7) == 3.5


def test_a_call_needs_the_iteration_and_keeps_nothing_of_it(images: tuple[Tensor, Tensor]) -> None:
    loss = build_loss(RISING)
    with pytest.raises(TypeError, match="current_iter"):
        loss(*images)
    values = {at: loss(*images, current_iter=at).item() for at in (25, 12, 1, 19)}
    assert values == {at: build_loss(RISING)(*images, current_iter=at).item() for at in values}
    assert not list(loss.state_dict())


def test_only_a_loss_that_is_zero_for_the_whole_run_is_left_out() -> None:
    entries = [
        {"type": "l1loss", "name": "bare", "loss_weight": 1.0},
        {"type": "l1loss", "name": "bare_zero", "loss_weight": 0.0},
        {**RISING, "name": "rises"},
        {**RISING, "name": "rises_too_late", "start_iter": "100%", "target_iter": "100%", "disable_after": 1000},
        {**RISING, "name": "starts_after_the_run", "start_iter": 1001, "target_iter": 1001},
        {**RISING, "name": "cut_off_at_zero", "disable_after": 10},
        {"type": "l1loss", "name": "falls", "loss_weight": 1.0, "target_weight": 0.0, "target_iter": 2},
        {"type": "l1loss", "name": "falls_at_once", "loss_weight": 1.0, "target_weight": 0.0},
        {"type": "l1loss", "name": "never", "loss_weight": 1.0, "disable_after": 0},
        {"type": "l1loss", "name": "knots", "loss_weight": 0.0, "knots": [[0, 0], [10, 1], [20, 0]]},
    ]
    losses = build_losses(entries, total_iter=1000)
    assert list(losses) == ["bare", "rises", "rises_too_late", "falls", "knots"]


def test_one_type_more_than_once() -> None:
    entries = [
        {"type": "L1", "loss_weight": 1.0},
        {"type": "l1_loss", "loss_weight": 0.5, "start_iter": 4},
        {"type": "l1loss", "loss_weight": 2.0, "name": "third"},
        {"type": "l1loss", "loss_weight": 3.0, "name": "l1loss_3"},
        {"type": "l1loss", "loss_weight": 4.0},
    ]
    losses = build_losses(entries)
    assert {label: loss.loss_weight for label, loss in losses.items()} == {
        "l1loss": 1.0,
        "l1loss_2": 0.5,
        "third": 2.0,
        "l1loss_3": 3.0,
        "l1loss_4": 4.0,
    }
    assert [loss.schedule.value(3) for loss in losses.values()] == [1.0, 0.0, 2.0, 3.0, 4.0]


def test_a_name_is_kept_although_a_type_before_it_is_called_so() -> None:
    entries = [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mseloss", "loss_weight": 2.0, "name": "l1loss"}]
    assert {label: loss.loss_weight for label, loss in build_losses(entries).items()} == {
        "l1loss_2": 1.0,
        "l1loss": 2.0,
    }


def test_mistakes_of_all_entries_are_found_at_once() -> None:
    entries = [
        {**RISING, "name": "a", "target_wieght": 1.0},
        {**RISING, "name": "b", "target_iter": 3},
        {**RISING, "name": "c"},
        {**RISING, "name": "c"},
    ]
    with pytest.raises(ConfigError) as caught:
        build_losses(entries)
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["[0].target_wieght", "[1].target_iter", "[3].name"]
