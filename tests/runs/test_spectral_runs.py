"""Spectral losses and metrics in runs: by their names in an option file, in the log, in best weights, in messages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from traiNNer import trainer

Run = Callable[..., int]

METRICS = ("field_error", "spectrum_error", "raps_distance", "hf_share", "grid_energy")
LOSSES = ("fielderrorloss", "spectrumerrorloss", "waveletloss")


def test_a_run_trains_and_validates_with_them(
    options: dict[str, Any], run_training: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options["train"]["losses"] += [{"type": name, "loss_weight": 0.1} for name in LOSSES]
    options["val"]["metrics"] = {name: {} for name in METRICS}
    monkeypatch.setattr(trainer, "figure", lambda value: f"{value:.6e}")  # to see where it is used
    assert run_training(options) == 0
    folder = tmp_path / "experiments" / "tiny"
    log = (folder / "train.log").read_text(encoding="utf-8")
    number = r"(\d\.\d{6}e[+\-]\d+)"
    for name in METRICS:
        found = re.findall(rf"{name} {number} \(best {number} at .*?bicubic {number}", log)
        assert len(re.findall(rf"best val/{name}: {number} at", log)) == 1
        assert re.search(rf"  \S+: .*{name} {number} \(bicubic {number}\)", log)
        values = [float(value) for each in found for value in each]
        assert values
        assert all(math.isfinite(value) for value in values)
        assert list((folder / "models").glob(f"*{name}*"))
    assert all(re.search(rf"{name} [0-9.e\-]+", log) for name in LOSSES)


def test_crops_that_are_too_small_are_found_before_the_run(
    options: dict[str, Any], run_training: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    options["datasets"]["train"]["gt_size"] = 2
    options["train"]["losses"] += [{"type": "spectrumerrorloss", "loss_weight": 0.1}]
    options["val"]["metrics"] = {"field_error": {"crop_border": 40}, "spectrum_error": {"volume": True}}
    assert run_training(options) == 2
    message = capsys.readouterr().err
    assert "spectrumerrorloss: found 2x2 px" in message
    assert "val.metrics.field_error" in message
    crops, volume = (line for line in message.splitlines() if "spectrum" in line and "found" in line)
    assert crops.count("accepted") == 1
    assert "val.metrics.spectrum_error.volume" in volume
