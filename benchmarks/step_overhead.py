"""Cost of the trainer: seconds per iteration of a real run against a bare PyTorch loop.

Both train the same network with the same optimizer, EMA and batch from memory, in alternating blocks of one process:
A B A B. The real run is the trainer with log lines every 10 iterations and TensorBoard on; it also measures the
gradient norm, decides whether the step is finite, and keeps what a skipped step would put back.

    python benchmarks/step_overhead.py --network paragonsr2_nano
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.archs import build_network
from traiNNer.best import BestValues
from traiNNer.losses import build_losses
from traiNNer.models.ema import Ema
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.monitor import StepMonitor
from traiNNer.optimizers import build_optimizer
from traiNNer.reporting import Reporter
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.trainer import Trainer, TrainerSettings
from traiNNer.utils.checkpoint import Checkpoint, CheckpointFolders


class FixedLoader:
    """Gives the same batch each time and notes when it was asked: the clock of the trainer's iterations."""

    epoch = 0

    def __init__(self, batch: dict[str, Any]) -> None:
        self._batch = batch
        self.times: list[float] = []

    def next_batches(self) -> list[Any]:
        """The batch, as one micro-batch."""
        self.times.append(time.perf_counter())
        return [self._batch]

    def close(self) -> None:
        """Nothing to close; the moment is the end of the last iteration."""
        self.times.append(time.perf_counter())


class Bare:
    """The loop that a PyTorch user would write."""

    def __init__(self, net: torch.nn.Module, batch: dict[str, Any]) -> None:
        self._net, self._batch = net, batch
        self._optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
        self._ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.999))

    def run(self, iterations: int) -> list[float]:
        """Seconds of each iteration."""
        seconds = []
        for _ in range(iterations):
            start = time.perf_counter()
            self._optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.l1_loss(self._net(self._batch["lq"]), self._batch["gt"])
            loss.backward()
            self._optimizer.step()
            self._ema.update_parameters(self._net)
            seconds.append(time.perf_counter() - start)
        return seconds


class Real:
    """The trainer, continued block by block."""

    def __init__(self, net: torch.nn.Module, batch: dict[str, Any], folder: Path) -> None:
        optimizer = build_optimizer({"type": "AdamW", "lr": 1e-4}, net)
        player = Player(net, optimizer, LearningRate(optimizer, build_schedule(None, 1)))
        self._model = SRModel(
            generator=player, losses=build_losses([{"type": "l1loss", "loss_weight": 1.0}]), ema=Ema(net, decay=0.999)
        )
        self._batch, self._folder, self._iteration = batch, folder, 0
        self._monitor = StepMonitor()

    def run(self, iterations: int) -> list[float]:
        """Seconds of each iteration."""
        loader = FixedLoader(self._batch)
        folders = CheckpointFolders(models=self._folder, resume_models=self._folder, training_states=self._folder)
        checkpoint = Checkpoint(folders)
        checkpoint.track_network("net_g", self._model.net_g, {})
        end = self._iteration + iterations
        trainer = Trainer(
            model=self._model,
            loader=loader,  # type: ignore[arg-type]
            validators=[],
            checkpoint=checkpoint,
            reporter=Reporter(console=None, tensorboard=self._folder, start_iter=self._iteration, total_iter=end),
            monitor=self._monitor,
            best=BestValues(),
            settings=TrainerSettings(total_iter=end, print_freq=10, save_freq=0),
            iteration=self._iteration,
        )
        trainer.train()
        self._iteration = end
        return [after - before for before, after in itertools.pairwise(loader.times[:-1])]


def main() -> None:
    """Measure and print one JSON line and one for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="paragonsr2_nano")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lq_size", type=int, default=64)
    parser.add_argument("--block", type=int, default=12, help="iterations of a block")
    parser.add_argument("--blocks", type=int, default=8, help="blocks of each kind")
    found = parser.parse_args()
    torch.manual_seed(0)
    net = build_network({"type": found.network, "scale": 2})
    lq, size = torch.rand(found.batch, 3, found.lq_size, found.lq_size), 2 * found.lq_size
    batch = {
        "lq": lq,
        "gt": torch.rand(found.batch, 3, size, size),
        "lq_path": ["memory"] * found.batch,
        "gt_path": ["memory"] * found.batch,
        "fault": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        bare, real = Bare(copy.deepcopy(net), batch), Real(net, batch, Path(folder))
        for loop in (bare, real):
            loop.run(4)  # warm-up
        rows = [
            (statistics.median(bare.run(found.block)), statistics.median(real.run(found.block)))
            for _ in range(found.blocks)
        ]
    ratio = statistics.median(b / a for a, b in rows)
    spread = [round(b / a, 4) for a, b in rows]
    seconds = {"bare_s": statistics.median(a for a, _ in rows), "real_s": statistics.median(b for _, b in rows)}
    result = {
        "benchmark": "step_overhead",
        "network": found.network,
        "ratio": round(ratio, 4),
        "ratios": spread,
        **seconds,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.write(
        f"{found.network}, batch {found.batch} of {found.lq_size} px: real {seconds['real_s']:.4f} s/it, "
        f"bare {seconds['bare_s']:.4f} s/it, ratio {ratio:.3f} ({min(spread):.3f} to {max(spread):.3f})\n"
    )


if __name__ == "__main__":
    main()
