"""`--find_lr`: a plot and a line, and nothing else is any different."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from traiNNer.assembly import build_trainer
from traiNNer.cli import parse_train
from traiNNer.lr_finder import find_lr, plot
from traiNNer.models.player import Player
from traiNNer.preparation import prepare
from traiNNer.trainer import Trainer
from traiNNer.utils import dist
from traiNNer.utils.rng import capture

Run = Callable[..., int]


@pytest.fixture
def rich_options(options: dict[str, Any]) -> dict[str, Any]:
    """Much that a range test could disturb: net_d, EMA, accumulation, clipping, workers, buffers, a learning loss."""
    options["datasets"]["train"] |= {"accum_iter": 2, "batch_size_per_gpu": 2, "num_worker_per_gpu": 1}
    options["network_d"] = {"type": "patchgandiscriminatorsn", "ndf": 8, "n_layers": 1}
    options["train"] |= {
        "grad_clip": True,
        "optim_d": {"type": "AdamW", "lr": 1e-3},
        "losses": [
            {"type": "l1loss", "loss_weight": 1.0},
            {"type": "ldlloss", "loss_weight": 0.5},
            {"type": "charbonnierloss", "loss_weight": 0.5, "start_iter": 3},
            {"type": "ganloss", "loss_weight": 0.05, "gan_type": "vanilla"},
        ],
    }
    return options


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def built(path: Path, *arguments: str) -> Trainer:
    parsed = parse_train(["-opt", str(path), *arguments])
    return build_trainer(prepare(parsed), parsed, None)[0]


def everything(trainer: Trainer) -> dict[str, Any]:
    """State and weights of all that the checkpoint tracks, and what it does not: buffers, modes, gradients, rates."""
    model = trainer.model
    nets = {name: player.net for name, player in model.players.items()} | {"ema": model.ema.net} if model.ema else {}
    return {
        "tensors": {
            f"{name}.{key}": tensor.detach().clone()
            for name, net in nets.items()
            for key, tensor in (*net.named_parameters(), *net.named_buffers())
        },
        "modes": {name: [module.training for module in net.modules()] for name, net in nets.items()},
        "optimizers": {name: player.optimizer.state_dict() for name, player in model.players.items()},
        "rates": {name: player.learning_rate for name, player in model.players.items()},
        "scales": {name: p.loss_scale.state_dict() for name, p in model.players.items() if p.loss_scale is not None},
        "loader": trainer.loader.state_dict(),
        "random": capture(),
        "losses": {label: loss.state_dict() for label, loss in model.losses.items()},
        "record": (model.record, model.loss_weights),
    }


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_it_writes_one_plot_and_says_what_to_write(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(options, "--find_lr") == 0
    found = files(tmp_path / "experiments")
    assert list(found) == [str(Path("find_lr") / "tiny.png")]
    with Image.open(tmp_path / "experiments" / "find_lr" / "tiny.png") as picture:
        assert picture.width > 600
    said = re.findall(r"train\.optim_g\.lr: (\S+) ", capfd.readouterr().err)
    assert len(said) == 1
    assert 1e-5 < float(said[0]) < 1e-1


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamWScheduleFree", "Prodigy"])
def test_a_run_after_it_is_a_run_without_it(
    rich_options: dict[str, Any], write_options: Callable[..., Path], tmp_path: Path, optimizer: str
) -> None:
    rich_options["val"] = None
    rich_options["train"]["optim_g"] = {"type": optimizer, "lr": 4e-3}
    ends = []
    for tested in (False, True):
        trainer = built(write_options(rich_options), "--name", f"tested_{tested}")
        if tested:
            before = everything(trainer)
            plot(find_lr(trainer.model, trainer.loader), tmp_path / "plot.png", "a test")
            after = everything(trainer)
            assert [key for key in before if not same(before[key], after[key])] == []
        for folder in ("models", "resume_models", "training_states"):
            (tmp_path / "experiments" / f"tested_{tested}" / folder).mkdir(parents=True)
        trainer.train()
        ends.append({key: value for key, value in everything(trainer).items() if key != "rates"})
    assert [key for key in ends[0] if not same(ends[0][key], ends[1][key])] == []


def test_it_starts_where_a_resumed_run_is_and_leaves_that_run_alone(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(options) == 0
    before = files(tmp_path / "experiments")
    assert run_training(options, "--resume", "4", "--find_lr") == 0
    after = files(tmp_path / "experiments")
    assert after.keys() - before.keys() == {str(Path("find_lr") / "tiny.png")}
    assert {key: after[key] for key in before} == before
    said = capfd.readouterr().err
    assert "range test of net_g's learning rate at iteration 5" in said


def test_without_a_checkpoint_an_earlier_run_is_not_moved_away(
    options: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    assert run_training(options) == 0
    assert run_training(options, "--find_lr") == 0
    assert sorted(path.name for path in (tmp_path / "experiments").iterdir()) == [".cache", "find_lr", "tiny"]


def test_losses_take_part_that_act_now_and_need_no_discriminator(
    rich_options: dict[str, Any], write_options: Callable[..., Path]
) -> None:
    model = built(write_options(rich_options)).model
    assert list(model.generator_alone(1).losses) == ["l1loss", "ldlloss"]
    assert list(model.generator_alone(3).losses) == ["l1loss", "ldlloss", "charbonnierloss"]
    assert list(model.generator_alone(1).players) == ["net_g"]


def test_weights_and_recovery_are_those_of_the_run(
    options: dict[str, Any], write_options: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an automation has made of a loss's weight, and pieces where a step does not fit."""
    options["train"]["losses"] = [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mseloss", "loss_weight": 1.0}]
    options["train"]["training_automations"] = {"DynamicBatchSizeOptimizer": {}}
    trainer = built(write_options(options))
    trainer.model.set_loss_factor("mseloss", 3.0)
    assert trainer.model.generator_alone(1).loss_factor("mseloss") == 3.0
    usual, failed = Player.backward, list[int]()

    def backward(self: Player, loss: torch.Tensor) -> None:
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        usual(self, loss)

    monkeypatch.setattr(Player, "backward", backward)
    assert len(find_lr(trainer.model, trainer.loader).rates) > 10


def test_a_run_of_adversarial_losses_alone_has_nothing_to_test(
    rich_options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    rich_options["train"]["losses"] = rich_options["train"]["losses"][2:]
    assert run_training(rich_options, "--find_lr") == 2
    assert "no loss of this run acts at iteration 1 without a discriminator" in capfd.readouterr().err


def test_several_processes_are_refused(
    options: dict[str, Any], write_options: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = built(write_options(options))
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    with pytest.raises(Exception, match="--find_lr: found 2 processes; accepted: one"):
        find_lr(trainer.model, trainer.loader)


def test_the_rate_of_the_file_does_not_matter(options: dict[str, Any], write_options: Callable[..., Path]) -> None:
    curves = []
    for rate in (1e-6, 1e-2):
        options["train"]["optim_g"]["lr"] = rate
        trainer = built(write_options(options))
        curves.append(find_lr(trainer.model, trainer.loader))
    assert curves[0].raw == pytest.approx(curves[1].raw, rel=1e-3)
