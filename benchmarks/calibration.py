"""What the multipliers of `auto_calibrate` do to PSNR: the same run with the weights of the file and with theirs.

For each version of scikit-image's photographs (as they are, blurred, noisy, JPEG quality 30), each seed and each set of
losses: the version is measured, and two networks are trained from the same weights over the same batches, with a
cosine schedule of the rate. The figures are those of chelsea and coffee, which are in no batch, in the same version.
Goal: no more than 0.02 dB lost in the mean of the seeds.

    python benchmarks/calibration.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.image_measures import photograph, versions
from traiNNer.archs import build_network
from traiNNer.data import TrainLoader, build_dataset
from traiNNer.data.downscale import downscale
from traiNNer.data.measures import measure_files
from traiNNer.data.tiles import tiles_of
from traiNNer.inference import upscale
from traiNNer.losses import build_losses
from traiNNer.metrics.psnr_metric import PSNR
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.training_automations.base import LossFacts
from traiNNer.training_automations.calibration import calibrate
from traiNNer.utils.images import to_float, write_image

SCALE, TILE, GT_SIZE = 2, 128, 64
TRAINING = ("astronaut.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "rocket.jpg")
VALIDATION = ("chelsea.png", "coffee.png")
GOAL = -0.02
RECIPES: dict[str, list[dict[str, Any]]] = {
    "fidelity": [{"type": "l1loss", "loss_weight": 1.0}, {"type": "mssimloss", "loss_weight": 0.05}],
    "frequency": [
        {"type": "l1loss", "loss_weight": 1.0},
        {"type": "mssimloss", "loss_weight": 0.1},
        {"type": "fftloss", "loss_weight": 0.05},
        {"type": "colorloss", "loss_weight": 0.1},
    ],
}


def prepare(folder: Path) -> None:
    """Photographs of each version, whole for the measures, and as tiles of GT and LQ to train on."""
    for name in TRAINING:
        for version, image in versions(photograph(name)).items():
            write_image(folder / version / "whole" / f"{Path(name).stem}.png", image)
            for top, left, height, width in tiles_of(*image.shape[:2], size=TILE, step=TILE):
                gt = image[top : top + height, left : left + width]
                side = TILE // SCALE
                small = downscale(gt, SCALE, top=0, left=0, height=side, width=side)
                for kind, pixels in (("gt", gt), ("lq", small)):
                    write_image(folder / version / kind / f"{Path(name).stem}_{top}_{left}.png", pixels)


def multipliers(whole: Path, recipe: list[dict[str, Any]]) -> dict[str, float]:
    """By type of loss, what its weight is multiplied by for the photographs of a folder."""
    found = measure_files([str(path) for path in sorted(whole.iterdir())], seed=0)
    if found is None:
        raise ValueError(f"{whole} has no images that can be measured")
    losses = {label: LossFacts(kind=str(loss.kind)) for label, loss in build_losses(copy.deepcopy(recipe)).items()}
    return calibrate(found.medians.by_name(), losses)


def psnr(net: nn.Module, version: str) -> float:
    """The mean over the validation photographs, dB."""
    metric, values = PSNR(crop_border=SCALE), []
    for name in VALIDATION:
        image = versions(photograph(name))[version]
        height, width = (side // SCALE for side in image.shape[:2])
        lq = to_float(downscale(image, SCALE, top=0, left=0, height=height, width=width))[None]
        gt = to_float(image[: height * SCALE, : width * SCALE])[None]
        values.append(metric(upscale(net, lq), gt))
    return statistics.fmean(values)


def train(
    net: nn.Module, losses: list[dict[str, Any]], folder: Path, seed: int, found: argparse.Namespace
) -> nn.Module:
    """A copy of the network, trained."""
    options = {"type": "PairedImageDataset", "name": "tiles", "scale": SCALE, "gt_size": GT_SIZE}
    dataset = build_dataset({**options, "dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")})
    loader = TrainLoader(dataset, batch_size=found.batch, seed=seed)
    own = copy.deepcopy(net)
    optimizer = build_optimizer({"type": "AdamW", "lr": found.lr}, own)
    schedule = build_schedule({"type": "CosineAnnealingLR", "eta_min_factor": 0.01}, found.iterations)
    model = SRModel(generator=Player(own, optimizer, LearningRate(optimizer, schedule)), losses=build_losses(losses))
    for iteration in range(1, found.iterations + 1):
        model.feed_data(loader.next_batches())
        model.optimize_parameters(iteration)
    return own.eval()


def compare(folder: Path, version: str, recipe: str, seed: int, found: argparse.Namespace) -> dict[str, Any]:
    """One seed: PSNR with the weights as they are and multiplied."""
    torch.manual_seed(seed)
    net = build_network({"type": found.network, "scale": SCALE})
    factors = multipliers(folder / version / "whole", RECIPES[recipe])
    started, results = time.perf_counter(), []
    for applied in (False, True):
        losses = copy.deepcopy(RECIPES[recipe])
        for entry in losses if applied else ():
            entry["loss_weight"] *= factors[entry["type"]]
        results.append(psnr(train(net, losses, folder / version, seed, found), version))
    row = {"version": version, "recipe": recipe, "seed": seed, "multipliers": factors, "psnr": results}
    return {**row, "gain": results[1] - results[0], "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    """Measure; one JSON line for each pair of runs, then a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="paragonsr2_nano")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--versions", nargs="+", default=["as they are", "blurred", "noisy", "JPEG 30"])
    found = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other make small steps slow
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for seed in found.seeds:
            for recipe in found.recipes:
                for version in found.versions:
                    rows.append(compare(Path(folder), version, recipe, seed, found))
                    print(json.dumps(rows[-1]), flush=True)
    print("\n| losses | version | multipliers | PSNR, dB | multiplied | gain |\n|---|---|---|---|---|---|")
    for recipe in found.recipes:
        for version in found.versions:
            chosen = [row for row in rows if (row["recipe"], row["version"]) == (recipe, version)]
            plain, multiplied = (statistics.fmean(row["psnr"][side] for row in chosen) for side in (0, 1))
            factors = ", ".join(f"{label} {factor:.2f}" for label, factor in chosen[0]["multipliers"].items())
            gain = multiplied - plain
            print(f"| {recipe} | {version} | {factors} | {plain:.3f} | {multiplied:.3f} | {gain:+.3f} |")


if __name__ == "__main__":
    main()
