"""Schedule-free optimizers: y while training, x to validate and release, and back bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from traiNNer.losses import build_losses
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.optimizers import apply_settings, build_optimizer, settings
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.utils.checkpoint import Checkpoint, CheckpointFolders, latest_complete

schedule_free = pytest.mark.parametrize("name", ["AdamWScheduleFree", "AdanScheduleFree"])
BETAS = {"AdamWScheduleFree": [0.8, 0.99], "AdanScheduleFree": [0.8, 0.9, 0.99]}


def make_model(name: str, **more: Any) -> SRModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    betas = {"betas": BETAS[name]} if name in BETAS else {}
    optimizer = build_optimizer({"type": name, "lr": 1e-2, **betas, **more}, net)
    player = Player(net, optimizer, LearningRate(optimizer, build_schedule(None, 10)))
    return SRModel(generator=player, losses=build_losses([{"type": "l1loss"}]))


def train(model: SRModel, first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(iteration))
        batch: Any = {"lq": images, "gt": images.flip(1), "lq_path": [], "gt_path": [], "fault": []}
        model.feed_data([batch])
        model.optimize_parameters(iteration)


def weights(model: SRModel) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.net_g.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def average(model: SRModel) -> dict[str, Tensor]:
    """x = (y - (1 - b1) z) / b1, in float64."""
    optimizer = model.players["net_g"].optimizer
    beta1 = optimizer.param_groups[0]["betas"][0]
    return {
        key: (y.detach().double() - (1 - beta1) * optimizer.state[y]["z"].double()) / beta1
        for key, y in model.net_g.named_parameters()
    }


def folders_in(path: Path, *, one: bool = False) -> CheckpointFolders:
    names = ("models", "models" if one else "resume_models", "training_states")
    models, resume_models, states = (path / name for name in names)
    return CheckpointFolders(models=models, resume_models=resume_models, training_states=states)


def tracked(model: SRModel, folders: CheckpointFolders, weights_format: Any = "safetensors") -> Checkpoint:
    checkpoint = Checkpoint(folders, weights_format=weights_format)
    checkpoint.track_network("net_g", model.net_g, {}, averaged=model.evaluation_weights)
    checkpoint.track("optimizer/net_g", model.players["net_g"].optimizer, required=True)
    return checkpoint


@schedule_free
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_average_is_that_of_the_papers_algorithm(name: str, weight_decay: float) -> None:
    """z, x and y each written out, in float64, on a quadratic with a warm-up."""
    lr, warmup, target = 0.1, 4, torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    net = nn.Module()
    net.register_parameter("weight", weight)
    more = {"warmup_steps": warmup, "weight_decay": weight_decay, "r": 1.0}
    optimizer: Any = build_optimizer({"type": name, "lr": lr, "betas": BETAS[name], **more}, net)
    beta1, *_, beta_square = BETAS[name]
    beta_change = BETAS[name][1] if name == "AdanScheduleFree" else 0.0
    x, z, square, change = (torch.zeros_like(target) for _ in range(4))
    previous, total = None, 0.0
    for step in range(1, 31):
        y = (1 - beta1) * z + beta1 * x
        torch.testing.assert_close(weight.detach(), y, rtol=0, atol=1e-12)
        gradient = 2 * (y - target) + torch.sin(torch.tensor(float(step)))
        weight.grad = gradient.clone()
        optimizer.step()
        difference = gradient - (gradient if previous is None else previous)
        previous = gradient
        change = beta_change * change + (1 - beta_change) * difference
        ahead = gradient + beta_change * difference
        square = beta_square * square + (1 - beta_square) * ahead**2
        numerator = gradient + (beta_change * change / (1 - beta_change**step) if beta_change else 0)
        rate = lr * min(1.0, step / warmup)
        z = z - rate * (numerator / ((square / (1 - beta_square**step)).sqrt() + 1e-8) + weight_decay * y)
        counts = step * rate**2
        total += counts
        x = x + counts / total * (z - x)
    optimizer.eval()
    torch.testing.assert_close(weight.detach(), x, rtol=0, atol=1e-12)


@schedule_free
def test_within_the_context_is_the_average_and_after_it_the_same_bits(name: str) -> None:
    model = make_model(name)
    with model.evaluation_weights():  # before the first step x is y
        untrained = weights(model)
    assert same(untrained, weights(model))
    train(model, 1, 5)
    before, state = weights(model), model.players["net_g"].optimizer.state_dict()["param_groups"]
    expected = average(model)
    with model.evaluation_weights():
        for key, value in weights(model).items():
            torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, before[key])
    assert same(weights(model), before)
    assert model.players["net_g"].optimizer.state_dict()["param_groups"] == state
    assert state[0]["train_mode"] is True


@schedule_free
def test_an_exception_within_leaves_the_training_weights(name: str) -> None:
    model, undisturbed = make_model(name), make_model(name)
    train(model, 1, 5)
    train(undisturbed, 1, 8)
    with pytest.raises(KeyboardInterrupt), model.evaluation_weights():
        raise KeyboardInterrupt
    train(model, 6, 8)
    assert same(weights(model), weights(undisturbed))


def test_other_optimizers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("AdamW")
    train(model, 1, 2)
    monkeypatch.setattr(Tensor, "clone", lambda *_: pytest.fail("something is copied"))
    before = [parameter.data_ptr() for parameter in model.net_g.parameters()]
    with model.evaluation_weights():
        assert [parameter.data_ptr() for parameter in model.net_g.parameters()] == before


@schedule_free
@pytest.mark.parametrize("one_folder", [False, True])
@pytest.mark.parametrize("weights_format", ["safetensors", "pth"])
def test_files_hold_the_average_to_release_and_the_training_weights_to_resume(
    name: str, one_folder: bool, weights_format: str, tmp_path: Path
) -> None:
    folders = folders_in(tmp_path, one=one_folder)
    model, straight = make_model(name), make_model(name)
    train(model, 1, 7)
    train(straight, 1, 15)
    checkpoint = tracked(model, folders, weights_format)
    with model.evaluation_weights():
        x = weights(model)
    y = weights(model)
    checkpoint.save(7)
    best = checkpoint.save_best("psnr", 30.0, 7)
    latest = checkpoint.save_latest()
    assert same(weights(model), y)
    for path in (folders.models / f"net_g_7.{weights_format}", best, *latest):
        released = load_file(path) if weights_format == "safetensors" else torch.load(path)["params"]
        assert same(released, x), path
    point, passed_over = latest_complete(folders)
    assert point is not None
    assert passed_over == []
    assert same(load_file(point.weights["net_g"]), y)
    assert not same(x, y)
    (folders.models / f"net_g_7.{weights_format}").unlink()  # a release copy, which users may take away
    resumed = make_model(name)
    point, _ = latest_complete(folders)
    assert point is not None
    tracked(resumed, folders).load(point)
    train(resumed, 8, 15)
    assert same(weights(resumed), weights(straight))
    assert same(average(resumed), average(straight))


@schedule_free
def test_another_share_of_the_average_at_a_resume_keeps_the_average(name: str) -> None:
    model = make_model(name)
    train(model, 1, 7)
    state, x = model.players["net_g"].optimizer.state_dict(), average(model)
    edited = make_model(name, betas=[0.95, *BETAS[name][1:]])
    edited.net_g.load_state_dict(weights(model))
    optimizer = edited.players["net_g"].optimizer
    written = settings(optimizer)
    optimizer.load_state_dict(state)
    apply_settings(optimizer, written)
    assert optimizer.param_groups[0]["betas"][0] == 0.95
    for key, value in average(edited).items():
        torch.testing.assert_close(value, x[key], rtol=1e-5, atol=1e-6)
    assert not same(weights(edited), weights(model))
