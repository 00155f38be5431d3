"""Train small x2 networks with L1 and the spectrum error, with and without its floor: docs/figures/spectral_losses.png.

python docs/figures/spectral_losses.py              # needs matplotlib; some minutes on two cores

Photographs are scikit-image's, as the quickstart has them. Prints the table of docs/spectral-losses.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from scripts.prepare_sample import TRAINING, VALIDATION, halved, photograph, tiles  # noqa: E402
from traiNNer.losses import build_losses  # noqa: E402
from traiNNer.metrics import build_metric  # noqa: E402

FEATURES, GT_SIZE, BATCH, LEARNING_RATE = 16, 64, 8, 3e-3
METRICS = {name: build_metric({"type": name, "crop_border": 2}) for name in ("psnr", "raps_distance", "hf_share")}
FLOORS = {0.0: "#D55E00", 0.25: "#0072B2"}
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
Result = dict[str, float]


class SmallNet(nn.Module):
    """Four convolutions that add to the bicubic enlargement what they make of the LQ's fine structure."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (3, FEATURES, FEATURES):
            layers += [nn.Conv2d(before, FEATURES, 3, padding=1), nn.LeakyReLU(0.1)]
        last = nn.Conv2d(FEATURES, 12, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)
        self.body = nn.Sequential(*layers, last, nn.PixelShuffle(2))

    def forward(self, lq: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, 2 H, 2 W)."""
        fine = lq - F.avg_pool2d(lq, 5, stride=1, padding=2, count_include_pad=False)
        return self.body(10 * fine) / 10 + bicubic(lq)


def to_tensor(image: Any) -> Tensor:
    """(H, W, 3) levels as (3, H, W) in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def pairs(names: tuple[str, ...], *, whole: bool) -> list[tuple[Tensor, Tensor]]:
    """LQ and GT of photographs, or of the tiles that the quickstart cuts from them."""
    found: list[tuple[Tensor, Tensor]] = []
    for name in names:
        image = photograph(name)
        parts = [image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]]
        for part in parts if whole else [tile for _, _, tile in tiles(image)]:
            found.append((to_tensor(halved(part)), to_tensor(part)))
    return found


def batches(data: list[tuple[Tensor, Tensor]], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Random crops of random tiles, without end."""
    side = GT_SIZE // 2
    while True:
        lq, gt = [], []
        for _ in range(BATCH):
            number = int(torch.randint(len(data), (), generator=generator))
            top, left = torch.randint(data[number][0].shape[-1] - side + 1, (2,), generator=generator).tolist()
            lq.append(data[number][0][:, top : top + side, left : left + side])
            gt.append(data[number][1][:, 2 * top : 2 * top + GT_SIZE, 2 * left : 2 * left + GT_SIZE])
        yield torch.stack(lq), torch.stack(gt)


def train(losses: list[dict[str, Any]], seed: int, iterations: int, data: list[tuple[Tensor, Tensor]]) -> Any:
    """A network after so many steps, with the largest norm of its gradient over the median one."""
    torch.manual_seed(seed)
    net = SmallNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    terms = build_losses(losses).values()
    source, norms = batches(data, torch.Generator().manual_seed(seed)), []
    for iteration in range(iterations):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE / 2 * (1 + math.cos(math.pi * iteration / iterations))
        lq, gt = next(source)
        output = net(lq)
        total = torch.stack([term.loss_weight * term(output, gt) for term in terms]).sum()
        optimizer.zero_grad()
        total.backward()
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])))
        optimizer.step()
    return net.eval(), max(norms) / statistics.median(norms)


@torch.no_grad()
def measure(net: Any, data: list[tuple[Tensor, Tensor]]) -> Result:
    """The mean of each metric over the photographs."""
    outputs = [(net(lq[None]), gt[None]) for lq, gt in data]
    return {name: statistics.mean(metric(*pair) for pair in outputs) for name, metric in METRICS.items()}


def bicubic(lq: Tensor) -> Tensor:
    """Twice the size, as the baseline of a validation."""
    return F.interpolate(lq, scale_factor=2, mode="bicubic", antialias=True).clamp(0, 1)


def run(losses: list[dict[str, Any]], seed: int, iterations: int) -> Result:
    """Train one network and measure it."""
    torch.set_num_threads(1)
    net, spike = train(losses, seed, iterations, pairs(TRAINING, whole=False))
    return {**measure(net, pairs(VALIDATION, whole=True)), "spike": spike}


def run_all(seeds: int, iterations: int, jobs: int) -> dict[str, list[Result]]:
    """Every combination with every seed: label to a result for each seed."""
    wanted = {"L1": [{"type": "l1loss", "loss_weight": 1.0}]}
    for floor in FLOORS:
        for weight in WEIGHTS:
            added = {"type": "spectrumerrorloss", "loss_weight": weight, "floor": floor}
            wanted[f"floor {floor:g}, weight {weight:g}"] = [*wanted["L1"], added]
    results: dict[str, list[Result]] = {"bicubic": [measure(bicubic, pairs(VALIDATION, whole=True))]}
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {
            label: [pool.submit(run, losses, seed, iterations) for seed in range(seeds)]
            for label, losses in wanted.items()
        }
        for label, each in waiting.items():
            results[label] = [job.result() for job in each]
            print(label, json.dumps(means(results[label])), flush=True)  # noqa: T201 - a program's progress
    return results


def means(results: list[Result]) -> Result:
    """The mean over the seeds."""
    return {name: statistics.mean(result[name] for result in results) for name in results[0]}


def table(results: dict[str, list[Result]]) -> str:
    """Markdown: means over the seeds, with the standard deviation of the difference to L1 of the same seed."""
    rows = [
        "| losses | PSNR, dB | against L1 | RAPS distance, dB | against L1 | `hf_share` | largest gradient |",
        "|---|" + "---|" * 6,
    ]
    base = results["L1"]
    for label, found in results.items():
        mean, cells = means(found), []
        for name in ("psnr", "raps_distance"):
            pairs_of_seeds = [ours[name] - theirs[name] for ours, theirs in zip(found, base, strict=False)]
            spread = f" ± {statistics.stdev(pairs_of_seeds):.2f}" if len(found) > 1 and found is not base else ""
            change = "" if found is base else f"{mean[name] - means(base)[name]:+.2f}{spread}"
            cells += [f"{mean[name]:.2f}", change]
        spike = f"{mean['spike']:.1f}" if "spike" in mean else ""
        rows.append(f"| {label} | {' | '.join(cells)} | {mean['hf_share']:.2f} | {spike} |")
    return "\n".join(rows)


def draw(results: dict[str, list[Result]], path: Path) -> None:
    """RAPS distance over PSNR: every seed as a point, the means as a line through the weights."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 5), layout="constrained")
    groups = {"L1 alone": (["L1"], "#000000")}
    for floor, color in FLOORS.items():
        labels = [f"floor {floor:g}, weight {weight:g}" for weight in WEIGHTS]
        groups[f"L1 + spectrum error, floor {floor:g}"] = (["L1", *labels], color)
    for text, (labels, color) in reversed(groups.items()):
        points = [means(results[label]) for label in labels]
        axes.plot(*zip(*((p["psnr"], p["raps_distance"]) for p in points), strict=True), "o-", color=color, label=text)
        for label, point in zip(labels, points, strict=True):
            each = [(result["psnr"], result["raps_distance"]) for result in results[label]]
            axes.scatter(*zip(*each, strict=True), color=color, s=8, alpha=0.3)
            if label != "L1":
                axes.annotate(
                    label.rpartition(" ")[2],
                    (point["psnr"], point["raps_distance"]),
                    xytext=(-7, 3) if label.startswith("floor 0,") else (7, -3),
                    textcoords="offset points",
                    ha="right" if label.startswith("floor 0,") else "left",
                    va="bottom" if label.startswith("floor 0,") else "top",
                    color=color,
                    fontsize=9,
                )
    axes.margins(x=0.1)
    axes.set_xlabel("PSNR, dB (right is better)")
    axes.set_ylabel("RAPS distance, dB (down is better)")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="numbers are the weight of the spectrum error")
    figure.savefig(path, dpi=100)


def main() -> int:
    """Train, print the table, write the picture."""
    parser = argparse.ArgumentParser(description="Compare the spectrum error with and without its floor.")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=2, help="networks trained at a time, one core each")
    found = parser.parse_args()
    torch.set_num_threads(1)
    results = run_all(found.seeds, found.iterations, found.jobs)
    path = Path(__file__).with_suffix(".png")
    draw(results, path)
    print(table(results))  # noqa: T201 - a program's output
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size // 1000} kB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
