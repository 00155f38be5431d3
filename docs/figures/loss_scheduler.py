"""Train a small network with a loss scheduler and draw what it did: docs/figures/loss_scheduler.png.

    python scripts/prepare_sample.py               # the photographs
    python docs/figures/loss_scheduler.py          # some minutes on two CPU cores; needs matplotlib

The run is options/examples/loss_scheduler/l1_to_spectrum.yml, shorter and with a smaller network and less patience.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "options" / "examples" / "loss_scheduler" / "l1_to_spectrum.yml"
NETWORK = {"type": "ParagonSR2", "num_feat": 12, "num_groups": 1, "num_blocks": 2}
SCHEDULER = {
    "patience": 2,
    "min_delta": 0.03,
    "ema_beta": 0.5,
    "transition_step": 0.2,
    "adaptive_step": False,
}
TOTAL_ITER, VAL_FREQ = 3000, 50


def options(folder: Path) -> dict[str, Any]:
    """The options of the run, which writes into a folder."""
    values = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    values |= {"network_g": NETWORK, "path": {"experiments_root": str(folder)}, "name": "l1_to_spectrum"}
    values["train"]["total_iter"] = TOTAL_ITER
    values["train"]["loss_scheduler"] |= SCHEDULER
    values["val"]["val_freq"] = VAL_FREQ
    values["logger"] |= {"print_freq": VAL_FREQ, "save_checkpoint_freq": TOTAL_ITER}
    return values


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
    """Train, write the picture and say so."""
    plot = load_plot()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "options.yml"
        file.write_text(yaml.safe_dump(options(Path(folder)), sort_keys=False), encoding="utf-8")
        subprocess.run([sys.executable, str(ROOT / "train.py"), str(file)], cwd=ROOT, check=True)
        rows = plot.read_run(Path(folder) / "l1_to_spectrum")
    path = Path(__file__).with_suffix(".png")
    plot.draw(rows).savefig(path, dpi=80)
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size // 1000} kB")  # noqa: T201 - a program's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
