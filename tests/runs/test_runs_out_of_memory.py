"""A run whose device has too little memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from traiNNer.models.player import Player


def test_a_run_out_of_memory_ends_with_one_message(
    options: dict[str, Any],
    run_training: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    passes: list[int] = []

    def backward(self: Player, loss: torch.Tensor) -> None:
        passes.append(1)
        if len(passes) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        loss.backward()

    monkeypatch.setattr(Player, "backward", backward)
    assert run_training(options) == 1
    message = capfd.readouterr().err
    assert "out of memory at iteration 6: the passes of net_g do not fit with 3 images of 16x16 px" in message
    assert "Tried to allocate 2.00 GiB" in message
    assert "lower batch_size_per_gpu or lq_size" in message
    assert "Traceback" not in message
    assert not list((tmp_path / "experiments" / "tiny").rglob("*crash*"))
