"""Which losses are evaluated at an iteration, with what, and what a loss that is not costs: nothing."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from gan_model import GAN, L1, R1_R2, batch, gan_model, net_d, passes_at, registered_loss, same, state, step, watched
from PIL import Image
from torch import Tensor

from traiNNer.losses import build_loss
from traiNNer.losses.base import Loss


class Plain(Loss):
    """A loss without options."""

    def __init__(self) -> None:
        super().__init__()


class EmaLoss(Plain):
    """|output - ema_output| + |output - target|."""

    def forward(self, output: Tensor, target: Tensor, ema_output: Tensor) -> Tensor:
        assert not ema_output.requires_grad
        return (output - ema_output).abs().mean() + (output - target).abs().mean()


class PartsLoss(Plain):
    """Two named components."""

    def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        difference = output - target
        return {"near": difference.abs().mean(), "far": difference.square().mean()}


class WholeLoss(PartsLoss):
    """The sum of the two."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return torch.stack(list(super().forward(output, target).values())).sum()


class LargeLoss(Loss):
    """One with a network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Conv2d(3, 4096, 3).requires_grad_(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (self.net(output) - self.net(target)).abs().mean()


SCHEDULED = GAN | {"discriminator_start_iter": 2, "start_iter": 3, "disable_after": 4}


def test_the_discriminator_trains_in_its_own_time() -> None:
    model = gan_model(L1, SCHEDULED)
    moved = []
    for iteration in range(1, 7):
        before = state(model, "net_d", "optimizer/net_d")
        step(model, iteration)
        moved.append(not same(state(model, "net_d", "optimizer/net_d"), before))
        assert ("gan_d_real" in model.record) == moved[-1]
        assert ("gan" in model.record) == (iteration in (3, 4))
        assert ("gan" in model.losses) == (iteration < 5)
    assert moved == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 2, 0, 0]),
        (R1_R2, [0, 3, 4, 4, 0, 0]),
        (R1_R2 | {"penalty_interval": 3}, [0, 1, 4, 2, 0, 0]),
        ({"gan_type": "r3gan"}, [0, 3, 5, 5, 0, 0]),
    ],
    ids=["plain", "penalties", "now and then", "r3gan"],
)
def test_the_discriminator_passes_only_when_a_player_needs_it(options: dict[str, float], expected: list[int]) -> None:
    """One pass is net_d's own, one the generator's (two for pairs), and one each penalty's."""
    model = gan_model(L1, SCHEDULED | options)
    assert passes_at(model, net_d(model), range(1, 7)) == expected


def test_a_weight_of_zero_costs_the_generator_no_pass() -> None:
    knots = {"loss_weight": 0, "knots": [[2, 0], [3, 0.1], [4, 0]], "discriminator_start_iter": 6}
    model, without = gan_model(L1, GAN | knots), gan_model(L1)
    assert passes_at(model, net_d(model), range(1, 7)) == [0, 0, 1, 0, 0, 1]
    assert passes_at(without, net_d(without), range(1, 7)) == [0] * 6


def test_a_loss_that_is_not_live_leaves_the_run_as_it_is_without_it() -> None:
    model, without = gan_model(L1, SCHEDULED | {"start_iter": 5, "disable_after": 9}), gan_model(L1)
    for iteration in range(1, 5):
        for each in (model, without):
            step(each, iteration)
    assert same(state(model, "net_g", "optimizer/net_g", "ema"), state(without, "net_g", "optimizer/net_g", "ema"))


def test_the_moving_average_passes_only_when_a_live_loss_asks() -> None:
    with registered_loss("emaprobeloss", EmaLoss):
        probe = {"type": "emaprobe", "loss_weight": 0.5, "start_iter": 3, "disable_after": 4}
        model = gan_model(L1, SCHEDULED, probe)
        again = gan_model(L1, probe, probe)
        assert passes_at(model, model.net_val, range(1, 7)) == [0, 0, 1, 1, 0, 0]
        assert passes_at(again, again.net_val, [3]) == [1]
        with watched(again.net_val) as passes:
            step(again, 4, batch(1), batch(2))
    assert len(passes) == 2


def test_without_a_live_loss_the_generator_stands_still() -> None:
    """net_d may still be warmed up on its images."""
    gan = GAN | {"loss_weight": 0, "knots": [[4, 0], [5, 0.1]], "discriminator_start_iter": 3}
    model = gan_model(L1 | {"disable_after": 2}, gan, batch_norm=True)
    for iteration in (1, 2):
        step(model, iteration)
    before = state(model)
    assert not same(before["ema"], before["net_g"])  # or it could not be seen to move
    for iteration in (3, 4):
        step(model, iteration)
        assert model.record["finite"].item() == 1
    after = state(model)
    assert {name for name in before if not same(after[name], before[name])} == {"net_d", "optimizer/net_d"}
    step(model, 5)
    after = state(model)
    assert not any(same(after[name], before[name]) for name in after)


def test_where_nothing_is_to_be_learned_nothing_passes() -> None:
    model = gan_model(L1 | {"start_iter": 3}, GAN | {"start_iter": 4, "discriminator_start_iter": 2})
    assert passes_at(model, model.net_g, range(1, 5)) == [0, 1, 1, 1]


def test_two_things_that_begin_at_once_are_two_lines() -> None:
    ramp = {"loss_weight": 0, "target_weight": 0.1, "target_iter": 5, "discriminator_start_iter": 5}
    assert gan_model(L1, GAN | ramp).phases(5) == [
        "loss gan reached its target, weight 0.1",
        "loss gan: net_d starts to train",
    ]
    assert gan_model(L1, GAN | {"disable_after": 3, "discriminator_start_iter": 6}).phases(6) == []


def test_a_validation_leaves_out_what_has_no_base_weight() -> None:
    rising = {"type": "mseloss", "loss_weight": 0, "target_weight": 1.0, "target_iter": 5}
    assert gan_model(L1, rising).fidelity_losses.keys() == {"l1loss"}


def test_without_a_live_loss_a_bad_image_does_no_harm() -> None:
    gan = GAN | {"loss_weight": 0, "knots": [[4, 0], [5, 0.1]], "discriminator_start_iter": 1}
    model = gan_model(gan, batch_norm=True)
    before = state(model)
    poisoned = batch(1)
    poisoned["lq"][0, 0, 0, 0] = float("nan")
    step(model, 1, poisoned)
    assert model.record["finite"].item() == 0
    assert same(state(model), before)


# negative weights ----------------------------------------------------------------------------------------------------


def enlarged(lq: Tensor) -> Tensor:
    """Bicubic, twice the size, by Pillow."""
    height, width = (2 * side for side in lq.shape[-2:])
    planes = [
        np.asarray(Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.BICUBIC))
        for plane in lq.flatten(0, 1)
    ]
    return torch.from_numpy(np.stack(planes)).reshape(*lq.shape[:2], height, width).clamp(0, 1)


@pytest.mark.parametrize("schedule", [{}, {"target_iter": 4, "target_weight": -2.0}], ids=["bare", "scheduled"])
def test_a_negative_weight_compares_with_the_enlarged_lq_by_its_size(schedule: dict[str, float]) -> None:
    """Another loss beside it keeps its target."""
    mse = {"type": "mseloss", "loss_weight": 3.0}
    negative = gan_model(L1 | {"loss_weight": -0.5} | schedule, mse)
    weight = build_loss(L1 | {"loss_weight": -0.5} | schedule).schedule.value(2)
    given = batch(2)
    step(negative, 2, given)
    expected = gan_model(L1 | {"loss_weight": abs(weight)})
    output = expected.net_g(given["lq"])
    near, far = (output - enlarged(given["lq"])).abs().mean(), (output - given["gt"]).square().mean()
    (abs(weight) * near + 3 * far).backward()
    assert (weight, negative.loss_weights["l1loss"]) == ((-0.5, -0.5) if not schedule else (-1.25, -1.25))
    assert negative.record["l1loss"].item() == pytest.approx(near.item(), rel=1e-5)
    assert negative.record["mseloss"].item() == pytest.approx(far.item(), rel=1e-5)
    for found, start in zip(negative.net_g.parameters(), expected.net_g.parameters(), strict=True):
        torch.testing.assert_close(found, start - 0.05 * start.grad, rtol=1e-4, atol=1e-6)


# named components, and losses that end -------------------------------------------------------------------------------


def test_named_components_are_summed_and_recorded() -> None:
    with registered_loss("partsloss", PartsLoss), registered_loss("wholeloss", WholeLoss):
        parts, whole = (gan_model({"type": name, "loss_weight": 0.6}) for name in ("parts", "whole"))
    for model in (parts, whole):
        step(model, 1, batch(1), batch(2))
    assert {"partsloss_near", "partsloss_far"} == parts.record.keys() - {"finite", "losses_finite", "grad_norm/net_g"}
    torch.testing.assert_close(
        parts.record["partsloss_near"] + parts.record["partsloss_far"], whole.record["wholeloss"]
    )
    with torch.no_grad():
        given = gan_model().net_g
        far = [(given(batch(seed)["lq"]) - batch(seed)["gt"]).square().mean() for seed in (1, 2)]
    torch.testing.assert_close(parts.record["partsloss_far"], torch.stack(far).mean())
    for found, expected in zip(parts.net_g.parameters(), whole.net_g.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_component_that_is_not_finite_skips_the_step() -> None:
    """Of both players, although net_d's own loss and gradients are finite."""

    class Broken(PartsLoss):
        def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
            parts = super().forward(output, target)
            return parts | {"far": parts["far"].detach() / 0}  # no gradient tells

    with registered_loss("brokenloss", Broken):
        model = gan_model({"type": "broken", "loss_weight": 1.0}, GAN)
    before = state(model)
    step(model, 1)
    assert model.record["finite"].item() == 0
    assert same(state(model), before)


def test_a_loss_that_has_ended_is_let_go_with_its_network() -> None:
    with registered_loss("largeloss", LargeLoss):
        model = gan_model(L1, {"type": "large", "loss_weight": 1.0, "disable_after": 2})
    alive = weakref.ref(model.losses["largeloss"])
    for iteration, expected in ((1, True), (2, True), (3, False)):
        step(model, iteration)
        gc.collect()
        assert (alive() is not None) == expected
        assert ("largeloss" in model.losses, "largeloss" in model.fidelity_losses) == (expected, expected)
    assert model.losses.keys() == {"l1loss"}
