"""What the tests of automations in real runs share: option files, and what runs leave behind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

MODULES = "traiNNer.training_automations"
CLASSES = {
    "AdaptiveGradientClipping": f"{MODULES}.adaptivegradientclipping_automation.AdaptiveGradientClipping",
    "IntelligentLearningRateScheduler": (
        f"{MODULES}.intelligentlearningratescheduler_automation.IntelligentLearningRateScheduler"
    ),
    "IntelligentEarlyStopping": f"{MODULES}.intelligentearlystopping_automation.IntelligentEarlyStopping",
    "DynamicLossScheduling": f"{MODULES}.dynamiclossscheduling_automation.DynamicLossScheduling",
}
"""Automations, and where they are."""

CLIPPING = {"initial_threshold": 0.05, "min_threshold": 0.001, "max_threshold": 100.0}
"""All norms are above the threshold, which jumps to their level at 20 iterations."""
FALLING = {"initial_threshold": 1000.0, "max_threshold": 1000.0}
"""The threshold falls at every occasion, first at 20 iterations."""
RATE = {"plateau_patience": 10, "improvement_threshold": 0.9, "adaptation_threshold": 0.95, "strategy": "plateau"}
"""Nearly everything is a plateau: the rate is cut at 40 iterations, and again after."""
LOSSES = {"adjustment_frequency": 10, "auto_calibrate": False, "max_factor": 100.0}
PATIENT = {"patience": 100_000, "warmup_iterations": 0}
"""Watches, and never stops."""

TWO_LOSSES = [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mseloss", "loss_weight": 1.0, "share": 0.5}]

GAN = {
    "type": "ganloss",
    "gan_type": "r3gan",
    "loss_weight": 0.05,
    "discriminator_start_iter": 20,
    "start_iter": 35,
    "penalty_interval": 2,
}
NET_D = {"type": "munet", "num_feat": 4, "ch_mult": [1, 2]}


def everything() -> dict[str, Any]:
    """All automations, so that all of them have something to do within 60 iterations."""
    return {
        "AdaptiveGradientClipping": dict(CLIPPING),
        "IntelligentLearningRateScheduler": dict(RATE),
        "early_stopping": dict(PATIENT),
        "dynamic_loss_scheduling": dict(LOSSES),
    }


def three_phases(options: dict[str, Any]) -> None:
    """L1 and MSE alone; net_d learns from 20; net_g feels it from 35. Everything that has a state is on."""
    options["datasets"]["train"] |= {"batch_size_per_gpu": 1, "accum_iter": 2}
    options["network_g"] = {"type": "realplksr", "dim": 4, "n_blocks": 1, "kernel_size": 3, "dropout": 0.2}
    options["network_d"] = NET_D
    options["train"] |= {
        "total_iter": 60,
        "grad_clip": True,
        "scheduler": None,
        "optim_g": {"type": "AdamWScheduleFree", "lr": 4e-3},
        "optim_d": {"type": "AdamW", "lr": 1e-3},
        "losses": [*TWO_LOSSES, {**GAN, "r1_weight": 0.5, "r2_weight": 0.5}],
        "training_automations": everything(),
    }
    options["val"] |= {"val_freq": 12, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"print_freq": 7, "save_checkpoint_freq": 30}


def decisions(folder: Path) -> list[dict[str, Any]]:
    """The lines of `automations.jsonl`."""
    file = folder / "automations.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def log_of(folder: Path) -> str:
    """The text of `train.log`."""
    return (folder / "train.log").read_text(encoding="utf-8")


def told(folder: Path) -> list[str]:
    """Log lines of automations, without time and level."""
    return re.findall(r"\[INFO\] (Automation .*)", log_of(folder))


def weights(folder: Path, iteration: int) -> dict[str, torch.Tensor]:
    """All that was saved at an iteration, network by network."""
    files = sorted(folder.glob(f"*models/net_*_{iteration}.safetensors"))
    assert files
    return {f"{file.parent.name}/{file.stem}/{key}": value for file in files for key, value in load_file(file).items()}


def same(first: Any, second: Any) -> bool:
    """Equal to the bit, whatever it is."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def state_of(folder: Path, iteration: int) -> dict[str, Any]:
    """The objects of a checkpoint, without what depends on the clock or the run's name."""
    state = torch.load(folder / "training_states" / f"{iteration}.state", weights_only=True)["objects"]
    for each in state.get("observations", {}).get("state", {}).get("ranks", []):
        del each["clock"]
    return {name: each["state"] for name, each in state.items() if name != "run"}
