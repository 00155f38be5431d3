"""Cost of all training automations together: seconds of an iteration with them against the same iteration without.

Both sides train copies of one network in one process, iteration by iteration in turn (A B B A), each with its losses'
values read every 10 iterations as in a run. The automations have their defaults; they watch, sample gradients at their
own intervals, read the memory and decide, but the batch and its images stay the same.    goal: at most 1.01

`thirds` are the ratios of the parts of the measurement: the first has the dense samples at the start. `sampled` is the
ratio in the iterations whose gradients were sampled, `others` in the rest.

    python benchmarks/automations.py --network paragonsr2_nano
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.archs import build_network
from traiNNer.controls import RunControls
from traiNNer.losses import build_losses
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.monitor import StepMonitor
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.training_automations.base import BatchFacts, LossFacts, RunFacts
from traiNNer.training_automations.guard import Guarded
from traiNNer.training_automations.journal import Journal
from traiNNer.training_automations.manager import AutomationManager
from traiNNer.utils.memory import memory_reader
from traiNNer.utils.registry import AUTOMATIONS

LONG = 1_000_000
LOSSES = [{"type": "l1loss", "loss_weight": 1.0}, {"type": "fftloss", "loss_weight": 0.1}]
GOAL = 1.01


class Batches:
    """A loader's sizes, which nothing follows here."""

    def __init__(self, size: int) -> None:
        self.micro_batches = (size,)

    def set_micro_batches(self, sizes: Sequence[int]) -> None:
        """Take other sizes."""
        self.micro_batches = tuple(sizes)


class Side:
    """One side of the ratio: iterations as the trainer runs them."""

    def __init__(self, net: torch.nn.Module, batch: dict[str, Any], *, automated: bool) -> None:
        own = copy.deepcopy(net)
        optimizer = build_optimizer({"type": "AdamW", "lr": 1e-4}, own)
        player = Player(own, optimizer, LearningRate(optimizer, build_schedule(None, 1)), max_norm=1.0)
        losses = build_losses(LOSSES, total_iter=LONG)
        self.model = SRModel(generator=player, losses=losses, recovers=automated)
        self.monitor = StepMonitor()
        self.iteration, self._batch = 0, batch
        self.manager = self._manager(len(batch["lq"])) if automated else None

    def _manager(self, size: int) -> AutomationManager:
        memory = memory_reader(torch.device("cpu"))
        facts = RunFacts(
            total_iter=LONG,
            val_freq=1000,
            better={"val/psnr": "higher"},
            trend_losses=frozenset(self.model.losses),
            batch=BatchFacts(size=size, images=1000, total_memory=memory.read().total),
            losses={label: LossFacts(kind=loss.kind) for label, loss in self.model.losses.items()},
        )
        automations = {name: Guarded(AUTOMATIONS.build({"type": name})) for name in AUTOMATIONS.names()}
        for guarded in automations.values():
            guarded.start(facts)
        manager = AutomationManager(
            automations,
            controls=RunControls(self.model, Batches(size), LONG),  # type: ignore[arg-type]
            journal=Journal(None, lambda values, iteration: None),
            run=facts,
            values=self.monitor,
            memory=memory,
        )
        self.model.observe(manager)
        self.model.gradient_shares.request(manager.samples_gradients)
        self.monitor.listener = manager.observations.read
        return manager

    @property
    def samples(self) -> bool:
        """Whether gradients were sampled in the last iteration."""
        return any(name.startswith("gradient/") for name in self.model.record)

    def step(self) -> float:
        """Seconds of one more iteration."""
        self.iteration += 1
        start = time.perf_counter()
        if self.manager is not None:
            self.manager.before_iteration()
        self.model.feed_data([self._batch])  # type: ignore[list-item]
        self.model.optimize_parameters(self.iteration)
        self.monitor.add(self.iteration, self.model.record, [], self.model.learning_rates)
        if self.manager is not None:
            self.manager.after_iteration(self.iteration)
        return time.perf_counter() - start


def compare(without: Side, having: Side, steps: int) -> dict[str, Any]:
    """Step both in turn; the ratios of sums in blocks of 50 iterations, since the work comes at intervals."""
    gc.disable()  # a collection would fall on one side
    rows: list[tuple[float, float, bool]] = []
    for number in range(steps):
        first, second = (without, having) if number % 2 == 0 else (having, without)
        one, two = first.step(), second.step()
        rows.append((one, two, having.samples) if number % 2 == 0 else (two, one, having.samples))
    gc.enable()
    blocks = [rows[start : start + 50] for start in range(0, steps - 49, 50)]
    ratios = [_trimmed(block) for block in blocks]
    third = len(blocks) // 3
    return {
        "ratio": round(statistics.median(ratios), 4),
        "thirds": [round(statistics.median(ratios[index * third : (index + 1) * third]), 4) for index in range(3)],
        "sampled": round(statistics.median([b / a for a, b, sampled in rows if sampled] or [1.0]), 4),
        "others": round(statistics.median(b / a for a, b, sampled in rows if not sampled), 4),
        "samples": sum(sampled for *_, sampled in rows),
        "step_ms": round(1000 * statistics.median(a for a, *_ in rows), 3),
    }


def _trimmed(block: list[tuple[float, float, bool]]) -> float:
    """Ratio of sums without the pairs in which one side was interrupted by something else (a tenth at either end)."""
    pairs = sorted(block, key=lambda pair: pair[1] / pair[0])[5:-5]
    kept = [*pairs, *(pair for pair in block if pair[2] and pair not in pairs)]  # sampled iterations do cost more
    return sum(pair[1] for pair in kept) / sum(pair[0] for pair in kept)


def main() -> None:
    """Measure and print one JSON line and one for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="paragonsr2_nano")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lq_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=900, help="of each side, 150 at least")
    found = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that wait for each other make a small step's time random
    net = build_network({"type": found.network, "scale": 2})
    size = found.lq_size
    batch = {"lq": torch.rand(found.batch, 3, size, size), "gt": torch.rand(found.batch, 3, 2 * size, 2 * size)}
    figures = compare(Side(net, batch, automated=False), Side(net, batch, automated=True), found.steps)
    results = {"benchmark": "automations", "network": found.network, **figures, "goal": GOAL}
    line = (
        f"all automations: {figures['ratio']:.4f} (thirds {figures['thirds']}), goal {GOAL}; "
        f"{figures['samples']} of {found.steps} iterations sampled, at {figures['sampled']:.2f}, "
        f"the others at {figures['others']:.4f} of {figures['step_ms']:.1f} ms"
    )
    sys.stdout.write(json.dumps(results) + "\n" + line + "\n")


if __name__ == "__main__":
    main()
