"""Cost of the spectral losses, measured side by side in one run.

    spectrum    a step with L1 and the spectrum error against one with L1 alone         goal: at most 1.15
    field       a step with the field error against one with MSE                        goal: at most 1.02
    scheduler   a step whose two losses a loss scheduler moves against one without it   goal: at most 1.01
    memory      peak of a process that takes the first of those steps, against L1's     goal: at most 1.10
    binning     the spectrum error at 128 px, forward and backward, against an          goal: at least 4 times
                implementation that masks bin after bin                                       as fast

Both sides of a ratio take turns (A B B A), so that whatever else the machine does meets both.

    python benchmarks/spectrum_loss.py --network paragonsr2_nano
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loss_schedule import L1, Cases, Side, child, compare, peak_memory
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.archs import build_network
from traiNNer.losses import build_loss
from traiNNer.losses.flexible_loss_scheduler import FlexibleLossScheduler, SchedulerParams
from traiNNer.models.loss_schedulers import LossSchedulers

SPECTRUM = {"type": "spectrumerrorloss", "loss_weight": 0.1}
CASES: Cases = {
    "spectrum": ([L1], [L1, SPECTRUM], 1.15),
    "field": ([{"type": "mseloss", "loss_weight": 1.0}], [{"type": "fielderrorloss", "loss_weight": 1.0}], 1.02),
}


def masked_spectrum_error(output: Tensor, target: Tensor) -> Tensor:
    """The spectrum error of (B, C, H, W) as it is usually written: a full transform, and a mask for each bin."""
    height, width = output.shape[-2:]
    side = min(height, width)
    y, x = torch.fft.fftfreq(height) * side, torch.fft.fftfreq(width) * side
    radius = torch.hypot(y[:, None], x)
    logs: list[Tensor] = []
    for field in (output.mean(dim=1), target.mean(dim=1)):
        power, found = torch.fft.fft2(field).abs() ** 2, []
        for k in range(1, side // 2 + 1):
            mask = ((radius >= k - 0.5) & (radius < k + 0.5)).float()
            mean = (power * mask).sum(dim=(-2, -1)) / mask.sum()
            found.append(mean * math.pi * ((k + 0.5) ** 2 - (k - 0.5) ** 2))
        logs.append(torch.log(torch.stack(found, dim=-1) + 1e-10))
    ours, theirs = logs
    return ((ours - theirs).square().mean(dim=-1) / (theirs.square().mean(dim=-1) + 1e-10)).mean()


def scheduler_overhead(net: torch.nn.Module, batch: dict[str, Any], steps: int) -> dict[str, Any]:
    """A step of L1 and MSE against the same with a scheduler that has given half the weight to MSE."""
    losses = [L1, {"type": "mseloss", "loss_weight": 1.0}]
    options = {"initial_weight_source": 0.5, "initial_weight_target": 0.5}
    params = SchedulerParams.model_validate({"source_loss": "l1loss", "target_loss": "mseloss", **options})
    moved = Side(net, losses, batch, LossSchedulers([FlexibleLossScheduler(params)]))
    return {**compare(Side(net, losses, batch), moved, steps), "goal": 1.01}


def seconds(loss: Callable[[Tensor, Tensor], Tensor], output: Tensor, target: Tensor) -> float:
    """Of a value and its gradient."""
    output = output.detach().requires_grad_()
    start = time.perf_counter()
    loss(output, target).backward()
    return time.perf_counter() - start


def binning(batch: int, rounds: int, size: int = 128) -> dict[str, Any]:
    """How many times as fast as masks, with equal values."""
    target = torch.rand(batch, 3, size, size)
    output = target + 0.1 * torch.randn(target.shape)
    ours = build_loss({"type": "spectrumerrorloss", "floor": 0.0})
    plain = float(masked_spectrum_error(output, target))
    pairs = [(seconds(masked_spectrum_error, output, target), seconds(ours, output, target)) for _ in range(rounds)]
    return {
        "faster": round(statistics.median(theirs / mine for theirs, mine in pairs[2:]), 2),
        "ms": [round(1000 * statistics.median(times), 3) for times in zip(*pairs[2:], strict=True)],
        "difference": abs(float(ours(output, target)) / plain - 1),
        "goal": 4.0,
    }


def main() -> None:
    """Measure and print one JSON line and some for people."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="paragonsr2_nano")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lq_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60, help="of each side of a ratio")
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
    results: dict[str, Any] = {"benchmark": "spectrum_loss", "network": found.network, "gt_size": 2 * size}
    lines: list[str] = []
    if sys.platform != "win32":  # first: a process begins with the peak of the one that started it
        kib = [peak_memory(__file__, "spectrum", side, found) for side in (0, 1)]
        results["memory"] = {"ratio": round(kib[1] / kib[0], 4), "kib": kib, "goal": 1.10}
        lines.append(f"memory: {kib[1] / kib[0]:.4f} ({kib[0] / 1024:.0f} to {kib[1] / 1024:.0f} MiB), goal 1.10")
    for case, (without, having, goal) in CASES.items():
        figures = compare(Side(net, without, batch), Side(net, having, batch), found.steps)
        results[case] = {**figures, "goal": goal}
        lines.append(
            f"{case}: {figures['ratio']:.4f} of a step of {figures['step_ms']:.1f} ms "
            f"(thirds {figures['thirds']}), goal {goal}"
        )
    results["scheduler"] = figures = scheduler_overhead(net, batch, 3 * found.steps)
    lines.append(
        f"scheduler: {figures['ratio']:.4f} (thirds {figures['thirds']}), goal 1.01; weights and phases alone add "
        f"{figures['added_us']:.0f} us to {figures['step_ms']:.1f} ms"
    )
    results["binning"] = figures = binning(found.batch, found.steps)
    lines.append(
        f"binning: {figures['faster']:.1f} times as fast as masks, {figures['ms'][0]:.1f} to {figures['ms'][1]:.2f} ms "
        f"(values differ by {figures['difference']:.0e}), goal {figures['goal']:g}"
    )
    sys.stdout.write(json.dumps(results) + "\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
