"""Every option makes a difference: away from its default it changes weights, files, log or figures."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from traiNNer.config.options import Options
from traiNNer.config.sections import (
    AutomationsOptions,
    DatasetOptions,
    LogOptions,
    PathOptions,
    TrainOptions,
    ValOptions,
)
from traiNNer.losses.l1_loss import L1Loss

Run = Callable[..., int]

CASES: dict[str, Any] = {
    "name": "other",
    "num_gpu": "auto",
    "manual_seed": 2,
    "deterministic": True,
    "use_amp": True,
    "use_channels_last": True,
    "fast_matmul": True,
    "detect_anomaly": True,
    "auto_resume": True,
    "datasets.train.name": "others",
    "datasets.train.batch_size_per_gpu": 2,
    "datasets.train.accum_iter": 2,
    "datasets.train.num_worker_per_gpu": 1,
    "datasets.train.dataset_enlarge_ratio": 1,
    "datasets.train.use_hflip": False,
    "datasets.train.use_rot": False,
    "datasets.train.gt_size": 48,
    "train.total_iter": 4,
    "train.ema_decay": 0.5,
    "train.warmup_iter": 3,
    "train.optim_g": {"type": "SGD", "lr": 1e-3},
    "train.scheduler": {"type": "MultiStepLR", "milestones": [1]},
    "train.scheduler_g": {"type": "MultiStepLR", "milestones": [1]},
    "train.losses": [{"type": "mseloss", "loss_weight": 2.0}],
    "val.val_enabled": False,
    "val.save_img": True,
    "val.val_freq": 1,
    "val.metrics_enabled": False,
    "val.metrics": {"psnr": {"type": "psnr", "crop_border": 4}},
    "val.samples_per_checkpoint": 1,
    "logger.print_freq": 1,
    "logger.save_checkpoint_freq": 1,
    "logger.use_tb_logger": True,
    "logger.save_checkpoint_format": "pth",
    "path.experiments_root": "elsewhere",
    "path.models": "elsewhere/m",
    "path.resume_models": "elsewhere/r",
    "path.training_states": "elsewhere/s",
    "path.log": "elsewhere/l",
}
"""Option to a value that must show in a run of three iterations."""

GAN: dict[str, Any] = {
    "network_d": {"type": "unetdiscriminatorsn", "num_feat": 8},
    "train.optim_d": {"type": "AdamW", "lr": 1e-3},
    "train.losses": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "ganloss", "loss_weight": 0.1}],
}
"""What makes a run adversarial."""

WITH: dict[str, tuple[Any, dict[str, Any]]] = {
    "amp_bf16": (True, {"use_amp": True}),
    "compile_mode": ("reduce-overhead", {"use_compile": True}),
    "use_compile": (True, {"compile_mode": "default"}),
    "datasets.train.prefetch_factor": (3, {"datasets.train.num_worker_per_gpu": 1}),
    "datasets.train.pin_memory": (False, {"datasets.train.num_worker_per_gpu": 1}),
    "datasets.train.persistent_workers": (False, {"datasets.train.num_worker_per_gpu": 1}),
    "train.ema_power": (0.5, {"train.ema_decay": 0.9}),
    "train.ema_update_after_step": (1, {"train.ema_decay": 0.9}),
    "train.adaptive_d": (True, GAN),
    "train.adaptive_d_ema_decay": (0.1, GAN | {"train.adaptive_d": True, "train.adaptive_d_threshold": 0.9999}),
    "train.adaptive_d_threshold": (0.01, GAN | {"train.adaptive_d": True}),
    "train.scheduler_d": ({"type": "MultiStepLR", "milestones": [1]}, GAN),
    "train.optim_d": ({"type": "SGD", "lr": 1e-3}, GAN),
    "network_d": ({"type": "unetdiscriminatorsn", "num_feat": 4}, GAN),
    "train.grad_clip": (True, {"train.grad_clip_max_norm": 1e-3}),
    "train.grad_clip_max_norm": (1e-3, {"train.grad_clip": True}),
    "train.loss_scheduler": (
        {
            "source_loss": "l1loss",
            "target_loss": "mseloss",
            "adaptation_trigger": "iteration",
            "schedule": [[1, 0.0], [2, 1.0]],
        },
        {"train.losses": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mseloss", "loss_weight": 1.0}]},
    ),
    "train.training_automations.enabled": (False, {"train.training_automations.early_stopping": {}}),
    "train.training_automations.adaptive_gradient_clipping": (
        {"initial_threshold": 1e-3, "min_threshold": 1e-3},
        {"train.grad_clip": True},
    ),
    "train.training_automations.dynamic_loss_scheduling": (
        {},
        {"train.losses": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mssimloss", "loss_weight": 1.0}]},
    ),
    "train.training_automations.intelligent_learning_rate_scheduler": ({"plateau_patience": 50}, {}),
    "train.training_automations.intelligent_early_stopping": ({"patience": 100}, {}),
    "train.training_automations.dynamic_batch_size_optimizer": ({"min_batch_size": 5}, {}),
    "val.tile_size": (16, {"val.tile_overlap": 2}),
    "val.tile_overlap": (2, {"val.tile_size": 16}),
    "val.suffix": ("x", {"val.save_img": True}),
    "logger.save_last_n": (1, {"logger.save_checkpoint_freq": 1}),
    "path.visualization": ("elsewhere/v", {"val.save_img": True}),
}
"""Option to a value, and the options without which it has no meaning."""

ELSEWHERE = {
    "scale": "tests/runs: an option file of another scale needs other data; refused or another network",
    "dist": "tests/runs/test_processes.py",
    "network_g": "tests/archs",
    "datasets": "its fields",
    "path": "its fields",
    "train": "its fields",
    "train.training_automations": "its fields",
    "val": "its fields",
    "logger": "its fields",
    "datasets.train.component": "tests/data",
    "path.pretrain_network_g": "tests/runs/test_faults.py",
    "path.param_key_g": "tests/utils/test_weights.py",
    "path.strict_load_g": "tests/runs/test_faults.py",
    "path.pretrain_network_d": "tests/runs/test_gan.py",
    "path.param_key_d": "tests/runs/test_gan.py",
    "path.strict_load_d": "tests/runs/test_gan.py",
    "path.resume_state": "tests/runs/test_faults.py",
    "path.ignore_resume_networks": "tests/runs/test_resume.py",
    "path.results_root": "tests/test_evaluation.py: option files of test.py",
    "val.pbar": "tests/test_evaluation.py: a bar is drawn on a terminal only",
}
"""Options that are shown to matter by other tests, or that only group others."""


IN_THE_TABLE = (
    "compile_mode",
    "datasets.train.name",
    "datasets.train.num_worker_per_gpu",
    "datasets.train.persistent_workers",
    "datasets.train.pin_memory",
    "datasets.train.prefetch_factor",
)
"""A label, and what changes speed alone: the start-up table is where they show (also tests/data, and below)."""


def every_option() -> set[str]:
    sections = {
        "": Options,
        "datasets.train.": DatasetOptions,
        "path.": PathOptions,
        "train.": TrainOptions,
        "train.training_automations.": AutomationsOptions,
        "val.": ValOptions,
        "logger.": LogOptions,
    }
    return {f"{prefix}{name}" for prefix, section in sections.items() for name in section.model_fields}


def test_no_option_is_forgotten() -> None:
    known = CASES.keys() | WITH.keys() | ELSEWHERE.keys()
    own = {"datasets.train.use_hflip", "datasets.train.use_rot", "datasets.train.gt_size"}  # the data set's
    assert every_option() == known - own


def put(options: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        options = options.setdefault(section, {})
    options[name] = value


def fingerprint(folder: Path, *, table: bool) -> dict[str, Any]:
    """What a run did: weights, file names, torch's switches, and the log without times and folders.

    The start-up table repeats what the file says, effect or none; it counts only if it is asked for.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    weights = hashlib.sha256()
    for path in files:
        if path.suffix == ".safetensors":
            for value in load_file(path).values():
                weights.update(value.numpy().tobytes())
    names = sorted(re.sub(r"events\.out.*", "events", str(path.relative_to(folder))) for path in files)
    log = "\n".join(path.read_text(encoding="utf-8") for path in files if path.suffix == ".log")
    log = re.sub(
        r"\d\d:\d\d:\d\d,\d+|[\d.]+ (it|img)/s|data \d+%|left \S+|[\d.]+ s\)|\d:\d\d:\d\d|options\.yml", "", log
    )
    if not table:
        lines = log.splitlines()
        log = "\n".join(line for line in lines if not line.startswith("  ") and "has no effect" not in line)
    switches = (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_anomaly_enabled(),
    )
    log = log.replace(str(folder), "")
    return {"weights": weights.hexdigest(), "files": names, "log": log, "switches": switches}


@pytest.fixture
def short(options: dict[str, Any]) -> dict[str, Any]:
    options["compile_mode"] = "default"
    options["train"] |= {"total_iter": 3, "ema_decay": 0.0, "warmup_iter": -1}
    options["val"]["val_freq"] = 2
    options["logger"] |= {"print_freq": 3, "save_checkpoint_freq": 3}
    return options


@pytest.fixture
def run_in(run_training: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def run(values: dict[str, Any], where: str, *, table: bool) -> dict[str, Any]:
        folder = tmp_path / where
        folder.mkdir()
        monkeypatch.chdir(folder)
        values = copy.deepcopy(values)
        if values["path"]["experiments_root"] != "elsewhere":
            values["path"]["experiments_root"] = "experiments"
        assert run_training(values) == 0
        return fingerprint(folder, table=table)

    return run


@pytest.mark.parametrize(("fast", "precision"), [(True, "high"), (False, "highest")])
def test_fast_matmul_allows_tf32(options: dict[str, Any], run_training: Run, fast: bool, precision: str) -> None:
    options["fast_matmul"] = fast
    assert run_training(options, "--check") == 0
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cudnn.allow_tf32 is fast
    options["fast_matmul"] = False
    assert run_training(options, "--check") == 0  # leaves the process as other tests want it


@pytest.mark.filterwarnings("ignore:Error detected in")  # torch's trace of the forward pass
@pytest.mark.parametrize("detect", [True, False])
def test_detect_anomaly_names_the_operation(
    short: dict[str, Any],
    run_training: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    detect: bool,
) -> None:
    monkeypatch.setattr(L1Loss, "forward", lambda _, output, target: (output * 0).sqrt().mean() + target.mean() * 0)
    short["detect_anomaly"] = detect
    try:
        assert run_training(short) == int(detect)
    finally:
        torch.autograd.set_detect_anomaly(False)
    shown = capfd.readouterr().err
    assert (
        "detect_anomaly found NaN in the backward pass at this operation: Function 'MulBackward0'" in shown
    ) is detect
    assert "Traceback (most recent call last)" not in shown


SLOW = ("compile_mode", "use_compile")
EVERY = [pytest.param(key, marks=[pytest.mark.slow] * (key in SLOW)) for key in sorted(CASES.keys() | WITH.keys())]


@pytest.mark.parametrize("key", EVERY)
def test_the_option_makes_a_difference(short: dict[str, Any], run_in: Callable[..., dict[str, Any]], key: str) -> None:
    value, others = WITH.get(key) or (CASES[key], {})
    for other, setting in others.items():
        put(short, other, setting)
    changed = copy.deepcopy(short)
    put(changed, key, value)
    table = key in IN_THE_TABLE
    assert run_in(changed, "changed", table=table) != run_in(short, "base", table=table)


def test_the_mode_of_compilation_is_what_torch_gets(
    short: dict[str, Any], run_training: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU the modes compute the same; here the network is left as it is, so that nothing has to be compiled."""
    seen: list[Any] = []

    def compile_nothing(net: Any, **options: Any) -> Any:
        seen.append(options)
        return net

    monkeypatch.setattr("torch.compile", compile_nothing)
    short |= {"use_compile": True, "compile_mode": "reduce-overhead"}
    assert run_training(short) == 0
    assert seen == [{"mode": "reduce-overhead"}]
