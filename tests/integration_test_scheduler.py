"""A whole run with a loss scheduler, from photographs to TensorBoard's files: L1 gives way to the spectrum error.

pytest tests/integration_test_scheduler.py
python tests/integration_test_scheduler.py       also leaves integration_test_scheduler.png in the current folder
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the call as a script

TOTAL_ITER, VAL_FREQ = 56, 2
WARMUP, FIRST = 3, 7  # without FIRST the first move would be at the sixth validation
L1, SPECTRUM = 2.0, 0.5
"""Weights of the losses in the option file."""


def script(name: str) -> ModuleType:
    """A program of the folder scripts."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def photographs(folder: Path) -> None:
    """Tiles of a photograph of the sample set to train on, and one of each that is held out."""
    sample = script("prepare_sample")
    for phase, names, count in (("train", sample.TRAINING[:1], 16), ("val", sample.VALIDATION, 1)):
        for name in names:
            for number, (_, _, tile) in enumerate(list(sample.tiles(sample.photograph(name)))[-count:]):
                sample.write_pair(folder / phase, f"{Path(name).stem}_{number}", tile)


def options(folder: Path) -> dict[str, Any]:
    """A short run with a validation at every second iteration, and a scheduler that needs little to move."""
    data = {
        phase: {
            "name": phase,
            "type": "PairedImageDataset",
            "dataroot_gt": str(folder / phase / "gt"),
            "dataroot_lq": str(folder / phase / "lq"),
            "num_worker_per_gpu": 0,
        }
        for phase in ("train", "val")
    }
    data["train"] |= {"lq_size": 16, "batch_size_per_gpu": 4}
    spectrum = {"type": "spectrumerrorloss", "floor": 0.0, "quantization": 0.0}  # as the metric is defined
    return {
        "name": "move",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 1,
        "datasets": data,
        "network_g": {"type": "ParagonSR2", "num_feat": 8, "num_groups": 1, "num_blocks": 1},
        "path": {"experiments_root": str(folder)},
        "train": {
            "total_iter": TOTAL_ITER,
            "ema_decay": 0.5,
            "optim_g": {"type": "AdamW", "lr": 4e-3},
            "losses": [{"type": "l1loss", "loss_weight": L1}, spectrum | {"loss_weight": SPECTRUM}],
            "loss_scheduler": {
                "source_loss": "l1loss",
                "target_loss": "spectrumerrorloss",
                "patience": 2,
                "min_delta": 0.02,
                "use_ema": False,
                "warmup_observations": WARMUP,
                "min_observations_before_adapt": FIRST,
                "transition_step": 0.2,
                "adaptive_step": False,
            },
        },
        "val": {
            "val_enabled": True,
            "val_freq": VAL_FREQ,
            "save_img": False,
            "metrics_enabled": True,
            "metrics": {"psnr": {"type": "psnr"}, "spectrum_error": {"type": "spectrum_error"}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1000, "use_tb_logger": True},
    }


def train(folder: Path) -> Path:
    """Run train.py's program on photographs; the run's folder."""
    from traiNNer.cli import ending_with_message, parse_train
    from traiNNer.run import train as program

    photographs(folder)
    file = folder / "options.yml"
    file.write_text(yaml.safe_dump(options(folder), sort_keys=False), encoding="utf-8")
    assert ending_with_message(lambda: program(parse_train([str(file)]))) == 0
    return folder / "move"


def check(run: Path, picture: Path) -> str:
    """Everything that the files of the run must say; returns what happened, and draws it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tb_logger"))
    events.Reload()
    seen = {tag: {point.step: point.value for point in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    source, target, progress, monitored = (
        seen[f"loss_scheduler/{name}"] for name in ("weight_source", "weight_target", "progress", "monitored")
    )
    validations = list(range(VAL_FREQ, TOTAL_ITER + 1, VAL_FREQ))
    assert list(progress) == list(source) == list(target) == validations

    # weights move, only forward, not before they may, and their sum stays
    moves = [now for before, now in pairwise(validations) if progress[now] > progress[before]]
    assert progress[VAL_FREQ] == 0
    assert len(moves) >= 3
    assert moves[0] > FIRST * VAL_FREQ
    assert all(progress[before] <= progress[now] <= 1 for before, now in pairwise(validations))
    for at in validations:
        assert source[at] == pytest.approx(1 - 0.7 * progress[at], abs=1e-6)
        assert target[at] == pytest.approx(0.7 * progress[at], abs=1e-6)
        assert source[at] + target[at] == pytest.approx(1.0, abs=1e-6)

    # what is watched is the validation's spectrum error, from the end of the warm-up on
    assert list(monitored) == validations[WARMUP:]
    assert monitored == pytest.approx({at: seen["val/spectrum_error"][at] for at in monitored}, rel=1e-3)

    # a weight in the total is the entry's own times the multiplier that the last validation left
    for label, own, multiplier, first in (("l1loss", L1, source, 1.0), ("spectrumerrorloss", SPECTRUM, target, 0.0)):
        expected = {at: own * multiplier.get((at - 1) // VAL_FREQ * VAL_FREQ, first) for at in range(1, TOTAL_ITER + 1)}
        assert seen[f"loss_weight/{label}"] == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert min(seen["loss/spectrumerrorloss"]) == moves[0] + 1  # it is not computed before it counts

    log = (run / "train.log").read_text(encoding="utf-8")
    assert "loss scheduler: from l1loss to spectrumerrorloss, multipliers 1 and 0 become 0.3 and 0.7 on plateau" in log
    told = re.findall(r"\[iter (\d+)\] loss scheduler: (plateau in target_loss \(\S+ for 2 observations\)): pro", log)
    assert [int(at) for at, _ in told] == moves

    plot = script("plot_loss_scheduler")
    [row] = plot.read_run(run)
    assert [(mark.iteration, mark.text) for mark in row.marks if mark.kind != "pause"] == [(int(a), b) for a, b in told]
    plot.draw([row]).savefig(picture, dpi=90)
    assert picture.stat().st_size > 10_000
    end = validations[-1]
    return f"{len(moves)} adaptations, the first at iteration {moves[0]}; progress {progress[end]:.2f} at {end}"


def test_weight_moves_from_l1_to_the_spectrum_error(tmp_path: Path) -> None:
    check(train(tmp_path), tmp_path / "integration_test_scheduler.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        path = Path("integration_test_scheduler.png")
        sys.stdout.write(f"{check(train(Path(temporary)), path)}\nwrote {path}\n")
