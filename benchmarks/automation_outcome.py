"""Do the automations help, or at least not hurt? Short runs with them off, on, and with one alone, in six situations.

Every run trains the same small network on the sample photographs for the same number of iterations. PSNR-Y is that of
parts of the two validation photographs, which are never trained on; the final figure is the mean of the last three
validations (of a run that was stopped, of its best weights). A run is one line of automation_outcome.jsonl beside this
file; those that are there are not run again.

    python benchmarks/automation_outcome.py --seeds 5 --processes 2      an hour or two on two CPU cores
    python benchmarks/automation_outcome.py --table                      the table of docs/training-automations.md
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

ROWS = Path(__file__).with_suffix(".jsonl")
ITERATIONS, VAL_FREQ = 5000, 100
POISON_EVERY, POISON = 200, 1e4
"""A batch of images that someone forgot to scale: every so many iterations, by this factor."""

AUTOMATIONS: dict[str, Any] = {
    "intelligent_learning_rate_scheduler": {"plateau_patience": 400, "improvement_threshold": 0.01},
    "adaptive_gradient_clipping": {"initial_threshold": 1.0, "min_threshold": 0.01, "max_threshold": 100.0},
    "early_stopping": {"patience": 1500, "min_improvement": 0.01, "warmup_iterations": 500, "min_iterations": 1000},
    "dynamic_loss_scheduling": {"auto_calibrate": False, "max_factor": 2000.0},
}
"""One and the same section for all situations. The batch size stays: a network this small never fills the memory."""


@dataclass(frozen=True)
class Case:
    """A situation: what differs from the sound configuration, and the automation that it is made for."""

    title: str
    alone: str
    changes: dict[str, Any] = field(default_factory=dict)
    poisoned: bool = False


RATE = 1.4e-3
STRAY = {"type": "spectrumerrorloss", "loss_weight": 10.0, "share": 0.1}
"""Weighted a thousand times what it should be; its share of the gradient is what was meant."""

CASES = {
    "a": Case("a sound configuration", "intelligent_learning_rate_scheduler"),
    "b": Case("learning rate 5 times too high", "intelligent_learning_rate_scheduler", {"lr": 5 * RATE}),
    "c": Case("learning rate 5 times too low", "intelligent_learning_rate_scheduler", {"lr": RATE / 5}),
    "d": Case("a poisoned batch every 200 iterations", "adaptive_gradient_clipping", poisoned=True),
    "e": Case("a loss weighted 1000 times too high", "dynamic_loss_scheduling", {"losses": [STRAY]}),
    "f": Case("nothing to gain after the first half", "early_stopping", {"decay_at": ITERATIONS // 2}),
}
SETTINGS = ("off", "on", "alone")


def prepare_data(folder: Path) -> Path:
    """The sample tiles in nine parts each, which are read faster, and 96 px parts of the validation photographs."""
    from PIL import Image

    from scripts.prepare_sample import prepare

    sample = folder / "sample"
    prepare(sample)
    for kind, side in (("gt", 42), ("lq", 21)):
        (folder / "train" / kind).mkdir(parents=True)
        for path in sorted((sample / "train" / kind).glob("*.png")):
            with Image.open(path) as tile:
                for number in range(9):
                    left, top = side * (number % 3), side * (number // 3)
                    part = tile.crop((left, top, left + side, top + side))
                    part.save(folder / "train" / kind / f"{path.stem}_{number}.png")
    for kind, side in (("gt", 96), ("lq", 48)):
        (folder / "val" / kind).mkdir(parents=True, exist_ok=True)
        for path in sorted((sample / "val" / kind).glob("*.png")):
            factor = side // 48
            with Image.open(path) as photo:
                for number, (x, y) in enumerate(((0.3, 0.3), (0.6, 0.4), (0.4, 0.7))):
                    left, top = int(x * (photo.width // factor)) * factor, int(y * (photo.height // factor)) * factor
                    part = photo.crop((left, top, left + side, top + side))
                    part.save(folder / "val" / kind / f"{path.stem}_{number}.png")
    return folder


def options(case: Case, setting: str, seed: int, data: Path, folder: Path) -> dict[str, Any]:
    """The options of a run."""
    losses = [{"type": "l1loss", "loss_weight": 1.0}, *case.changes.get("losses", [])]
    train: dict[str, Any] = {
        "total_iter": ITERATIONS,
        "warmup_iter": 200,
        "grad_clip": setting == "on" or (setting == "alone" and case.alone == "adaptive_gradient_clipping"),
        "optim_g": {"type": "AdamW", "lr": case.changes.get("lr", RATE), "weight_decay": 0.0},
        "losses": losses,
    }
    if "decay_at" in case.changes:
        train["scheduler"] = {"type": "MultiStepLR", "milestones": [case.changes["decay_at"]], "gamma": 1e-6}
    chosen = {"off": (), "on": tuple(AUTOMATIONS), "alone": (case.alone,)}[setting]
    if chosen:
        train["training_automations"] = {name: copy.deepcopy(AUTOMATIONS[name]) for name in chosen}
    images = {"type": "PairedImageDataset", "num_worker_per_gpu": 0}
    return {
        "name": "run",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": seed,
        "use_channels_last": False,
        "datasets": {
            "train": {
                **images,
                "name": "tiles",
                "dataroot_gt": str(data / "train" / "gt"),
                "dataroot_lq": str(data / "train" / "lq"),
                "gt_size": 32,
                "batch_size_per_gpu": 4,
            },
            "val": {
                **images,
                "name": "parts",
                "dataroot_gt": str(data / "val" / "gt"),
                "dataroot_lq": str(data / "val" / "lq"),
            },
        },
        "network_g": {"type": "compact", "num_feat": 12, "num_conv": 3},
        "path": {"experiments_root": str(folder)},
        "train": train,
        "val": {
            "val_enabled": True,
            "val_freq": VAL_FREQ,
            "save_img": False,
            "metrics_enabled": True,
            "metrics": {"psnr": {"type": "psnr", "crop_border": 2, "test_y_channel": True}},
        },
        "logger": {"print_freq": 500, "save_checkpoint_freq": ITERATIONS, "use_tb_logger": False},
    }


def train(file: Path, poisoned: bool) -> None:
    """Run an option file in this process, on one thread."""
    import torch

    from traiNNer.cli import parse_train
    from traiNNer.models.sr_model import SRModel
    from traiNNer.run import train as run

    torch.set_num_threads(1)
    feed, fed = SRModel.feed_data, iter(range(1, ITERATIONS + 1))

    def feed_poison(model: SRModel, batches: Any) -> None:
        if next(fed) % POISON_EVERY == 0:
            batches = [{**batch, "lq": batch["lq"] * POISON, "gt": batch["gt"] * POISON} for batch in batches]
        feed(model, batches)

    if poisoned:
        SRModel.feed_data = feed_poison  # type: ignore[method-assign]
    run(parse_train(["-opt", str(file)]))


def measure(name: str, setting: str, seed: int, data: Path) -> dict[str, Any]:
    """Make a run in a process of its own, and read what it was from what it wrote."""
    case, began = CASES[name], time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = folder / "options.yml"
        file.write_text(yaml.safe_dump(options(case, setting, seed, data, folder)), encoding="utf-8")
        command = [sys.executable, __file__, "--run", str(file), *(["--poisoned"] if case.poisoned else [])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} {setting} {seed}: {done.stderr[-2000:]}")
        log = (folder / "run" / "train.log").read_text(encoding="utf-8")
        journal = folder / "run" / "automations.jsonl"
        lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    curve = [(int(at.replace(",", "")), float(value)) for at, value in VALIDATION.findall(log)]
    stopped = curve[-1][0] < ITERATIONS
    best_at, best = max(curve, key=lambda point: point[1])
    decisions: dict[str, int] = {}
    for line in map(json.loads, lines):
        if line["what"] != "note":
            decisions[line["automation"]] = decisions.get(line["automation"], 0) + 1
    return {
        "case": name,
        "setting": setting,
        "seed": seed,
        "final": best if stopped else round(statistics.fmean(value for _, value in curve[-3:]), 4),
        "best": best,
        "best_at": best_at,
        "ended_at": curve[-1][0],
        "decisions": decisions,
        "curve": [value for _, value in curve],
        "seconds": round(time.perf_counter() - began, 1),
    }


VALIDATION = re.compile(r"\[iter ([\d,]+)\] val parts: psnr (-?[\d.]+|nan)")


def rows() -> list[dict[str, Any]]:
    """The runs that have been made."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def missing(seeds: int, cases: str) -> Iterator[tuple[str, str, int]]:
    """Runs still to be made, seed by seed."""
    done = {(row["case"], row["setting"], row["seed"]) for row in rows()}
    for seed in range(1, seeds + 1):
        for name in cases:
            yield from ((name, setting, seed) for setting in SETTINGS if (name, setting, seed) not in done)


def table() -> str:
    """Markdown: for each case and setting, means over seeds and what the requirements ask for."""
    lines = [
        "| case | setting | final PSNR-Y, dB (each seed) | mean difference to off, dB | smallest | "
        "iterations to off's final PSNR-Y | decisions per run | ended at |",
        "|---|---|---|---|---|---|---|---|",
    ]
    runs = {(row["case"], row["setting"], row["seed"]): row for row in rows()}
    for name, case in CASES.items():
        for setting in SETTINGS:
            seeds = [seed for (one, two, seed) in sorted(runs) if (one, two) == (name, setting)]
            pairs = [
                (runs[name, setting, seed], runs[name, "off", seed]) for seed in seeds if (name, "off", seed) in runs
            ]
            if not pairs:
                continue
            finals = ", ".join(f"{row['final']:.2f}" for row, _ in pairs)
            differences = [row["final"] - off["final"] for row, off in pairs]
            reached = [_reached(row, off["final"]) for row, off in pairs]
            counts = statistics.fmean(sum(row["decisions"].values()) for row, _ in pairs)
            ended = statistics.fmean(row["ended_at"] for row, _ in pairs)
            title = f"({name}) {case.title}" if setting == "off" else ""
            shown = setting if setting != "alone" else f"{case.alone} alone"
            difference = "" if setting == "off" else f"{statistics.fmean(differences):+.2f}"
            smallest = "" if setting == "off" else f"{min(differences):+.2f}"
            until = ", ".join("never" if each is None else f"{each:,}" for each in reached)
            lines.append(
                f"| {title} | {shown} | {finals} | {difference} | {smallest} | {until} | {counts:.1f} | {ended:,.0f} |"
            )
    return "\n".join(lines)


def _reached(row: dict[str, Any], level: float) -> int | None:
    """The iteration of the first validation that is as good."""
    return next((VAL_FREQ * number for number, value in enumerate(row["curve"], 1) if value >= level), None)


def main() -> int:
    """Make the runs that are missing, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", default="".join(CASES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--poisoned", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return 0
    if arguments.run:
        train(arguments.run, arguments.poisoned)
        return 0
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(arguments.processes) as pool:
        data = prepare_data(Path(temporary))
        work = list(missing(arguments.seeds, arguments.cases))
        for row in pool.map(lambda job: measure(job[0], job[1], job[2], data), work):
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(
                row["case"],
                row["setting"],
                row["seed"],
                row["final"],
                row["decisions"],
                f"{row['seconds']} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
