"""The loss entries of the users' guides: each loads, and the three-phase strategy goes through its phases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from traiNNer.assembly import build_trainer
from traiNNer.cli import parse_train
from traiNNer.losses import build_losses
from traiNNer.losses.iterative_loss_wrapper import IterativeLossWrapper
from traiNNer.preparation import prepare

THREE_PHASES = """
losses:
  # Phase 1: Start with lower perceptual weight
  - type: convnextperceptualloss
    loss_weight: 0.12
    start_iter: 0
    target_iter: 20000
    target_weight: 0.26
    schedule_type: "linear"

  # Phase 2: Activate GAN after 20k iterations
  - type: ganloss
    gan_type: r3gan
    loss_weight: 0.00
    start_iter: 20000
    target_weight: 0.08
    schedule_type: "step"

  # Phase 3: Remove artifact suppression after 50k
  - type: ldlloss
    loss_weight: 0.5
    disable_after: 50000
"""

MIGRATION = """
losses:
- type: perceptual_loss
  loss_weight: 0.1

- type: perceptual_loss
  loss_weight: 0.1
  start_iter: 5000
  target_iter: 15000
  target_weight: 0.2
"""

AUTOMATIONS_GUIDE = """
losses:
  - type: L1Loss
    loss_weight: 1.0
  - type: PerceptualLoss
    loss_weight: 0.1
    layers: [relu1_2, relu2_2, relu3_4]
    perceptual_weight: 1.0
    style_weight: 0.0
    pretrained: true
"""

ULTRA_FIDELITY = """
losses:
  - {type: l1loss, loss_weight: 1.0}
  - {type: mssimloss, loss_weight: 0.05}
"""


def offline(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with random weights where published ones would be downloaded."""
    return [entry | ({"pretrained": False} if "perceptual" in entry["type"].lower() else {}) for entry in entries]


@pytest.mark.parametrize("text", [THREE_PHASES, MIGRATION, AUTOMATIONS_GUIDE, ULTRA_FIDELITY])
def test_every_entry_of_the_guides_loads(
    options: dict[str, Any], write_options: Callable[..., Path], text: str
) -> None:
    from traiNNer.config import load_options

    entries = yaml.safe_load(text)["losses"]
    options["train"]["total_iter"] = 100_000
    options["train"].pop("losses")
    options |= {"losses": entries, "network_d": {"type": "munet"}}
    options["train"]["optim_d"] = {"type": "AdamW", "lr": 1e-4}
    loaded = load_options(write_options(options)).train
    assert loaded is not None
    assert len(loaded.losses or ()) == len(entries)
    built = build_losses(offline(entries), total_iter=100_000)
    for entry, loss in zip(entries, built.values(), strict=True):
        scheduled = bool(entry.keys() & {"start_iter", "target_iter", "target_weight", "disable_after"})
        assert isinstance(loss, IterativeLossWrapper) is scheduled
        assert loss.loss_weight == entry["loss_weight"]


WEIGHTS: dict[int, dict[str, dict[int, float]]] = {
    0: {
        "convnextperceptualloss": {1: 0.12 + 0.14 / 20000, 3: 0.12 + 0.42 / 20000},
        "ganloss": {1: 0.0, 3: 0.0},
        "ldlloss": {1: 0.5, 3: 0.5},
    },
    19_998: {
        "convnextperceptualloss": {19_999: 0.12 + 0.14 * 19_999 / 20_000, 20_000: 0.26, 20_001: 0.26},
        "ganloss": {19_999: 0.0, 20_000: 0.08, 20_001: 0.08},
        "ldlloss": {19_999: 0.5, 20_001: 0.5},
    },
    49_999: {
        "convnextperceptualloss": {50_000: 0.26, 50_002: 0.26},
        "ganloss": {50_000: 0.08, 50_002: 0.08},
        "ldlloss": {50_000: 0.5, 50_001: 0.0, 50_002: 0.0},
    },
}
"""By the iteration a run goes on from: the logged weights of three iterations."""


@pytest.mark.parametrize("start", WEIGHTS)
def test_the_three_phase_strategy(
    options: dict[str, Any], write_options: Callable[..., Path], tmp_path: Path, start: int
) -> None:
    """The guide's entries as they stand, around each of its boundaries."""
    options["train"] |= {"total_iter": 60_000, "ema_decay": 0.999, "optim_d": {"type": "AdamW", "lr": 1e-4}}
    options["train"] |= {"losses": offline(copy.deepcopy(yaml.safe_load(THREE_PHASES)["losses"])), "scheduler": None}
    options |= {"network_d": {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}}
    options["val"]["val_enabled"] = False
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 100_000, "use_tb_logger": True}
    arguments = parse_train(["-opt", str(write_options(options))])
    run = prepare(arguments)
    for folder in (run.paths.models, run.paths.resume_models, run.paths.training_states):
        folder.mkdir(parents=True)
    trainer, _ = build_trainer(run, arguments, None)
    trainer.iteration = start
    trainer._settings = replace(trainer._settings, total_iter=start + 3)
    trainer.train()

    events = EventAccumulator(str(run.paths.tb_logger))
    events.Reload()
    for label, expected in WEIGHTS[start].items():
        points = {point.step: point.value for point in events.Scalars(f"loss_weight/{label}")}
        assert {at: points[at] for at in expected} == pytest.approx(expected, rel=1e-6), label
    judged = "loss/ganloss" in events.Tags()["scalars"]
    assert judged is (start > 0)
