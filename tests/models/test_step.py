"""One optimizer step: accumulation, precision, clipping, EMA, and steps that are skipped whole."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from traiNNer.losses import build_losses
from traiNNer.models.ema import Ema
from traiNNer.models.loss_scale import LossScale
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.monitor import StepMonitor
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.types import StepReport
from traiNNer.utils.device import Precision
from traiNNer.utils.errors import RunError
from traiNNer.utils.registry import OPTIMIZERS


class Net(nn.Module):
    """Two convolutions, with a BatchNorm between them where buffers are wanted."""

    def __init__(self, *, batch_norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def make_model(
    optimizer: str = "AdamW",
    *,
    batch_norm: bool = False,
    lr: float = 1e-2,
    dtype: torch.dtype = torch.float32,
    weight: float = 1.0,
    **keywords: Any,
) -> SRModel:
    torch.manual_seed(0)
    net = Net(batch_norm=batch_norm).to(dtype)
    built = build_optimizer({"type": optimizer, "lr": lr}, net)
    player_keys = {key: keywords.pop(key) for key in ("max_norm", "loss_scale") if key in keywords}
    player = Player(net, built, LearningRate(built, build_schedule(None, 10)), **player_keys)
    losses = build_losses(
        [{"type": "l1loss", "loss_weight": weight}, {"type": "charbonnier", "loss_weight": 0.5, "name": "soft"}]
    )
    return SRModel(generator=player, losses=losses, ema=Ema(net, decay=0.9), **keywords)


def make_batch(seed: int, size: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    lq, gt = (torch.rand(size, 3, 8, 8, generator=generator, dtype=dtype) for _ in range(2))
    return {"lq": lq, "gt": gt, "lq_path": [f"{index}.png" for index in range(size)]}


def everything(model: SRModel) -> dict[str, Any]:
    optimizer = model.players["net_g"].optimizer.state_dict()["state"]
    return copy.deepcopy({"net": model.net_g.state_dict(), "ema": model.net_val.state_dict(), "optimizer": optimizer})


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
def test_a_bad_step_changes_nothing(optimizer: str) -> None:
    model = make_model(optimizer, batch_norm=True)
    for iteration in (1, 2):
        model.feed_data([make_batch(iteration)])
        model.optimize_parameters(iteration)
    before = everything(model)
    poisoned = make_batch(3)
    poisoned["lq"][0, 0, 0, 0] = math.nan
    model.feed_data([make_batch(4), poisoned])
    model.optimize_parameters(3)
    assert model.record["finite"].item() == 0
    assert_same(everything(model), before)
    model.feed_data([make_batch(5)])
    model.optimize_parameters(4)
    assert model.record["finite"].item() == 1
    assert not torch.equal(model.net_g.first.weight, before["net"]["first.weight"])


def test_a_bad_first_step_changes_nothing() -> None:
    for optimizer in OPTIMIZERS.names():
        model = make_model(optimizer)
        before = {key: value.clone() for key, value in model.net_g.state_dict().items()}
        batch = make_batch(0)
        batch["gt"].fill_(math.inf)
        model.feed_data([batch])
        model.optimize_parameters(1)
        assert_same(model.net_g.state_dict(), before)
        for state in model.players["net_g"].optimizer.state.values():
            assert all(torch.isfinite(value).all() for value in state.values() if isinstance(value, Tensor))
        model.feed_data([make_batch(1)])
        model.optimize_parameters(2)
        assert all(torch.isfinite(value).all() for value in model.net_g.state_dict().values())


def test_pieces_equal_the_whole() -> None:
    pieces = [make_batch(seed, dtype=torch.float64) for seed in range(3)]
    whole = {key: torch.cat([piece[key] for piece in pieces]) for key in ("lq", "gt")}
    accumulated, at_once = (make_model("SGD", dtype=torch.float64) for _ in range(2))
    accumulated.feed_data(pieces)
    at_once.feed_data([whole])
    for model in (accumulated, at_once):
        model.optimize_parameters(1)
    for found, expected in zip(accumulated.net_g.parameters(), at_once.net_g.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)  # the model's losses are float32


def test_clipping_bounds_the_update() -> None:
    model = make_model("SGD", lr=1.0, max_norm=1e-3)
    before = nn.utils.parameters_to_vector(model.net_g.parameters()).detach().clone()
    model.feed_data([make_batch(0)])
    model.optimize_parameters(1)
    moved = nn.utils.parameters_to_vector(model.net_g.parameters()).detach() - before
    assert model.record["grad_norm/net_g"] > 1e-2
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_loss_scale_leaves_the_step_as_it_is_and_recovers() -> None:
    plain = make_model("SGD")
    scaled = make_model("SGD", loss_scale=LossScale(torch.device("cpu"), initial=1024.0, growth_interval=2))
    for model in (plain, scaled):
        model.feed_data([make_batch(0)])
        model.optimize_parameters(1)
    for found, expected in zip(scaled.net_g.parameters(), plain.net_g.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    scale = scaled.players["net_g"].loss_scale
    assert scale is not None
    scaled.feed_data([make_batch(1)])
    scaled.optimize_parameters(2)
    assert scale.state_dict()["scale"] == 2048
    bad = make_batch(2)
    bad["lq"].fill_(math.inf)
    scaled.feed_data([bad])
    scaled.optimize_parameters(3)
    assert scale.state_dict()["scale"] == 1024
    fresh = LossScale(torch.device("cpu"))
    fresh.load_state_dict(scale.state_dict())
    assert fresh.state_dict() == scale.state_dict()


def monitored(model: SRModel, steps: int) -> StepMonitor:
    monitor = StepMonitor(read_every=1)
    for iteration in range(1, steps + 1):
        model.feed_data([make_batch(iteration)])
        model.optimize_parameters(iteration)
        monitor.add(iteration, model.record, ["a.png"], model.learning_rates)
    return monitor


def test_the_search_for_the_loss_scale_is_one_line_and_no_bad_step() -> None:
    # with this weight the gradient overflows until the scale is 2^115
    model = make_model("SGD", loss_scale=LossScale(torch.device("cpu"), initial=2.0**127), weight=2.0**12)
    before = everything(model)
    monitor = monitored(model, 12)
    assert_same(everything(model), before)
    assert monitor.reports() == []
    assert monitor.overflows() == [
        f"iterations 1 to 12: float16 gradients overflowed at loss scale {2.0**127:,g}; 12 steps were skipped, the "
        f"scale is {2.0**115:,g} from there (this is how the scale is found)"
    ]
    assert monitor.overflows() == []
    assert monitor.state_dict()["in_a_row"] == monitor.skipped == 0
    model.feed_data([make_batch(13)])
    model.optimize_parameters(13)
    assert model.record["finite"] == 1
    assert "loss_scale/net_g" not in monitor.means()


def test_gradients_that_overflow_at_any_loss_scale_end_the_run() -> None:
    model = make_model("SGD", loss_scale=LossScale(torch.device("cpu"), initial=4.0), weight=1e300)
    monitor = monitored(model, 12)  # at 4, 2 and 1 it may still be the scale
    assert monitor.state_dict()["in_a_row"] == 9
    assert [line.split(":")[0] for line in monitor.overflows()] == ["iterations 1 to 3"]
    with pytest.raises(RunError, match=r"10 steps in a row were not finite; the last: iteration 13: .*grad_norm/net_g"):
        monitor.add(13, model.record, ["a.png"], model.learning_rates)


def test_a_loss_that_is_not_finite_is_a_bad_step_at_any_loss_scale() -> None:
    model = make_model("SGD", loss_scale=LossScale(torch.device("cpu")))
    bad = make_batch(0)
    bad["gt"].fill_(math.nan)
    model.feed_data([bad])
    model.optimize_parameters(1)
    monitor = StepMonitor(read_every=1)
    monitor.add(1, model.record, ["a.png"], model.learning_rates)
    assert monitor.overflows() == []
    assert monitor.skipped == 1


def test_losses_see_float32_under_autocast() -> None:
    model = make_model(precision=Precision(torch.bfloat16))
    seen = []
    model.losses["l1loss"].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["output"].dtype), with_kwargs=True
    )
    inner = []
    model.net_g.last.register_forward_hook(lambda module, args, output: inner.append(output.dtype))
    model.feed_data([make_batch(0)])
    model.optimize_parameters(1)
    assert (seen, inner) == ([torch.float32], [torch.bfloat16])


def test_ema_follows_its_formula() -> None:
    net = Net(batch_norm=True)
    ema = Ema(net, decay=0.75, power=1.0, update_after_step=2)
    expected = net.first.weight.detach().clone()
    for iteration in range(1, 9):
        with torch.no_grad():
            net.first.weight.add_(torch.randn_like(net.first.weight))
            net.norm.num_batches_tracked += 1
        ema.update(net, iteration, torch.tensor(True))
        n = iteration - 3
        decay = 0.0 if n <= 0 else min(0.75, 1 - 1 / (1 + n))
        expected = decay * expected + (1 - decay) * net.first.weight.detach()
        torch.testing.assert_close(ema.net.first.weight, expected)
    assert ema.net.norm.num_batches_tracked == net.norm.num_batches_tracked
    assert not ema.net.training


def test_the_observer_sees_the_norm_before_the_update() -> None:
    calls: list[tuple[str, int, bool]] = []

    class Observer:
        def before_update(self, network: str, gradient_norm: Tensor, current_iter: int) -> None:
            calls.append((network, current_iter, torch.equal(model.net_g.first.weight, start)))
            assert gradient_norm > 0

        def after_step(self, report: StepReport) -> None:
            assert report.samples == 4
            calls.append(("after", report.iteration, torch.equal(model.net_g.first.weight, start)))

        def on_out_of_memory(self, network: str, batch_size: int, fitted: int, current_iter: int) -> None:
            raise AssertionError("there is memory enough")

    model = make_model(observer=Observer())
    start = model.net_g.first.weight.detach().clone()
    model.feed_data([make_batch(0)])
    model.optimize_parameters(1)
    assert calls == [("net_g", 1, True), ("after", 1, False)]


def test_modules_are_told_once_that_a_step_is_complete() -> None:
    class Counting(Net):
        told = 0

        def after_update(self) -> None:
            self.told += 1

    net = Counting(batch_norm=False)
    optimizer = build_optimizer({"type": "SGD", "lr": 0.1}, net)
    player = Player(net, optimizer, LearningRate(optimizer, build_schedule(None, 10)))
    model = SRModel(generator=player, losses=build_losses([{"type": "l1loss", "loss_weight": 1.0}]))
    model.feed_data([make_batch(0), make_batch(1)])
    model.optimize_parameters(1)
    assert net.told == 1
