"""Train the turbulence example with and without its loss scheduler, and draw the spectra of what they give.

    python docs/figures/turbulence_spectra.py              # needs matplotlib; six runs, about 5 minutes on two cores

The data has other random numbers than the example's. The runs go to experiments/turbulence_spectra; one that is done
there already is not repeated. Writes
docs/figures/turbulence_spectra.png, and the numbers that docs/fields.md states to docs/figures/turbulence_spectra.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from scripts.generate_turbulence import energy_spectrum, interpolated  # noqa: E402
from scripts.generate_turbulence import main as generate  # noqa: E402
from traiNNer.utils.registry import METRICS  # noqa: E402
from traiNNer.validation import bicubic  # noqa: E402

EXAMPLE = ROOT / "options" / "train" / "fields" / "2x_turbulence_field_to_spectrum.yml"
PICTURE = ROOT / "docs" / "figures" / "turbulence_spectra.png"
DATA_SEED = 1
"""The example was tuned on the fields of seed 0."""

SEEDS = (1, 2, 3)
VARIANTS = ("field error alone", "field error to spectrum error")
METRICS_SHOWN = ("field_error", "raps_distance", "spectrum_error")


def options(folder: Path, variant: str, seed: int) -> dict[str, Any]:
    """The example with a seed, and without the second loss if that is the variant."""
    values = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    values |= {"name": f"{variant.replace(' ', '_')}_{seed}", "manual_seed": seed, "num_gpu": 0}
    values["path"] = {"experiments_root": str(folder)}
    for phase in ("train", "val"):
        section = values["datasets"][phase]
        section |= {f"dataroot_{kind}": str(folder / "data" / phase / kind) for kind in ("gt", "lq")}
    if variant == VARIANTS[0]:
        del values["train"]["loss_scheduler"]
        values["train"]["losses"] = values["train"]["losses"][:1]
    return values


def run(folder: Path, variant: str, seed: int) -> dict[str, Any]:
    """Train, unless that is done; figures of the log's last validation, spectrum of the results that it wrote."""
    values = options(folder, variant, seed)
    file = folder / f"{values['name']}.yml"
    experiment, last = folder / values["name"], values["train"]["total_iter"]
    text, log = yaml.safe_dump(values, sort_keys=False), experiment / "train.log"
    same = log.exists() and file.read_text(encoding="utf-8") == text
    if not (same and f"done: {last:,} iterations" in log.read_text(encoding="utf-8")):
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, str(ROOT / "train.py"), str(file)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    lines = log.read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if f"[iter {last:,}] val " in line]
    found = {name: re.search(rf"{name} ([0-9.]+) \(best .*?bicubic ([0-9.]+)\)", line) for name in METRICS_SHOWN}
    results = [np.load(path) for path in sorted((experiment / "visualization" / "val").glob(f"*/*_{last}.npy"))]
    print(f"{values['name']}: {line}")  # noqa: T201 - a program's output
    return {
        "variant": variant,
        "seed": seed,
        "metrics": {name: float(match[1]) for name, match in found.items() if match},
        "bicubic": {name: float(match[2]) for name, match in found.items() if match},
        "spectrum": spectrum(results).tolist(),
    }


def spectrum(fields: list[np.ndarray]) -> np.ndarray:
    """Energy by wavenumber, the mean over fields."""
    return np.mean([energy_spectrum(field) for field in fields], axis=0)


def fields(folder: Path, kind: str) -> list[np.ndarray]:
    """The validation fields."""
    return [np.load(path) for path in sorted((folder / "data" / "val" / kind).glob("*.npy"))]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Each metric's mean over the seeds by variant, and how the second differs from the first, %."""
    means = {
        variant: {
            name: float(np.mean([each["metrics"][name] for each in runs if each["variant"] == variant]))
            for name in METRICS_SHOWN
        }
        for variant in VARIANTS
    }
    first, second = (means[variant] for variant in VARIANTS)
    change = {name: 100 * (second[name] / first[name] - 1) for name in METRICS_SHOWN}
    each = [{name: 100 * (b / a - 1) for name, (a, b) in pair.items()} for pair in _pairs(runs)]
    return {"bicubic": runs[0]["bicubic"], **means, "change in %": change, "change of each seed in %": each}


def _pairs(runs: list[dict[str, Any]]) -> list[dict[str, tuple[float, float]]]:
    found = {(each["variant"], each["seed"]): each["metrics"] for each in runs}
    return [{name: (found[VARIANTS[0], s][name], found[VARIANTS[1], s][name]) for name in METRICS_SHOWN} for s in SEEDS]


def exact(folder: Path) -> list[np.ndarray]:
    """The Fourier interpolation of the validation fields."""
    return [interpolated(lq.astype(np.float64), 2) for lq in fields(folder, "lq")]


def measured(folder: Path, results: list[np.ndarray]) -> dict[str, float]:
    """The metrics of the example, means over the validation fields."""
    stated = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["val"]["metrics"]
    pairs = [
        [torch.from_numpy(each)[None] for each in pair] for pair in zip(results, fields(folder, "gt"), strict=True)
    ]
    built = {name: METRICS.build(stated[name]) for name in METRICS_SHOWN}
    return {name: float(np.mean([metric(*pair) for pair in pairs])) for name, metric in built.items()}


def draw(folder: Path, runs: list[dict[str, Any]], picture: Path) -> None:
    """Spectra over the wavenumber, and their ratio to the truth's in dB; a line for each seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    truth = spectrum(fields(folder, "gt"))
    enlarged = [bicubic(torch.from_numpy(lq)[None], 2, clamp=False)[0].numpy() for lq in fields(folder, "lq")]
    curves = [("truth", "black", truth), ("bicubic", "#009E73", spectrum(enlarged))]
    curves += [("exact interpolation", "grey", spectrum(exact(folder)))]
    for variant, color in zip(VARIANTS, ("#0072B2", "#D55E00"), strict=True):
        curves += [(variant, color, np.array(each["spectrum"])) for each in runs if each["variant"] == variant]
    k = np.arange(1, len(truth) + 1)
    shown = truth > truth.max() * 1e-9  # the largest eddies are of wavenumber 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    seen: set[str] = set()
    for label, color, curve in curves:
        name = None if label in seen else label
        seen.add(label)
        left.loglog(k[shown], curve[shown], color=color, label=name, linewidth=1.2)
        right.plot(k[shown], 10 * np.log10(curve[shown] / truth[shown]), color=color, linewidth=1.2)
    left.set(xlabel="wavenumber, waves per side", ylabel="energy", title="spectra of the validation fields")
    left.legend()
    left.set(ylim=(truth[shown].min() / 100, 2 * truth.max()))
    left.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
    left.set_xticks([], minor=True)
    right.set(ylim=(-32, 4))  # interpolation has nothing above 16
    right.axvline(16, color="grey", linestyle=":")
    right.set(xlabel="wavenumber, waves per side", ylabel="energy / truth, dB", title="what LQ holds ends at 16")
    figure.savefig(picture, dpi=100)


def main() -> int:
    """Generate the data, train, draw."""
    parser = argparse.ArgumentParser(description="Draw the spectra of the turbulence example.")
    parser.add_argument("--folder", type=Path, default=ROOT / "experiments" / "turbulence_spectra")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if code := generate([str(folder / "data"), "--lq", "cutoff", "--seed", str(DATA_SEED)]):
        return code
    with ThreadPoolExecutor(arguments.jobs) as jobs:
        waiting = [jobs.submit(run, folder, variant, seed) for seed in SEEDS for variant in VARIANTS]
        runs = [each.result() for each in waiting]
    rows = {"exact interpolation": measured(folder, exact(folder)), **summary(runs)}
    found = {
        "data seed": DATA_SEED,
        "summary": rows,
        "runs": [{k: v for k, v in each.items() if k != "spectrum"} for each in runs],
    }
    PICTURE.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["summary"], indent=1))  # noqa: T201 - a program's output
    draw(folder, runs, PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
