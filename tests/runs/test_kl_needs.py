"""`klloss` in a run that has no encoder: one message, at the line that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GENERAL = {"type": "klloss", "loss_weight": 0.0, "target_weight": 1e-4, "target_iter": 6, "free_bits": 0.5}


@pytest.mark.parametrize("spelling", ["entry", "kl_beta in an entry", "train.kl_beta"])
def test_a_super_resolution_model_has_no_encoder(
    options: dict[str, Any],
    run_training: Callable[..., int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    spelling: str,
) -> None:
    if spelling == "train.kl_beta":
        options["train"]["kl_beta"] = 0.1
    else:
        options["train"]["losses"].append(GENERAL if spelling == "entry" else {"type": "klloss", "kl_beta": 0.1})
    assert run_training(options) == 2
    message = capfd.readouterr().err.strip()
    assert len(message.splitlines()) == 1, message
    assert "options.yml:" in message
    key = "train.kl_beta" if spelling == "train.kl_beta" else "train.losses[1]"
    assert (
        f": {key}: found klloss, which needs an encoder's latents, and a super-resolution model has no enc" in message
    )
    assert not (tmp_path / "experiments").exists()
