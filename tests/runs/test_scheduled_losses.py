"""What scheduled losses promise, each on a real run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from traiNNer.losses import build_loss

Run = Callable[..., int]

NET_D = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}


def weights(folder: Path, name: str = "net_g", iteration: int = 8) -> dict[str, Tensor]:
    return load_file(folder / "resume_models" / f"{name}_{iteration}.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def curves(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder / "tb_logger"))
    events.Reload()
    return {tag: {point.step: point.value for point in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.fixture
def short(options: dict[str, Any]) -> dict[str, Any]:
    """Eight iterations, each logged, the last one saved; nothing validated."""
    options["val"]["val_enabled"] = False
    options["train"]["scheduler"] = None
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 8, "use_tb_logger": True}
    return options


@pytest.fixture
def run_with(short: dict[str, Any], run_training: Run, tmp_path: Path) -> Callable[..., Path]:
    """Runs with these losses, under a name of its own; returns the run's folder."""
    numbers = iter(range(100))

    def run(*losses: dict[str, Any], **changes: Any) -> Path:
        options = copy.deepcopy(short) | {"name": f"run{next(numbers)}"}
        options["train"]["losses"] = list(losses)
        options["train"] |= changes
        if any("gan" in loss["type"].lower() for loss in losses):
            options |= {"network_d": NET_D}
            options["train"]["optim_d"] = {"type": "AdamW", "lr": 1e-3}
        assert run_training(options) == 0
        return tmp_path / "experiments" / options["name"]

    return run


@contextmanager
def counted(of: type[nn.Module]) -> Iterator[list[bool]]:
    """Forward passes of a class of networks, by whether they were in training mode."""
    calls: list[bool] = []
    usual = of.forward

    def forward(self: nn.Module, *inputs: Any, **named: Any) -> Any:
        calls.append(self.training)
        return usual(self, *inputs, **named)

    of.forward = forward  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        of.forward = usual  # type: ignore[method-assign]


L1 = {"type": "l1loss", "loss_weight": 1.0}
MSE = {"type": "mseloss", "loss_weight": 0.5}


def test_1_a_schedule_that_changes_nothing_changes_no_bit(run_with: Callable[..., Path]) -> None:
    plain = run_with(L1, MSE)
    scheduled = run_with({**L1, "start_iter": 0}, {**MSE, "target_weight": 0.5, "target_iter": 6})
    assert same(weights(plain), weights(scheduled))
    assert not same(weights(plain), weights(run_with(L1, {**MSE, "target_weight": 0.6, "target_iter": 6})))


def test_2_a_loss_that_starts_at_0_is_live_and_one_that_stays_0_is_not(run_with: Callable[..., Path]) -> None:
    live = run_with(L1, {"type": "ganloss", "loss_weight": 0.0, "target_weight": 0.1, "target_iter": 7})
    assert (live / "resume_models" / "net_d_8.safetensors").exists()
    dead = run_with(L1, {"type": "ganloss", "loss_weight": 0.0, "target_weight": 0.1, "start_iter": 9})
    assert not (dead / "resume_models" / "net_d_8.safetensors").exists()
    log = (dead / "train.log").read_text(encoding="utf-8")
    assert "train.losses[1].loss_weight: the weight is 0 for the whole run: the loss is left out" in log
    assert same(weights(dead), weights(run_with(L1)))


def test_3_a_loss_of_weight_0_is_not_evaluated(run_with: Callable[..., Path]) -> None:
    from traiNNer.archs.munet_arch import MUNet
    from traiNNer.archs.paragonsr2_arch import ParagonSR2

    with counted(MUNet) as judged, counted(ParagonSR2) as generated:
        run_with(
            L1,
            {"type": "ganloss", "loss_weight": 0.1, "start_iter": 4, "disable_after": 6},
            {"type": "ldlloss", "loss_weight": 0.1, "start_iter": 5, "disable_after": 6},
        )
    assert len(judged) == 2 * 3  # iterations 4, 5 and 6: once for the generator, once in its own step
    assert generated.count(True) == 8
    assert generated.count(False) == 2  # the moving average at 5 and 6


def test_3_a_loss_leaves_no_trace_before_it_starts(short: dict[str, Any], run_with: Callable[..., Path]) -> None:
    short["logger"]["save_checkpoint_freq"] = 1
    waiting = run_with(L1, {"type": "ganloss", "loss_weight": 0.1, "start_iter": 8}, {**MSE, "start_iter": 8})
    alone = run_with(L1)
    assert same(weights(waiting, iteration=7), weights(alone, iteration=7))
    assert not same(weights(waiting), weights(alone))


def test_4_what_net_d_learns_does_not_depend_on_the_generators_weight(run_with: Callable[..., Path]) -> None:
    gan = {"type": "ganloss", "gan_type": "r3gan", "start_iter": 8, "discriminator_start_iter": 3}
    weak, strong = run_with(L1, {**gan, "loss_weight": 0.01}), run_with(L1, {**gan, "loss_weight": 10.0})
    assert same(weights(weak, "net_d"), weights(strong, "net_d"))
    assert not same(weights(weak), weights(strong))
    later = run_with(L1, {**gan, "loss_weight": 0.01, "discriminator_start_iter": 4})
    assert not same(weights(weak, "net_d"), weights(later, "net_d"))
    ended = [run_with(L1, {**gan, "loss_weight": 0.1, "start_iter": 2, "disable_after": end}) for end in (5, 8)]
    points = [curves(folder)["loss/ganloss_d"] for folder in ended]
    assert [sorted(each) for each in points] == [[3, 4, 5], [3, 4, 5, 6, 7, 8]]


def test_5_components_are_logged_and_weighted(run_with: Callable[..., Path]) -> None:
    found = curves(run_with(L1, {"type": "hsluvloss", "loss_weight": 0.1, "start_iter": 3}))
    for name in ("hue", "saturation", "lightness"):
        assert sorted(found[f"loss/hsluvloss_{name}"]) == list(range(3, 9))
    assert found["loss_weight/hsluvloss"] == pytest.approx(
        {**dict.fromkeys((1, 2), 0), **dict.fromkeys(range(3, 9), 0.1)}
    )


def test_6_entries_of_one_type_have_schedules_and_lines_of_their_own(run_with: Callable[..., Path]) -> None:
    folder = run_with(
        {**L1, "target_weight": 0.0, "target_iter": 8},
        {**L1, "loss_weight": 0.0, "target_weight": 1.0, "target_iter": 4},
        {**L1, "name": "late", "start_iter": 6},
    )
    found = curves(folder)
    assert found["loss_weight/l1loss"] == pytest.approx({at: 1 - at / 8 for at in range(1, 9)})
    assert found["loss_weight/l1loss_2"] == pytest.approx({at: min(1.0, at / 4) for at in range(1, 9)})
    assert sorted(found["loss/late"]) == [6, 7, 8]
    assert sorted(found["loss/l1loss"]) == list(range(1, 8))


def test_7_a_negative_weight_compares_with_the_enlarged_lq(run_with: Callable[..., Path]) -> None:
    found = curves(run_with({**L1, "name": "gt"}, {**L1, "loss_weight": -0.5, "name": "lq"}))
    assert found["loss_weight/lq"][1] == -0.5
    assert found["loss/lq"][8] != pytest.approx(found["loss/gt"][8], rel=1e-3)
    assert found["loss/lq"][8] < found["loss/lq"][1]  # towards the enlarged LQ, not away from it


@pytest.mark.parametrize("spelling", ["CharbonnierLoss", "charbonnier_loss", "charbonnier"])
def test_8_a_type_has_many_spellings(run_with: Callable[..., Path], spelling: str) -> None:
    assert "loss/charbonnierloss" in curves(run_with({"type": spelling, "loss_weight": 1.0}))


def test_8_r3gan_by_both_names(run_with: Callable[..., Path]) -> None:
    one = run_with(L1, {"type": "GANLoss", "gan_type": "r3gan", "loss_weight": 0.1})
    two = run_with(L1, {"type": "r3gan", "loss_weight": 0.1})
    assert same(weights(one), weights(two))
    assert same(weights(one, "net_d"), weights(two, "net_d"))


SCHEDULES = {
    "linear": {"loss_weight": 0.1, "target_weight": 0.9, "start_iter": 2, "target_iter": 6},
    "cosine": {"loss_weight": 0.9, "target_weight": 0.1, "target_iter": 8, "schedule_type": "cosine"},
    "step": {"loss_weight": 0.3, "target_weight": 0.7, "target_iter": 5, "schedule_type": "step"},
    "knots": {"loss_weight": 1.0, "knots": [[2, 0.5], [4, 1.5], [8, 0.25]]},
    "percent": {
        "loss_weight": 0.5,
        "start_iter": "25%",
        "target_iter": "75%",
        "target_weight": 1.0,
        "disable_after": 7,
    },
}


def test_9_weights_and_phases_are_seen(run_with: Callable[..., Path]) -> None:
    folder = run_with(L1, *({**MSE, **schedule, "name": name} for name, schedule in SCHEDULES.items()))
    found = curves(folder)
    for name, schedule in SCHEDULES.items():
        expected = build_loss({**MSE, **schedule}, total_iter=8).schedule
        assert found[f"loss_weight/{name}"] == pytest.approx({at: expected.value(at) for at in range(1, 9)}), name
    phases = [line.partition("[iter ")[2] for line in (folder / "train.log").read_text("utf-8").splitlines()]
    assert [line for line in phases if "] loss " in line] == [
        "2] loss linear started, weight 0.1",
        "2] loss percent started, weight 0.5",
        "5] loss step reached its target, weight 0.7",
        "6] loss linear reached its target, weight 0.9",
        "6] loss percent reached its target, weight 1",
        "8] loss cosine reached its target, weight 0.1",
        "8] loss knots reached its target, weight 0.25",
        "8] loss percent disabled",
    ]


@pytest.mark.parametrize("at", [2, 3, 5])
def test_10_a_resumed_run_has_the_weights_of_a_straight_one(
    short: dict[str, Any], run_training: Run, tmp_path: Path, at: int
) -> None:
    short["train"]["losses"] = [L1, {**MSE, **SCHEDULES["linear"]}, {**MSE, **SCHEDULES["cosine"]}]
    assert run_training(short | {"name": "straight"}) == 0
    for total_iter in (at, 8):
        short["train"]["total_iter"] = total_iter
        assert run_training(short | {"name": "parts"}, "--auto_resume") == 0
    straight, parts = tmp_path / "experiments" / "straight", tmp_path / "experiments" / "parts"
    assert same(weights(straight), weights(parts))
    first, second = curves(straight), curves(parts)
    tags = [tag for tag in first if tag.startswith(("loss", "grad_norm"))]
    assert {tag: first[tag] for tag in tags} == {tag: second[tag] for tag in tags}


def test_11_surprises_are_noticed_once(run_with: Callable[..., Path]) -> None:
    folder = run_with(
        {**L1, "start_iter": 2},
        {**MSE, "target_weight": 0.7},
        {**MSE, "target_weight": 0.7, "target_iter": 7, "disable_after": 5},
    )
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert log.count("there is no target_iter, so the weight is this from iteration 1 on; loss_weight is not used") == 1
    assert log.count("the loss ends at disable_after, 5, before its target at 7") == 1
    assert curves(folder)["loss_weight/mseloss"] == pytest.approx(dict.fromkeys(range(1, 9), 0.7))


def test_iterations_without_a_loss_leave_the_network_alone(
    run_with: Callable[..., Path],
) -> None:
    folder = run_with({**L1, "start_iter": 9 - 1}, warmup_iter=-1)
    assert "no loss has a weight at iteration 1: net_g is not trained there" in (folder / "train.log").read_text(
        "utf-8"
    )
    once = run_with({**L1}, total_iter=8)
    assert not same(weights(folder), weights(once))
    assert sorted(curves(folder)["loss/l1loss"]) == [8]
