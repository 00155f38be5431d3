"""`val.samples_per_checkpoint`: pictures of the validation images at every so many scheduled checkpoints."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from traiNNer.archs import build_network
from traiNNer.inference import upscale
from traiNNer.trainer import Trainer
from traiNNer.utils.images import read_image, to_float

Run = Callable[..., int]


@pytest.fixture
def sampled(options: dict[str, Any]) -> dict[str, Any]:
    """A run with 4 scheduled checkpoints, at 2, 4, 6 and 8, and pictures at every second one."""
    options["logger"]["save_checkpoint_freq"] = 2
    options["val"]["samples_per_checkpoint"] = 2
    return options


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


def pictures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "samples").as_posix() for path in (folder / "samples").rglob("*.*"))


def log_of(folder: Path) -> str:
    return (folder / "train.log").read_text(encoding="utf-8")


def contents(folder: Path) -> dict[str, Any]:
    """Weights and states of a run's checkpoints."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*models/net_*_[0-9]*.safetensors")):
        found |= {f"{path.parent.name}/{path.name}/{key}": value for key, value in load_file(path).items()}
    for path in sorted(folder.glob("training_states/*.state")):
        objects = torch.load(path, weights_only=True)["objects"]
        objects.pop("run")  # the options, which differ
        found[path.name] = objects
    return found


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_every_second_checkpoint_has_the_results_of_its_averaged_weights(
    sampled: dict[str, Any], run_training: Run, experiment: Path, photos: Path
) -> None:
    assert run_training(sampled) == 0
    assert pictures(experiment) == [
        "08_000004.webp",
        "08_000008.webp",
        "09_000004.webp",
        "09_000008.webp",
    ]
    net = build_network(sampled["network_g"] | {"scale": 2})
    net.load_state_dict(load_file(experiment / "models" / "net_g_ema_4.safetensors"))
    lq = to_float(read_image(photos / "val" / "lq" / "08.png"))[None]
    expected = upscale(net.eval(), lq)[0].clamp(0, 1)
    shown = to_float(read_image(experiment / "samples" / "08_000004.webp"))
    assert (shown - expected).abs().max() <= 0.5 / 255 + 1e-4  # lossless, rounded
    assert not np.array_equal(*(read_image(experiment / "samples" / f"08_{at:06}.webp") for at in (4, 8)))
    text = log_of(experiment)
    assert text.index("[iter 4] saved") < text.index("[iter 4] samples written: 2") < text.index("[iter 6] saved")


def test_off_is_the_default(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    assert run_training(options) == 0
    assert not (experiment / "samples").exists()


def test_only_scheduled_checkpoints_count(sampled: dict[str, Any], run_training: Run, experiment: Path) -> None:
    sampled["logger"]["save_checkpoint_freq"] = 3  # saved at 3, 6 and, because the run ends, at 8
    sampled["val"]["samples_per_checkpoint"] = 1
    assert run_training(sampled) == 0
    assert {name[-11:-5] for name in pictures(experiment)} == {"000003", "000006"}


def test_a_resume_keeps_the_cadence_and_the_pictures(
    sampled: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    assert run_training(sampled, "--name", "straight") == 0
    one, two = tmp_path / "experiments" / "straight", tmp_path / "experiments" / "resumed"
    shutil.copytree(one, two)
    shutil.rmtree(two / "samples")
    assert run_training(sampled, "--name", "resumed", "--resume", "2") == 0
    assert pictures(two) == pictures(one)
    shutil.rmtree(two / "samples")
    assert run_training(sampled, "--name", "resumed", "--resume", "6") == 0
    assert pictures(two) == ["08_000008.webp", "09_000008.webp"]
    for name in pictures(two):
        assert (two / "samples" / name).read_bytes() == (one / "samples" / name).read_bytes()


@pytest.mark.parametrize(("validates", "ema_decay"), [(True, 0.9), (False, 0.0)])
def test_nothing_else_changes(
    sampled: dict[str, Any],
    run_training: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validates: bool,
    ema_decay: float,
) -> None:
    """Weights, optimizer, loader and random state of every checkpoint, and the modes of the modules."""
    sampled["val"] |= {"val_enabled": validates, "samples_per_checkpoint": 1}
    sampled["train"]["ema_decay"] = ema_decay  # without, it is the trained network that makes the pictures
    modes: list[list[bool]] = []
    sample = Trainer.sample

    def watched(trainer: Trainer) -> None:
        sample(trainer)
        nets = [trainer._model.players["net_g"].net, trainer._model.net_val]
        modes.append([module.training for net in nets for module in net.modules()])

    before = copy.deepcopy(sampled)
    before["val"]["samples_per_checkpoint"] = 0
    assert run_training(before, "--name", "without") == 0
    monkeypatch.setattr(Trainer, "sample", watched)
    assert run_training(sampled, "--name", "with") == 0
    without, with_ = (contents(tmp_path / "experiments" / name) for name in ("without", "with"))
    assert {"2.state", "4.state", "6.state", "8.state"} < with_.keys()
    assert same(without, with_)
    assert len(modes) == 4
    assert all(mode == modes[0] for mode in modes)
    assert any(modes[0])
    assert len(pictures(tmp_path / "experiments" / "with")) == 8


def test_they_are_made_in_tiles(
    sampled: dict[str, Any], run_training: Run, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    from traiNNer import samples

    class Watched(samples.Upscaler):
        def __init__(self, net: Any, *, tile_size: int, tile_overlap: int) -> None:
            seen.append((tile_size, tile_overlap))
            super().__init__(net, tile_size=tile_size, tile_overlap=tile_overlap)

    monkeypatch.setattr(samples, "Upscaler", Watched)
    sampled["val"] |= {"tile_size": 16, "tile_overlap": 4, "val_enabled": False}
    assert run_training(sampled) == 0
    assert seen == [(16, 4), (16, 4)]
    assert len(pictures(experiment)) == 4


def test_images_of_one_name_in_folders_and_sets_get_pictures_of_their_own(
    sampled: dict[str, Any], run_training: Run, experiment: Path, photos: Path, tmp_path: Path
) -> None:
    for root, place, number in (("one", "a/x", "08"), ("one", "b/x", "09"), ("two", "a/x", "09")):
        path = tmp_path / root / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / "val" / "lq" / f"{number}.png", path)
    single = {"type": "SingleImageDataset", "num_worker_per_gpu": 0}
    sampled["datasets"]["val"] = single | {"dataroot_lq": str(tmp_path / "one")}
    sampled["datasets"]["val_2"] = single | {"dataroot_lq": str(tmp_path / "two")}
    sampled["val"] |= {"val_enabled": False, "metrics_enabled": False}
    assert run_training(sampled) == 0
    assert [name for name in pictures(experiment) if "000004" in name] == [
        "a/x_000004.webp",
        "a/x_2_000004.webp",
        "b/x_000004.webp",
    ]
    first, second, third = (
        read_image(experiment / "samples" / f"{name}_000004.webp") for name in ("a/x", "b/x", "a/x_2")
    )
    assert np.array_equal(second, third)
    assert not np.array_equal(first, second)


def test_without_validation_sets_it_is_a_mistake(
    sampled: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str], experiment: Path
) -> None:
    del sampled["datasets"]["val"]
    sampled["val"]["val_enabled"] = False
    assert run_training(sampled) == 2
    message = capfd.readouterr().err.strip()
    assert len(message.splitlines()) == 1, message
    assert "options.yml:" in message
    assert (
        "val.samples_per_checkpoint: found 2, but there is no data set val; accepted: a data set val, or 0" in message
    )
    assert not experiment.exists()


def test_a_picture_that_cannot_be_written_is_reported_and_the_run_goes_on(
    sampled: dict[str, Any], run_training: Run, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Trainer.sample

    def obstructed(trainer: Trainer) -> None:
        (experiment / "samples").mkdir(exist_ok=True)
        (experiment / "samples" / "08_000004.webp").mkdir(exist_ok=True)  # in the way of the file
        sample(trainer)

    monkeypatch.setattr(Trainer, "sample", obstructed)
    assert run_training(sampled) == 0
    text = log_of(experiment)
    assert text.count("SAMPLES FAILED (1 of 2): ") == 1
    assert f"{experiment / 'samples' / '08_000004.webp'}: " in text
    assert "[iter 4] samples written: 1" in text
    assert "[iter 8] samples written: 2" in text
    assert (experiment / "models" / "net_g_8.safetensors").is_file()
    assert not list((experiment / "samples").glob("*.tmp"))
