"""Cost of scheduled loss weights: seconds and memory of a step with them against the same step without.

    scheduled   two losses, one on a ramp, against the same two with fixed weights       goal: at most 1.005
    waiting     a loss whose weight is still 0, against a run without that loss           goal: at most 1.02
    gan         a GAN loss with net_d, before either acts, against a run without it       goal: at most 1.02
    memory      peak of a process that trains the scheduled pair, against the fixed one   goal: at most 1.01

Both sides of a ratio train copies of one network in one process, step by step in turn (A B B A), so that whatever else
the machine does meets both. `added_us` is what the weights themselves take, timed alone: the part of a step that a
schedule can change.

    python benchmarks/loss_schedule.py --network paragonsr2_nano
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.archs import build_network
from traiNNer.losses import build_losses
from traiNNer.models.loss_schedulers import LossSchedulers
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule

LONG = 1_000_000
"""Iterations of a run that a benchmark never finishes."""

L1 = {"type": "l1loss", "loss_weight": 1.0}
SOFT = {"type": "charbonnierloss", "loss_weight": 0.1}
RAMP = {**SOFT, "target_weight": 1.0, "target_iter": LONG, "schedule_type": "cosine"}
WAITING = {"type": "mssimloss", "loss_weight": 1.0, "start_iter": LONG - 1}
GAN = {"type": "ganloss", "gan_type": "r3gan", "loss_weight": 0.1, "start_iter": LONG - 1}

Cases: TypeAlias = dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], float]]
"""Losses without, losses with, and the goal of the ratio."""

CASES: Cases = {
    "scheduled": ([L1, SOFT], [L1, RAMP], 1.005),
    "waiting": ([L1], [L1, WAITING], 1.02),
    "gan": ([L1], [L1, GAN], 1.02),
}


def make_player(net: torch.nn.Module) -> Player:
    """A network with AdamW."""
    optimizer = build_optimizer({"type": "AdamW", "lr": 1e-4}, net)
    return Player(net, optimizer, LearningRate(optimizer, build_schedule(None, 1)))


class Side:
    """One side of a ratio: a model that takes one step after the other on a fixed batch."""

    def __init__(
        self,
        net: torch.nn.Module,
        losses: list[dict[str, Any]],
        batch: dict[str, Any],
        loss_schedulers: LossSchedulers | None = None,
    ) -> None:
        adversarial = any(entry is GAN for entry in losses)
        discriminator = make_player(build_network({"type": "munet", "num_feat": 16})) if adversarial else None
        self.model = SRModel(
            generator=make_player(copy.deepcopy(net)),
            losses=build_losses(losses, total_iter=LONG),
            discriminator=discriminator,
            loss_schedulers=loss_schedulers,
        )
        self._batch, self._iteration = batch, 0

    def step(self) -> float:
        """Seconds of one more iteration."""
        self._iteration += 1
        start = time.perf_counter()
        self.model.feed_data([self._batch])  # type: ignore[list-item]
        self.model.optimize_parameters(self._iteration)
        return time.perf_counter() - start

    def weights(self) -> float:
        """Seconds that finding an iteration's weights and phases takes."""
        rounds, start = 1000, time.perf_counter()
        terms = self.model._terms
        for iteration in range(1, rounds + 1):
            _ = [(term.weights(iteration), term.live(iteration)) for term in terms], self.model.phases(iteration)
        return (time.perf_counter() - start) / rounds


def compare(without: Side, having: Side, steps: int) -> dict[str, Any]:
    """Step both in turn; the median ratio of neighbours, and that of each third of the measurement."""
    for side in (without, having):
        for _ in range(5):
            side.step()
    gc.disable()  # a collection would fall on one side
    rows: list[tuple[float, float]] = []
    for number in range(steps):
        first, second = (without, having) if number % 2 == 0 else (having, without)
        times = first.step(), second.step()
        rows.append(times if number % 2 == 0 else (times[1], times[0]))
    gc.enable()

    def ratio(part: list[tuple[float, float]]) -> float:
        return round(statistics.median(b / a for a, b in part), 4)

    third = steps // 3
    return {
        "ratio": ratio(rows),
        "thirds": [ratio(rows[index * third : (index + 1) * third]) for index in range(3)],
        "step_ms": round(1000 * statistics.median(a for a, _ in rows), 3),
        "added_us": round(1e6 * (having.weights() - without.weights()), 2),
    }


def peak_memory(script: str, case: str, side: int, arguments: argparse.Namespace) -> int:
    """Largest resident memory of a process of its own, `script --child CASE:SIDE`, KiB; the smallest of three tries."""
    command = [sys.executable, script, "--child", f"{case}:{side}", "--network", arguments.network]
    command += ["--batch", str(arguments.batch), "--lq_size", str(arguments.lq_size)]
    return min(int(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3))


def child(cases: Cases, wanted: str, net: torch.nn.Module, batch: dict[str, Any]) -> None:
    """Take 30 steps of the wanted `CASE:SIDE` and print the peak of this process."""
    import resource

    case, _, side = wanted.partition(":")
    without, having, _ = cases[case]
    model = Side(net, having if side == "1" else without, batch)
    for _ in range(30):
        model.step()
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")


def main() -> None:
    """Measure and print one JSON line and some for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="paragonsr2_nano")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lq_size", type=int, default=24)
    parser.add_argument("--steps", type=int, default=300, help="of each side of a ratio")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    found = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that wait for each other make a small step's time random
    net = build_network({"type": found.network, "scale": 2})
    size = found.lq_size
    batch = {"lq": torch.rand(found.batch, 3, size, size), "gt": torch.rand(found.batch, 3, 2 * size, 2 * size)}
    if found.child:
        child(CASES, found.child, net, batch)
        return
    results: dict[str, Any] = {"benchmark": "loss_schedule", "network": found.network}
    lines: list[str] = []
    if sys.platform != "win32":  # first: a process begins with the peak of the one that started it
        kib = [peak_memory(__file__, "scheduled", side, found) for side in (0, 1)]
        results["memory"] = {"ratio": round(kib[1] / kib[0], 4), "kib": kib, "goal": 1.01}
        lines.append(f"memory: {kib[1] / kib[0]:.4f} ({kib[0] / 1024:.0f} to {kib[1] / 1024:.0f} MiB), goal 1.01")
    for case, (without, having, goal) in CASES.items():
        figures = compare(Side(net, without, batch), Side(net, having, batch), found.steps)
        results[case] = {**figures, "goal": goal}
        share = figures["added_us"] / (10 * figures["step_ms"])
        lines.append(
            f"{case}: {figures['ratio']:.4f} (thirds {figures['thirds']}), goal {goal}; the weights alone add "
            f"{figures['added_us']:.1f} us to {figures['step_ms']:.1f} ms, {share:.3f} %"
        )
    sys.stdout.write(json.dumps(results) + "\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
