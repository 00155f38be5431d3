"""Train small networks with an automation each and draw what it did: docs/figures/automation_*.png.

    python docs/figures/automations.py                     # ten minutes on two CPU cores; needs matplotlib
    python docs/figures/automations.py learning_rate       # one of them, some minutes at most
    python docs/figures/automations.py --keep runs         # keep what they write; a run that is there is not made again

Every run trains on the sample photographs, and everything that is drawn is read from what the run wrote: TensorBoard's
files and automations.jsonl. Only the readings of memory are noted by this script, as the automation gets them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(FOLDER)]

from automation_drawings import DRAWINGS, GIB, Written  # noqa: E402


@dataclass(frozen=True)
class Run:
    """What differs from the common options."""

    iterations: int
    automation: dict[str, Any]
    """Section of `train.training_automations`."""
    rate: float = 2e-3
    losses: list[dict[str, Any]] = field(default_factory=lambda: [{"type": "l1loss", "loss_weight": 1.0}])
    train: dict[str, Any] = field(default_factory=dict)
    num_conv: int = 3
    gt_size: int = 32
    batch: int = 4
    val_freq: int = 0
    damaged: bool = False
    """Whether one of the training pairs is not a pair: white for a black LQ image."""
    recorded: bool = False
    """Whether readings of memory are noted, and another process takes memory for a while."""
    print_freq: int = 10


RUNS = {
    "learning_rate": Run(
        iterations=6000,
        rate=1e-2,
        batch=8,
        automation={"intelligent_learning_rate_scheduler": {"plateau_patience": 300, "improvement_threshold": 0.03}},
    ),
    "batch_size": Run(
        iterations=500,
        num_conv=16,
        gt_size=128,
        batch=2,
        recorded=True,
        automation={
            "dynamic_batch_size_optimizer": {
                "adjustment_frequency": 20,
                "safety_margin": 0.01,
                "min_batch_size": 2,
                "max_batch_size": 16,
            }
        },
    ),
    "gradient_clipping": Run(
        iterations=1500,
        losses=[
            {"type": "mseloss", "loss_weight": 1.0},
            {"type": "l1loss", "loss_weight": 1.0, "start_iter": 1000},
        ],
        train={"grad_clip": True},
        damaged=True,
        print_freq=1,
        automation={"adaptive_gradient_clipping": {"min_threshold": 0.001}},
    ),
    "early_stopping": Run(
        iterations=6000,
        val_freq=50,
        automation={
            "early_stopping": {"patience": 600, "min_improvement": 0.02, "warmup_iterations": 200},
        },
    ),
    "dynamic_loss": Run(
        iterations=2000,
        losses=[
            {"type": "l1loss", "loss_weight": 1.0},
            {"type": "spectrumerrorloss", "loss_weight": 10.0, "share": 0.1},
            {"type": "mssimloss", "loss_weight": 0.05},
        ],
        automation={"dynamic_loss_scheduling": {"auto_calibrate": False, "max_factor": 2000.0}},
    ),
}


def options(run: Run, data: Path, folder: Path) -> dict[str, Any]:
    """The options of a run, which writes into a folder."""
    train = {
        "total_iter": run.iterations,
        "optim_g": {"type": "AdamW", "lr": run.rate, "weight_decay": 0.0},
        "losses": run.losses,
        "training_automations": run.automation,
        **run.train,
    }
    sets = {
        "train": {"gt_size": run.gt_size, "batch_size_per_gpu": run.batch},
        **({"val": {}} if run.val_freq else {}),
    }
    metric = {"type": "psnr", "crop_border": 2, "test_y_channel": True}
    return {
        "name": "run",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 1,
        "use_channels_last": False,
        "datasets": {
            phase: {
                "name": phase,
                "type": "PairedImageDataset",
                "dataroot_gt": str(data / phase / "gt"),
                "dataroot_lq": str(data / phase / "lq"),
                "num_worker_per_gpu": 0,
                **more,
            }
            for phase, more in sets.items()
        },
        "network_g": {"type": "compact", "num_feat": 12, "num_conv": run.num_conv},
        "path": {"experiments_root": str(folder)},
        "train": train,
        "val": {
            "val_enabled": True,
            "metrics_enabled": True,
            "val_freq": run.val_freq,
            "save_img": False,
            "metrics": {"psnr": metric},
        }
        if run.val_freq
        else {"val_enabled": False, "val_freq": run.iterations, "save_img": False},
        "logger": {
            "print_freq": run.print_freq,
            "save_checkpoint_freq": run.iterations,
            "use_tb_logger": True,
        },
    }


def prepare_data(folder: Path, run: Run) -> Path:
    """Parts of the sample tiles, which are read faster, and of the validation photographs."""
    from PIL import Image

    from scripts.prepare_sample import prepare

    prepare(folder / "sample")
    side = min(run.gt_size + 10, 128)
    for phase, sides in (("train", {"gt": side, "lq": side // 2}), ("val", {"gt": 96, "lq": 48})):
        for kind, edge in sides.items():
            target = folder / phase / kind
            target.mkdir(parents=True)
            for path in sorted((folder / "sample" / phase / kind).glob("*.png")):
                with Image.open(path) as image:
                    across, down = min(image.width // edge, 3), min(image.height // edge, 3)
                    for number in range(across * down):
                        left, top = edge * (number % across), edge * (number // across)
                        image.crop((left, top, left + edge, top + edge)).save(target / f"{path.stem}_{number}.png")
    if run.damaged:
        first = min(path.name for path in (folder / "train" / "gt").iterdir())
        for kind, color in (("gt", "white"), ("lq", "black")):
            with Image.open(folder / "train" / kind / first) as image:
                size = image.size
            Image.new("RGB", size, color).save(folder / "train" / kind / first)
    return folder


class Recorder:
    """Reads memory as the run would, notes it, and lets another process take memory between two readings."""

    TAKEN, FIRST, LAST = 2.5, 22, 28
    """GiB, and the numbers of the readings between which they are taken; there is one every 10 iterations."""

    def __init__(self, reader: Any, file: Path) -> None:
        self._reader, self._file, self._count = reader, file, 0
        self._other: subprocess.Popen[str] | None = None

    def read(self) -> Any:
        """The memory now."""
        self._count += 1
        if self._count == self.FIRST:
            text = f"held = bytearray(b'x') * {int(self.TAKEN * GIB)}; print('taken', flush=True); input()"
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._other = subprocess.Popen([sys.executable, "-c", text], **pipes)
            if self._other.stdout is not None:
                self._other.stdout.readline()
        if self._count == self.LAST and self._other is not None:
            self._other.kill()
            self._other.wait()
        reading = self._reader.read()
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"used": reading.used, "reserved": reading.reserved, "total": reading.total}) + "\n")
        return reading

    def restart(self) -> None:
        """Begin another peak."""
        self._reader.restart()

    def describe(self) -> str:
        """The device."""
        return self._reader.describe()


def train_recorded(file: Path) -> None:
    """Train in this process, and note what the run reads of memory beside the option file."""
    from traiNNer import automation_setup
    from traiNNer.cli import parse_train
    from traiNNer.run import train
    from traiNNer.utils.memory import memory_reader

    automation_setup.memory_reader = lambda device: Recorder(memory_reader(device), file.with_name("readings.jsonl"))
    train(parse_train(["-opt", str(file)]))


def limit_memory(values: dict[str, Any]) -> None:
    """A target somewhat above what is in use now: on a CPU the memory is the system's, far too much to be filled."""
    import torch

    from traiNNer.utils.memory import memory_reader

    now = memory_reader(torch.device("cpu")).read()
    section = values["train"]["training_automations"]["dynamic_batch_size_optimizer"]
    section["target_vram_usage"] = round((now.used + 2.2 * GIB) / now.total, 3)


def perform(name: str, keep: Path | None = None) -> Written:
    """Train, and read what the run wrote."""
    run = RUNS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        file = folder / "options.yml"
        if not (folder / "run").exists():
            values = options(run, prepare_data(folder, run), folder)
            if run.recorded:
                limit_memory(values)
            file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
            program = [__file__, "--run", str(file)] if run.recorded else [str(ROOT / "train.py"), str(file)]
            subprocess.run([sys.executable, *program], cwd=ROOT, check=True)
        return Written(
            options=yaml.safe_load(file.read_text(encoding="utf-8")),
            decisions=lines_of(folder / "run" / "automations.jsonl"),
            curves=load_plot().read_scalars(folder / "run" / "tb_logger"),
            readings=lines_of(folder / "readings.jsonl"),
        )


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON; none without a file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def load_plot() -> Any:
    """scripts/plot_loss_scheduler.py as a module."""
    path = ROOT / "scripts" / "plot_loss_scheduler.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main() -> int:
    """Train, draw and say so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(RUNS)}; all by default")
    parser.add_argument("--keep", type=Path, help="folder for the runs; what is there is drawn again without training")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.run:
        train_recorded(found.run)
        return 0
    for name in found.names or RUNS:
        keep = found.keep / name if found.keep else None
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
        written = perform(name, keep)
        path = FOLDER / f"automation_{name}.png"
        DRAWINGS[name](written).savefig(path, dpi=80)
        print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size // 1000} kB")  # noqa: T201 - a program's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
