"""Images per second of the training loader against a bare loop that decodes and crops the same files.

    python benchmarks/data_loading.py [--pairs 64] [--seconds 4] [--rounds 4] [--workers 1 2]

For w workers the bare loop runs in w processes of its own, so that both sides share the machine alike; the two take
turns (loader, bare, loader, bare, ...) within one run. An image is a pair: LQ and GT. Writes a JSON line and a readable
line for each number of workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as train.py: threads that spin would take the workers' cores

from traiNNer.data import TrainLoader, build_dataset

SCALE, TILE, LQ_SIZE, BATCH = 2, 480, 64, 8
GOAL = 0.9


def main() -> None:
    """Make the files, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64, help="image pairs on disk")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of loader processes")
    found = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_tiles(Path(folder), found.pairs)
        for workers in found.workers:
            report(workers, measure(Path(folder), workers, found.seconds, found.rounds))


def make_tiles(folder: Path, count: int) -> None:
    """PNG tiles with structure at all sizes and some noise, about as hard to decode as photographs."""
    generator = np.random.default_rng(0)
    for kind in ("gt", "lq"):
        (folder / kind).mkdir()
    for number in range(count):
        tile = generator.normal(0, 3, (TILE, TILE, 3))
        for size in (4, 16, 60, 160):
            coarse = generator.normal(0, 160 / size**0.5, (size, size, 3))
            tile += cv2.resize(coarse, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
        gt = np.clip(tile + 128, 0, 255).astype(np.uint8)
        lq = cv2.resize(gt, (TILE // SCALE, TILE // SCALE), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "gt" / f"{number}.png"), gt)
        cv2.imwrite(str(folder / "lq" / f"{number}.png"), lq)


def measure(folder: Path, workers: int, seconds: float, rounds: int) -> list[tuple[float, float]]:
    """(loader, bare) images per second of each round."""
    options = {"type": "PairedImageDataset", "name": "tiles", "scale": SCALE, "lq_size": LQ_SIZE}
    dataset = build_dataset({**options, "dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")})
    loader = TrainLoader(dataset, batch_size=BATCH, seed=0, num_workers=workers)
    bare = BareLoops(folder, workers)
    try:
        return [(loader_rate(loader, seconds), bare.rate(seconds)) for _ in range(rounds)]
    finally:
        loader.close()
        bare.close()


def loader_rate(loader: TrainLoader, seconds: float) -> float:
    """Images per second, after the batches that were read ahead are used up."""
    for _ in range(4 * loader.num_workers):
        loader.next_batches()
    start, images = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        images += BATCH * len(loader.next_batches())
    return images / passed


class BareLoops:
    """The bare loop in processes that wait between their turns."""

    def __init__(self, folder: Path, count: int) -> None:
        self._ends = []
        for _ in range(count):
            end, other = multiprocessing.Pipe()
            multiprocessing.Process(target=bare_loop, args=(folder, other), daemon=True).start()
            self._ends.append(end)

    def rate(self, seconds: float) -> float:
        """Images per second of all together."""
        for end in self._ends:
            end.send(seconds)
        return sum(end.recv() for end in self._ends)

    def close(self) -> None:
        """End the processes."""
        for end in self._ends:
            end.send(None)


def bare_loop(folder: Path, orders: Connection) -> None:
    """Decode and crop as fast as it goes, for as many seconds as the other end says."""
    cv2.setNumThreads(0)
    names = sorted(path.name for path in (folder / "gt").iterdir())
    generator = np.random.default_rng(0)
    while (seconds := orders.recv()) is not None:
        start, images = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds:
            name = names[images % len(names)]
            lq, gt = (np.asarray(cv2.imread(str(folder / kind / name), cv2.IMREAD_UNCHANGED)) for kind in ("lq", "gt"))
            top, left = generator.integers(lq.shape[0] - LQ_SIZE + 1, size=2)
            np.ascontiguousarray(lq[top : top + LQ_SIZE, left : left + LQ_SIZE])
            top, left, size = top * SCALE, left * SCALE, LQ_SIZE * SCALE
            np.ascontiguousarray(gt[top : top + size, left : left + size])
            images += 1
        orders.send(images / passed)


def report(workers: int, rounds: list[tuple[float, float]]) -> None:
    """One JSON line, one for people."""
    ratios = [loader / bare for loader, bare in rounds]
    figures = {
        "benchmark": "data_loading",
        "workers": workers,
        "loader_images_per_second": round(statistics.median(loader for loader, _ in rounds), 1),
        "bare_images_per_second": round(statistics.median(bare for _, bare in rounds), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "goal": GOAL,
    }
    print(json.dumps(figures))
    print(
        f"{workers} worker(s): {figures['loader_images_per_second']} images/s, bare loop in as many processes "
        f"{figures['bare_images_per_second']}: {figures['ratio']} of it (goal: at least {GOAL})"
    )


if __name__ == "__main__":
    main()
