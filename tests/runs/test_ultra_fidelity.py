"""The ULTRA_FIDELITY option files: the values that they promise, and that they train with other folders alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from scripts.data_preparation import extract_subimages, score_complexity
from scripts.prepare_sample import prepare
from traiNNer.cli import ending_with_message, parse_train
from traiNNer.config import load_options
from traiNNer.run import train

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "options" / "train" / "ParagonSR2" / "dataset"
NANO, S = (f"2xParagonSR2_{size}_CC0_complexity05_ULTRA_FIDELITY" for size in ("Nano", "S"))
SAMPLE = "2xParagonSR2_Nano_sample_ULTRA_FIDELITY"

VALUES: dict[str, dict[str, Any]] = {
    NANO: {
        "network": "paragonsr2_nano",
        "iterations": 60_000,
        "rate": 0.0002,
        "batch": 32,
        "losses": {"l1loss": 1.0, "mssimloss": 0.05},
        "milestones": [40_000, 50_000, 55_000],
        "memory": (0.85, 0.05),
        "stopping": (3000, 0.0005),
    },
    S: {
        "network": "paragonsr2_s",
        "iterations": 100_000,
        "rate": 0.0001,
        "batch": 12,
        "losses": {"l1loss": 1.0, "mssimloss": 0.08},
        "milestones": [60_000, 80_000, 95_000],
        "memory": (0.80, 0.08),
        "stopping": (5000, 0.0003),
    },
}

AUTOMATIONS = (
    "DynamicLossScheduling",
    "IntelligentLearningRateScheduler",
    "DynamicBatchSizeOptimizer",
    "IntelligentEarlyStopping",
)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gt` and `lq`: two pairs that are as large as the files' crops, no larger."""
    folder = tmp_path_factory.mktemp("complexity05")
    rng = np.random.default_rng(0)
    for kind, side in (("gt", 128), ("lq", 64)):
        (folder / kind).mkdir()
        for number in range(2):
            cv2.imwrite(str(folder / kind / f"{number}.png"), rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return folder


def with_folders(name: str, tiles: Path, target: Path) -> dict[str, Any]:
    """The file's options with other folders, and its results elsewhere."""
    values = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    for data in values["datasets"].values():
        data |= {f"dataroot_{kind}": str(tiles / kind) for kind in ("gt", "lq")}
    return values | {"path": {"experiments_root": str(target / "experiments")}}


def run(values: dict[str, Any], target: Path, *arguments: str) -> int:
    file = target / "options.yml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return ending_with_message(lambda: train(parse_train([str(file), *arguments])))


@pytest.mark.parametrize("name", VALUES)
def test_the_values_are_those_of_the_recipe(name: str) -> None:
    options, wanted = load_options(FOLDER / f"{name}.yml"), VALUES[name]
    training = options.train
    assert training is not None
    assert training.optim_g is not None
    assert training.scheduler is not None
    assert options.notices == []
    assert (options.name, options.scale, options.network_g.type) == (name, 2, wanted["network"])
    data = options.datasets["train"]
    assert (data.batch_size_per_gpu, data.accum_iter, data.component["lq_size"]) == (wanted["batch"], 1, 64)
    assert (training.total_iter, training.ema_decay, training.warmup_iter) == (wanted["iterations"], 0.999, -1)
    assert {entry["name"]: entry["loss_weight"] for entry in training.losses or ()} == wanted["losses"]
    assert (training.grad_clip, training.loss_scheduler) == (False, None)

    optimizer, schedule = training.optim_g, training.scheduler
    assert (optimizer.type, optimizer["lr"], list(optimizer["betas"])) == ("AdamW", wanted["rate"], [0.9, 0.99])
    assert optimizer["weight_decay"] == 0
    assert (schedule.type, list(schedule["milestones"])) == ("MultiStepLR", wanted["milestones"])
    assert schedule["gamma"] == 0.5

    assert options.val is not None
    assert (options.val.val_enabled, options.val.metrics_enabled, options.val.val_freq) == (True, True, 1000)
    assert list(options.val.metrics or ()) == ["psnr", "ssim"]
    assert options.logger is not None
    assert options.logger.use_tb_logger


@pytest.mark.parametrize("name", VALUES)
def test_four_automations_are_on_with_the_recipe_s_values(name: str) -> None:
    options, wanted = load_options(FOLDER / f"{name}.yml"), VALUES[name]
    assert options.train is not None
    automations = options.train.training_automations
    loss, rate, batch, stopping = (
        "dynamic_loss_scheduling",
        "intelligent_learning_rate_scheduler",
        "dynamic_batch_size_optimizer",
        "intelligent_early_stopping",
    )
    assert list(automations.active) == [loss, rate, batch, stopping]
    assert automations.active[loss]["auto_calibrate"] is True
    assert automations.active[rate]["strategy"] == "adaptive"
    memory = automations.active[batch]
    assert (memory["target_vram_usage"], memory["safety_margin"]) == wanted["memory"]
    stop = automations.active[stopping]
    assert (stop["monitor_metric"], stop["patience"], stop["min_improvement"]) == ("val/psnr", *wanted["stopping"])


@pytest.mark.parametrize("name", VALUES)
def test_the_file_passes_the_check_with_other_folders(
    name: str, tiles: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(with_folders(name, tiles, tmp_path), tmp_path, "--check") == 0

    told = capfd.readouterr().err
    assert "no mistakes found" in told
    for automation in AUTOMATIONS:
        assert f"Automation {automation}: " in told
    patience = VALUES[name]["stopping"][0]
    assert f"stops after {patience} iterations ({patience // 1000} validations)" in told
    assert not (tmp_path / "experiments").exists()


def test_nothing_but_folders_is_a_placeholder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load((FOLDER / f"{NANO}.yml").read_text(encoding="utf-8"))
    assert run(values, tmp_path, "--check") == 2
    mistakes = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(mistakes) == 4
    assert all("dataroot_" in line and "does not exist" in line for line in mistakes)


@pytest.mark.parametrize("name", VALUES)
def test_the_file_trains(name: str, tiles: Path, tmp_path: Path) -> None:
    """The recipe's networks, losses and automations on two small crops a step, for twelve iterations."""
    values: dict[str, Any] = with_folders(name, tiles, tmp_path) | {"num_gpu": 0}
    values["datasets"]["train"] |= {"lq_size": 8, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0}
    values["datasets"]["val"]["num_worker_per_gpu"] = 0
    values["train"]["total_iter"] = values["val"]["val_freq"] = 12
    values["logger"] |= {"print_freq": 6, "save_checkpoint_freq": 12}
    assert run(values, tmp_path) == 0
    written = tmp_path / "experiments" / name
    assert (written / "models" / "net_g_ema_12.safetensors").exists()
    assert (written / "models" / "net_g_best_psnr.safetensors").exists()
    log = (written / "train.log").read_text(encoding="utf-8")
    assert "ERROR" not in log
    assert "due to calibration (structure)" in log  # edges of noise are no usual ones


@pytest.mark.slow
def test_the_recipe_in_small_does_what_its_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, but 150 iterations: after 100 the batch grows by half, or shrinks where the memory is full."""
    prepare(tmp_path / "datasets" / "sample")
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((FOLDER / f"{SAMPLE}.yml").read_text(encoding="utf-8"))
    values["train"]["total_iter"] = 150
    values["num_gpu"] = 0
    assert run(values, tmp_path) == 0
    folder = tmp_path / "experiments" / SAMPLE
    log = (folder / "train.log").read_text(encoding="utf-8")
    lines = (folder / "automations.jsonl").read_text(encoding="utf-8").splitlines()
    decisions = [json.loads(line) for line in lines]
    assert {each["what"] for each in decisions} >= {"loss_factor/l1loss", "loss_factor/mssimloss", "batch_size"}
    assert "Automation DynamicBatchSizeOptimizer: Batch size adjusted from 4 to " in log
    assert "ERROR" not in log
    assert all(each["text"] in log for each in decisions)


def test_the_recipe_in_small_is_the_recipe() -> None:
    """What differs from the file for nano is what the comment at its head says."""
    small, whole = (load_options(FOLDER / f"{name}.yml") for name in (SAMPLE, NANO))
    assert small.train is not None
    assert whole.train is not None
    assert small.notices == []
    assert small.network_g == whole.network_g
    assert small.train.losses == whole.train.losses
    assert small.train.total_iter * 100 == whole.train.total_iter
    one, other = small.train.scheduler, whole.train.scheduler
    assert one is not None
    assert other is not None
    assert [100 * each for each in one["milestones"]] == list(other["milestones"])
    assert (one.type, one["gamma"]) == (other.type, other["gamma"])
    assert list(small.train.training_automations.active) == list(whole.train.training_automations.active)


def test_the_page_s_commands_and_links_lead_somewhere() -> None:
    page = ROOT / "docs" / "ultra-fidelity.md"
    text = page.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    programs = {
        "train.py": parse_train,
        "scripts/prepare_sample.py": lambda words: words,
        "scripts/data_preparation/extract_subimages.py": extract_subimages.parse,
        "scripts/data_preparation/score_complexity.py": score_complexity.parse,
    }
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("python ")]
    assert {program for program, *_ in commands} == set(programs)
    for program, *words in commands:
        programs[program](words)
        assert [word for word in words if word.endswith(".yml") and not (ROOT / word).is_file()] == []
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []
