"""scripts/plot_loss_scheduler.py on real runs: what it reads from the logs, resumed runs, and what it cannot draw."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from traiNNer.cli import ending_with_message

Run = Callable[..., int]

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "plot_loss_scheduler.py"
_spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
assert _spec
assert _spec.loader
plot = sys.modules[SCRIPT.stem] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plot)

FIRST = {
    "source_loss": "l1loss",
    "target_loss": "mseloss",
    "monitor_metric": "val/psnr",
    "patience": 1,
    "min_delta": 100.0,  # dB: nothing is an improvement
    "threshold_mode": "abs",
    "min_observations_before_adapt": 0,
    "warmup_observations": 0,
    "transition_step": 0.25,
    "adaptive_step": False,
    "max_consecutive_adaptations": 2,
}
"""Moves at observations 2 and 3, and starts a pause of one observation at 4."""

SECOND = {
    "source_loss": "charbonnierloss",
    "target_loss": ["huberloss", "tvloss"],
    "adaptation_trigger": "iteration",
    "schedule": [[2, 0.0], [6, 1.0]],
}


@pytest.fixture
def moving(options: dict[str, Any]) -> dict[str, Any]:
    """Eight iterations with a validation and a log line in each."""
    names = ("l1loss", "mseloss", "charbonnierloss", "huberloss", "tvloss")
    options["train"] |= {
        "losses": [{"type": name, "loss_weight": 1.0} for name in names],
        "loss_scheduler": [dict(FIRST), dict(SECOND)],
    }
    options["val"] |= {"val_freq": 1, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": True}
    return options


def draw(*arguments: object) -> int:
    return ending_with_message(lambda: plot.main([str(each) for each in arguments]))


def marks(row: Any) -> dict[int, str]:
    return {mark.iteration: mark.kind for mark in row.marks}


def test_rows_say_what_the_schedulers_did(
    moving: dict[str, Any], run_training: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_training(moving) == 0
    folder = tmp_path / "experiments" / "tiny"
    first, second = plot.read_run(folder)
    assert (first.told.names, first.told.watched) == ("l1loss to mseloss", "val/psnr")
    assert second.told.names == "charbonnierloss to huberloss, tvloss"
    assert marks(first) == {2: "plateau", 3: "plateau", 4: "pause", 6: "plateau", 7: "plateau"}
    assert marks(second) == {2: "point", 6: "point"}
    assert sorted(first.weights) == ["l1loss", "mseloss"]
    assert sorted(second.weights) == ["charbonnierloss", "huberloss", "tvloss"]

    events = EventAccumulator(str(folder / "tb_logger"))
    events.Reload()
    curves = {tag: {point.step: point.value for point in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    assert plot.read_scalars(folder / "tb_logger") == curves
    assert first.curves["progress"] == curves["loss_scheduler/progress"]
    assert first.measured == curves["val/psnr"]

    capsys.readouterr()
    assert draw(folder) == 0
    told = capsys.readouterr().out
    assert "        2  plateau in val/psnr (" in told
    assert "        4  2 adaptations without improvement; paused for 1 observations" in told
    with Image.open(folder / "loss_scheduler.png") as picture:
        assert picture.height > 0.5 * picture.width  # a row for each


def test_a_resumed_run_is_one_run(moving: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    assert run_training(moving) == 0
    moving["train"]["loss_scheduler"][0] |= {"max_consecutive_adaptations": 99, "patience": 2}
    moving["train"]["total_iter"] = 7
    assert run_training(moving, "--resume", "4") == 0
    first, second = plot.read_run(tmp_path / "experiments" / "tiny")
    assert len(list((tmp_path / "experiments" / "tiny" / "tb_logger").iterdir())) == 2
    assert list(first.curves["progress"]) == list(range(1, 8))  # 8 was taken back
    expected = {2: "plateau", 3: "plateau", 4: "pause", 6: "plateau"}  # 7 was taken back
    assert marks(first) == expected
    assert [at for at in range(2, 8) if first.curves["progress"][at] > first.curves["progress"][at - 1]] == [
        at for at, kind in expected.items() if kind != "pause"
    ]
    assert marks(second) == {2: "point", 6: "point"}


def test_it_draws_without_a_log_and_what_a_run_has_not_finished_writing(
    moving: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    moving["train"]["loss_scheduler"] = FIRST
    assert run_training(moving) == 0
    folder = tmp_path / "experiments" / "tiny"
    [events] = (folder / "tb_logger").iterdir()
    events.write_bytes(events.read_bytes()[:-7])
    (folder / "train.log").unlink()
    [row] = plot.read_run(folder / "tb_logger")
    assert [mark.iteration for mark in row.marks] == [2, 3, 6, 7]
    assert draw(folder / "tb_logger", "--save", tmp_path / "picture.svg") == 0
    assert (tmp_path / "picture.svg").exists()


def test_what_it_cannot_draw_it_says(
    moving: dict[str, Any], run_training: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "experiments" / "tiny"
    assert draw(folder) == 2
    assert "found no folder" in capsys.readouterr().err
    del moving["train"]["loss_scheduler"]
    assert run_training(moving | {"train": moving["train"] | {"total_iter": 1}}) == 0
    assert draw(folder) == 2
    assert "has logged no loss scheduler; accepted: one with train.loss_scheduler" in capsys.readouterr().err
    for file in (folder / "tb_logger").iterdir():
        file.unlink()
    assert draw(folder) == 2
    assert "found no TensorBoard files" in capsys.readouterr().err
