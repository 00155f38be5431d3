"""One step of two players: who learns from what, and what becomes of a step that is not finite."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from gan_model import FAR, GAN, L1, R1_R2, batch, gan_model, net_d, same, state, step, watched
from torch import Tensor, nn

from traiNNer.archs import after_update
from traiNNer.archs.spectral_norm import SpectralNormConv2d
from traiNNer.models.adaptive_d import AdaptiveDiscriminator
from traiNNer.models.sr_model import SRModel
from traiNNer.utils.device import Precision

EVERY_TYPE = [
    GAN | {"gan_type": "vanilla"} | R1_R2,
    GAN | {"gan_type": "hinge", "r1_weight": 0.5},
    GAN | {"gan_type": "r3gan"},
]
every_type = pytest.mark.parametrize("gan", EVERY_TYPE, ids=lambda gan: gan["gan_type"])


def adaptive(decay: float = 0.9, threshold: float = 1.02) -> AdaptiveDiscriminator:
    return AdaptiveDiscriminator(decay=decay, threshold=threshold, device=torch.device("cpu"))


class Looking:
    """An observer that notes what a player's gradients are when an update is due."""

    def __init__(self) -> None:
        self.model: SRModel | None = None
        self.seen: list[tuple[str, bool]] = []

    def before_update(self, network: str, gradient_norm: Tensor, current_iter: int) -> None:
        assert self.model is not None
        gradients = [weight.grad for weight in net_d(self.model).parameters()]
        self.seen.append((network, any(gradient is not None for gradient in gradients)))
        assert gradient_norm > 0

    def after_step(self, current_iter: int) -> None:
        self.seen.append(("after", True))

    def after_validation(self, metrics: dict[str, float], current_iter: int) -> None:
        raise AssertionError("no validation here")


# the generator's step, and net_d's own -------------------------------------------------------------------------------


@every_type
def test_the_generators_step_does_not_touch_the_discriminator(gan: dict[str, Any]) -> None:
    model = gan_model(L1, gan | {"discriminator_start_iter": FAR})
    without = gan_model(L1)
    before = state(model, "net_d", "optimizer/net_d")
    for each in (model, without):
        step(each, 1)
    assert same(state(model, "net_d", "optimizer/net_d"), before)
    assert all(weight.grad is None and weight.requires_grad for weight in net_d(model).parameters())
    assert not same(state(model, "net_g"), state(without, "net_g"))  # the generator does feel it


@every_type
def test_the_generators_backward_gives_no_gradient_to_the_discriminator(gan: dict[str, Any]) -> None:
    looking = Looking()
    model = looking.model = gan_model(L1, gan, observer=looking)
    step(model, 1)
    step(model, 2)
    assert looking.seen == [("net_g", False), ("net_d", True), ("after", True)] * 2


@every_type
def test_the_discriminators_own_loss_is_not_weighted(gan: dict[str, Any]) -> None:
    light, heavy = (gan_model(L1, gan | {"loss_weight": weight}) for weight in (0.1, 10.0))
    start = state(light, "net_d")
    for model in (light, heavy):
        step(model, 1)
    assert same(state(light, "net_d", "optimizer/net_d"), state(heavy, "net_d", "optimizer/net_d"))
    assert not same(state(light, "net_d"), start)
    assert not same(state(light, "net_g"), state(heavy, "net_g"))
    assert same(
        {key: light.record[key] for key in ("gan", "l1loss")},
        {key: heavy.record[key] for key in light.record if key in ("gan", "l1loss")},
    )


def test_two_adversarial_losses_count_once_each() -> None:
    one, twice, stronger = gan_model(L1, GAN), gan_model(L1, GAN, GAN | {"name": "again"}), gan_model(L1, GAN)
    stronger.players["net_d"].optimizer.param_groups[0]["lr"] *= 2
    stronger.players["net_d"].learning_rate = twice.players["net_d"].learning_rate  # a rate of another optimizer
    for model in (one, twice, stronger):
        step(model, 1)
    moved = [state(model, "net_d")["net_d"]["in_conv.weight"] for model in (one, twice, stronger)]
    torch.testing.assert_close(moved[1], moved[2])
    assert not torch.allclose(moved[0], moved[1])


def test_penalties_come_at_their_interval_and_train_the_discriminator() -> None:
    model, without = (gan_model(L1, GAN | options | {"penalty_interval": 2}) for options in (R1_R2, {}))
    for iteration in range(1, 5):
        for each in (model, without):
            step(each, iteration)
        due = iteration % 2 == 0
        assert {"gan_r1", "gan_r2"} & model.record.keys() == ({"gan_r1", "gan_r2"} if due else set())
        assert same(state(model, "net_d"), state(without, "net_d")) == (iteration == 1)


# accumulation --------------------------------------------------------------------------------------------------------


@every_type
def test_pieces_equal_the_whole_in_float64(gan: dict[str, Any]) -> None:
    pieced, whole = (gan_model(L1, gan | {"loss_weight": 0.7}, float64=True) for _ in range(2))
    start = state(whole, "net_g", "net_d")
    for iteration in (1, 2):
        pieces = [batch(10 * iteration + number, dtype=torch.float64) for number in range(3)]
        step(pieced, iteration, *pieces)
        step(whole, iteration, {key: torch.cat([piece[key] for piece in pieces]) for key in ("lq", "gt")})
        assert pieced.record.keys() == whole.record.keys()
        for label, value in whole.record.items():
            torch.testing.assert_close(pieced.record[label], value, rtol=1e-5, atol=1e-7, msg=label)
    for name in ("net_g", "net_d"):
        found, expected = state(pieced, name)[name], state(whole, name)[name]
        for key, value in expected.items():  # networks are float64; images between them, and losses, float32
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-8, msg=key)
        assert not same(expected, start[name])


# steps that are not finite -------------------------------------------------------------------------------------------


@every_type
@pytest.mark.parametrize("optimizer", [None, {"type": "AdamW", "lr": 1e-3}], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("warm", [False, True], ids=["first step", "later"])
def test_a_nan_in_gt_skips_both_players_whole(
    gan: dict[str, Any], optimizer: dict[str, Any] | None, warm: bool
) -> None:
    model = gan_model(L1, gan, optimizer=optimizer, batch_norm=True, adaptive_d=adaptive(threshold=100))
    for iteration in (1, 2) if warm else ():  # two, for the moving average to differ from net_g
        step(model, iteration)
    before = state(model)
    poisoned = batch(5)
    poisoned["gt"][1, 2, 3, 4] = math.nan
    step(model, 3, batch(4), poisoned)
    assert model.record["finite"].item() == 0
    skipped = state(model)
    for name in ("optimizer/net_g", "optimizer/net_d") if not warm else ():  # Adam may have made its zeros
        assert all(
            not value.any() for each in skipped.pop(name).values() for value in each.values() if value is not None
        )
    assert same(skipped, {name: before[name] for name in skipped})
    step(model, 4)
    assert model.record["finite"].item() == 1
    after = state(model)
    assert not any(same(after[name], before[name]) for name in after)


def test_a_nan_in_the_discriminators_loss_alone_skips_the_discriminator() -> None:
    model = gan_model(GAN | R1_R2, batch_norm=True)  # only net_d looks at GT
    step(model, 1)
    before = state(model)
    poisoned = batch(5)
    poisoned["gt"][0, 0, 0, 0] = math.nan
    step(model, 2, poisoned, batch(6))
    after = state(model)
    assert model.record["finite"].item() == 0
    assert [same(after[name], before[name]) for name in ("net_d", "optimizer/net_d")] == [True, True]
    assert [same(after[name], before[name]) for name in ("net_g", "optimizer/net_g", "ema")] == [False] * 3
    assert all(torch.isfinite(value).all() for name in ("net_g", "ema") for value in after[name].values())


# spectral norm -------------------------------------------------------------------------------------------------------


def test_spectral_norms_move_once_per_optimizer_step() -> None:
    model = gan_model(L1, GAN | R1_R2)
    expected = copy.deepcopy(net_d(model))
    step(model, 1, batch(1), batch(2), batch(3))
    with torch.no_grad():
        for old, new in zip(expected.parameters(), net_d(model).parameters(), strict=True):
            old.copy_(new)
    after_update(expected)
    vectors = [name for name, _ in expected.named_buffers() if name.endswith(("_u", "_v"))]
    assert len(vectors) == 2 * sum(isinstance(module, SpectralNormConv2d) for module in expected.modules())
    for name in vectors:
        assert torch.equal(net_d(model).get_buffer(name), expected.get_buffer(name)), name


# adaptive_d ----------------------------------------------------------------------------------------------------------


def test_adaptive_d_follows_its_formula_and_resumes() -> None:
    losses = [1.0, 1.15, 0.9, 1.3, 1.31, 0.2, 5.0, 5.0, math.nan, 0.1, 1.2, 1.1, 4.0]
    decay, threshold = 0.8, 1.05
    average, expected = None, []
    for loss in losses:
        before = loss if average is None else average
        after = decay * before + (1 - decay) * loss
        expected.append(after > threshold * before)
        average = before if math.isnan(after) else after
    assert {True, False} == set(expected)
    straight = adaptive(decay, threshold)
    assert math.isnan(straight.state_dict()["average"])
    found = []
    for loss in losses:
        resumed = adaptive(decay, threshold)
        resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
        found.append(straight.rests(torch.tensor(loss)))
        assert resumed.rests(torch.tensor(loss)) == found[-1]
        assert same(resumed.state_dict(), straight.state_dict())
    assert found == expected
    assert straight.state_dict()["average"].item() == pytest.approx(average, rel=1e-5)


def test_the_discriminator_rests_after_the_generators_unweighted_loss() -> None:
    models = [gan_model(L1, GAN | {"loss_weight": weight}, adaptive_d=adaptive(0.5, 1e-3)) for weight in (0.1, 0.3)]
    for model in models:
        start = state(model, "net_d", "optimizer/net_d")
        with watched(net_d(model)) as passes:
            step(model, 1)
        assert len(passes) == 1  # what the generator needs
        assert same(state(model, "net_d", "optimizer/net_d"), start)
        assert model.adaptive_d is not None
        assert model.adaptive_d.state_dict()["average"] == model.record["gan"]
        assert "gan_d_real" not in model.record
    awake = gan_model(L1, GAN, adaptive_d=adaptive(0.5, 1e3))
    plain = gan_model(L1, GAN)
    for iteration in (1, 2):
        step(awake, iteration)
        step(plain, iteration)
    assert same(state(awake, "net_d"), state(plain, "net_d"))


def test_adaptive_d_does_not_keep_the_discriminator_from_its_warm_up() -> None:
    model = gan_model(L1, GAN | {"start_iter": 3, "discriminator_start_iter": 1}, adaptive_d=adaptive(0.5, 1e-3))
    moved = []
    for iteration in (1, 2, 3):
        start = state(model, "net_d")
        step(model, iteration)
        moved.append(not same(state(model, "net_d"), start))
        assert model.adaptive_d is not None
        assert model.adaptive_d.state_dict()["average"].isnan() == (iteration < 3)
    assert moved == [True, True, False]


# precision and compilation -------------------------------------------------------------------------------------------


@every_type
def test_penalties_are_float32_under_autocast(gan: dict[str, Any]) -> None:
    model = gan_model(L1, gan, precision=Precision(torch.bfloat16))
    penalties = 1 if gan["gan_type"] == "hinge" else 2
    for iteration in (1, 2, 3):
        with watched(net_d(model)) as passes:
            step(model, iteration)
        judged = 2 if gan["gan_type"] == "r3gan" else 1
        assert passes == [(torch.bfloat16, True)] * (judged + 1) + [(torch.float32, False)] * penalties
        assert all(value.dtype == torch.float32 and value.isfinite() for value in model.record.values())
        assert model.record["finite"].item() == 1
    for value in state(model).values():
        tensors = [each for each in value.values() if isinstance(each, Tensor)]
        assert all(torch.isfinite(each).all() and each.dtype != torch.bfloat16 for each in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_discriminator_learns_as_a_plain_one(backend: str) -> None:
    """A compiled network has no second derivative, so penalties go through the network itself."""
    compiled_passes: list[int] = []

    def compiled(net: nn.Module) -> nn.Module:
        whole = torch.compile(net, backend=backend)
        whole.register_forward_hook(lambda *_: compiled_passes.append(1))  # type: ignore[union-attr]
        return whole  # type: ignore[return-value]

    gan = GAN | R1_R2 | {"loss_weight": 1.0}
    plain, fast = gan_model(L1, gan), gan_model(L1, gan, forward_net=compiled)
    for iteration in (1, 2):
        for model in (plain, fast):
            step(model, iteration)
    assert len(compiled_passes) == 4  # the judge's and net_d's own, but no penalty's
    for name in ("net_g", "net_d"):
        for key, value in state(plain, name)[name].items():
            torch.testing.assert_close(state(fast, name)[name][key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_net_d_rests_when_a_loss_below_zero_rises_not_when_it_falls() -> None:
    for losses, expected in (((-1.0, -1.5), False), ((-1.0, -0.5), True), ((-1.0, -1.0), False)):
        rule = adaptive(decay=0.5, threshold=1.02)
        answers = [rule.rests(torch.tensor(loss)) for loss in losses]
        assert answers == [False, expected], losses
