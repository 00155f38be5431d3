"""What the range test suggests against the best of a grid of learning rates.

For each seed: a new network, `find_lr` on it, and 7 runs of 300 iterations from the same weights over the same batches,
at rates a factor of sqrt(10) apart. The best rate is that with the lowest mean training loss over the last 50
iterations. Data: random crops of scikit-image's photographs and their bicubic reductions.
Goal: the suggestion within a factor of 3 of the best rate in 4 of 5 seeds.

    python benchmarks/find_lr.py --network paragonsr2_nano --optimizer AdamW --first -4.5
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.archs import build_network
from traiNNer.data import TrainLoader, build_dataset
from traiNNer.losses import build_losses
from traiNNer.lr_finder import find_lr, plot, suggestion, valley
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule

SCALE, TILE = 2, 128
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
POINTS, ITERATIONS, LAST = 7, 300, 50
FACTOR, GOAL = 3.0, 0.8


def make_tiles(folder: Path) -> None:
    """Tiles of the photographs that come with scikit-image, and their reductions."""
    import skimage

    for kind in ("gt", "lq"):
        (folder / kind).mkdir()
    for name in PHOTOS:
        path = Path(skimage.__file__).parent / "data" / name
        if not path.exists():
            continue
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        for top in range(0, photo.height - TILE + 1, TILE):
            for left in range(0, photo.width - TILE + 1, TILE):
                tile = photo.crop((left, top, left + TILE, top + TILE))
                tile.save(folder / "gt" / f"{path.stem}_{top}_{left}.png")
                small = tile.resize((TILE // SCALE, TILE // SCALE), Image.Resampling.BICUBIC)
                small.save(folder / "lq" / f"{path.stem}_{top}_{left}.png")


def make_loader(folder: Path, seed: int, batch: int) -> TrainLoader:
    """Crops of the tiles, read in this process."""
    options = {"type": "PairedImageDataset", "name": "tiles", "scale": SCALE, "gt_size": 32}
    dataset = build_dataset({**options, "dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")})
    return TrainLoader(dataset, batch_size=batch, seed=seed)


def make_model(net: nn.Module, found: argparse.Namespace, rate: float) -> SRModel:
    """A copy of the network with its optimizer at a constant rate, and the loss."""
    own = copy.deepcopy(net)
    optimizer = build_optimizer({"type": found.optimizer, "lr": rate}, own)
    player = Player(own, optimizer, LearningRate(optimizer, build_schedule(None, 1)))
    return SRModel(generator=player, losses=build_losses([{"type": found.loss, "loss_weight": 1.0}]))


def train(model: SRModel, loader: TrainLoader) -> float:
    """The mean loss of the last iterations; infinite if it diverged."""
    losses: list[float] = []
    for iteration in range(1, ITERATIONS + 1):
        model.feed_data(loader.next_batches())
        model.optimize_parameters(iteration)
        losses += [float(value) for label, value in model.record.items() if label in model.losses]
    mean = sum(losses[-LAST:]) / LAST
    return mean if math.isfinite(mean) else math.inf


def measure(folder: Path, seed: int, grid: list[float], found: argparse.Namespace) -> dict[str, Any]:
    """One seed: the suggestion, and what each rate of the grid comes to."""
    torch.manual_seed(seed)
    net = build_network({"type": found.network, "scale": SCALE})
    start = time.perf_counter()
    curve = find_lr(make_model(net, found, grid[0]), make_loader(folder, seed, found.batch))
    seconds = time.perf_counter() - start
    if found.plots is not None:
        plot(curve, found.plots / f"{found.network}_{found.optimizer}_{seed}.png", f"{found.network}, seed {seed}")
    losses = [train(make_model(net, found, rate), make_loader(folder, seed, found.batch)) for rate in grid]
    best, suggested = grid[losses.index(min(losses))], suggestion(curve)
    return {
        "seed": seed,
        "suggestion": suggested,
        "valley": valley(curve),
        "best": best,
        "ratio": None if suggested is None else suggested / best,
        "losses": [round(loss, 6) for loss in losses],
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict[str, Any]], grid: list[float]) -> str:
    """The results as Markdown."""
    heads = ["seed", "suggestion", *(f"{rate:.1e}" for rate in grid), "best", "ratio"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        losses = [f"{loss:.4f}" if loss < 100 else "diverged" for loss in row["losses"]]
        suggested = [f"{row['suggestion'] or 0:.1e}"]
        ends = [f"{row['best']:.1e}", f"{row['ratio'] or 0:.2f}"]
        lines.append("| " + " | ".join([str(row["seed"]), *suggested, *losses, *ends]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print one JSON line and a table for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="paragonsr2_nano")
    parser.add_argument("--optimizer", default="AdamW")
    parser.add_argument("--loss", default="l1loss")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--first", type=float, default=-4.5, help="log10 of the grid's lowest rate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7, 8, 9])
    parser.add_argument("--plots", type=Path, help="folder for a plot of each seed")
    found = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other make small steps slow
    grid = [10 ** (found.first + point / 2) for point in range(POINTS)]
    with tempfile.TemporaryDirectory() as folder:
        make_tiles(Path(folder))
        rows = [measure(Path(folder), seed, grid, found) for seed in found.seeds]
    good = sum(row["ratio"] is not None and 1 / FACTOR <= row["ratio"] <= FACTOR for row in rows)
    names = {"benchmark": "find_lr", "network": found.network, "optimizer": found.optimizer, "loss": found.loss}
    sys.stdout.write(json.dumps({**names, "grid": grid, "rows": rows, "within": good, "of": len(rows)}) + "\n\n")
    sys.stdout.write(table(rows, grid) + "\n\n")
    sys.stdout.write(f"within a factor of {FACTOR:g} of the best in {good} of {len(rows)}, goal {GOAL:.0%}\n")


if __name__ == "__main__":
    main()
