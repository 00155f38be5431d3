"""Cost of starting: seconds from process start to the end of the first iteration, against a bare script.

The bare script imports torch, builds the same network and AdamW and takes one step on a batch of random numbers; the
real run reads its option file, checks 16 image pairs, opens its folders, starts its loader and takes one step. Both
are started in turn, A B A B, each in a process of its own.

    python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BARE = """
import sys
import torch
sys.path.insert(0, {root!r})
from traiNNer.archs import build_network
net = build_network({{"type": "paragonsr2_nano", "scale": 2}})
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
loss = torch.nn.functional.l1_loss(net(torch.rand(8, 3, 24, 24)), torch.rand(8, 3, 48, 48))
loss.backward()
optimizer.step()
print("first iteration", flush=True)
"""

OPTIONS = """
name: startup
scale: 2
num_gpu: 0
datasets:
  train:
    name: tiles
    type: PairedImageDataset
    dataroot_gt: {folder}/gt
    dataroot_lq: {folder}/lq
    gt_size: 48
    batch_size_per_gpu: 8
    num_worker_per_gpu: {workers}
network_g:
  type: paragonsr2_nano
path:
  experiments_root: {folder}/experiments
train:
  total_iter: 1
  ema_decay: 0.999
  optim_g:
    type: AdamW
    lr: 0.0001
  losses:
    - type: l1loss
      loss_weight: 1.0
logger:
  print_freq: 1
  save_checkpoint_freq: 1000
  use_tb_logger: true
"""


def seconds_to(mark: str, command: list[str]) -> float:
    """Seconds from the start of a process until it writes a line with `mark`."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", cwd=ROOT
    ) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if mark in line:
                elapsed = time.perf_counter() - start
                process.wait()
                return elapsed
    raise SystemExit(f"{' '.join(command)} never wrote {mark!r}:\n{''.join(lines)}")


def write_pairs(folder: Path) -> None:
    """16 pairs of random images, 48 and 24 px."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for kind, size in (("gt", 48), ("lq", 24)):
        (folder / kind).mkdir()
        for number in range(16):
            Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
                folder / kind / f"{number}.png"
            )


def main() -> None:
    """Measure and print one JSON line and one for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="loader processes of the real run")
    found = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder)
        options = folder / "startup.yml"
        options.write_text(OPTIONS.format(folder=folder.as_posix(), workers=found.workers), encoding="utf-8")
        bare = [sys.executable, "-c", BARE.format(root=str(ROOT))]
        real = [sys.executable, "train.py", "-opt", str(options)]
        for command, mark in ((bare, "first iteration"), (real, "[iter 1/")):
            seconds_to(mark, command)  # fills the disk cache
        rows = [(seconds_to("first iteration", bare), seconds_to("[iter 1/", real)) for _ in range(found.repeats)]
    ratio = statistics.median(b / a for a, b in rows)
    bare_s, real_s = (statistics.median(column) for column in zip(*rows, strict=True))
    result = {
        "benchmark": "startup",
        "ratio": round(ratio, 3),
        "ratios": [round(b / a, 3) for a, b in rows],
        "bare_s": bare_s,
        "real_s": real_s,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.write(
        f"start to the end of the first iteration: real {real_s:.2f} s, bare {bare_s:.2f} s, ratio {ratio:.2f}\n"
    )


if __name__ == "__main__":
    main()
