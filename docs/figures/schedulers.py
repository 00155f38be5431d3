"""Draw every scheduler over a run of 10,000 iterations, from the program's own schedules: docs/figures/schedulers.png.

python docs/figures/schedulers.py              # needs matplotlib
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from traiNNer.schedulers import CyclesMomentum, LearningRate, ObservesValidation, build_schedule  # noqa: E402

Options = dict[str, Any]
TOTAL_ITER, BASE_LR, VALIDATE_EVERY = 10000, 1e-3, 250
COLORS = ("#0072B2", "#D55E00")
PANELS: list[list[Options]] = [
    [{"type": "ConstantLR"}, {"type": "ConstantLR", "factor": 0.1, "total_iters": 2000}],
    [{"type": "LinearLR"}, {"type": "LinearLR", "end_factor": 0.0, "total_iters": 6000}],
    [{"type": "PolynomialLR"}, {"type": "PolynomialLR", "power": 3.0}],
    [{"type": "CosineAnnealingLR"}, {"type": "CosineAnnealingLR", "T_max": 6000, "eta_min_factor": 0.001}],
    [{"type": "ExponentialLR", "gamma": 0.9998}, {"type": "ExponentialLR", "gamma": 0.999}],
    [{"type": "StepLR"}, {"type": "StepLR", "step_size": 2500, "gamma": 0.5}],
    [{"type": "MultiStepLR", "milestones": [4000, 7000, 9000], "gamma": 0.5}],
    [
        {
            "type": "MultiStepRestartLR",
            "milestones": [1500, 3000, 6500, 8000],
            "gamma": 0.5,
            "restarts": [0, 5000],
            "restart_weights": [1, 0.7],
        }
    ],
    [
        {"type": "CosineAnnealingWarmRestarts", "T_0": 2500},
        {"type": "CosineAnnealingWarmRestarts", "T_0": 1500, "T_mult": 2},
    ],
    [{"type": "CosineAnnealingRestartLR", "periods": [2000, 3000, 4000], "restart_weights": [1, 0.7, 0.4]}],
    [{"type": "OneCycleLR"}, {"type": "OneCycleLR", "anneal_strategy": "linear", "three_phase": True}],
    [
        {"type": "WarmupStableDecayLR", "num_warmup_steps": 500, "num_decay_steps": 3000},
        {"type": "WarmupStableDecayLR", "num_decay_steps": 6000, "cooldown_type": "cosine", "min_lr_ratio": 0.1},
    ],
    [{"type": "ReduceLROnPlateau", "factor": 0.5, "patience": 3, "threshold": 0.01}],
]
WARMED_UP: Options = {"type": "CosineAnnealingLR"}
CYCLED: Options = {"type": "OneCycleLR", "cycle_momentum": True}


def loss(iteration: int) -> float:
    """What the validations of the picture measure: a loss that falls, levels off, and falls once more."""
    return 0.03 + 0.1 * math.exp(-iteration / 700) + 0.02 / (1 + math.exp((iteration - 7500) / 150))


def factors(options: Options, warmup_iter: int = 0) -> list[float]:
    """The rate over the base rate at each iteration of the run, with validations in between."""
    import torch

    schedule = build_schedule(options, TOTAL_ITER)
    rate = LearningRate(torch.optim.SGD([torch.zeros(1)], lr=BASE_LR), schedule, warmup_iter)
    found: list[float] = []
    for iteration in range(1, TOTAL_ITER + 1):
        found.append(rate.value(iteration, BASE_LR) / BASE_LR)
        if isinstance(schedule, ObservesValidation) and iteration % VALIDATE_EVERY == 0:
            schedule.observe(loss(iteration))
    return found


def momenta(options: Options) -> list[float]:
    """The momentum at each iteration of the run."""
    schedule = build_schedule(options, TOTAL_ITER)
    if not isinstance(schedule, CyclesMomentum):
        return []
    return [value for i in range(1, TOTAL_ITER + 1) if (value := schedule.momentum(i)) is not None]


def label(options: Options) -> str:
    """The parameters as an option file has them, one a line."""
    written = {name: json.dumps(value).strip('"') for name, value in options.items() if name != "type"}
    return "\n".join(f"{name}: {value}" for name, value in written.items()) or "defaults"


def panel(axes: Any, title: str, curves: list[tuple[str, list[float]]], top: float = 1.0) -> None:
    """One small picture: curves over iterations, each with its parameters in the legend."""
    for (text, values), color in zip(curves, COLORS, strict=False):
        axes.plot(range(1, len(values) + 1), values, color=color, linewidth=1.8, label=text)
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlim(0, TOTAL_ITER)
    axes.set_ylim(0, 1.7 * top)  # room for the legend above the curves
    axes.set_yticks([0, 0.5 * top, top])
    axes.set_xticks(range(0, TOTAL_ITER + 1, 2500), ["0", "2.5k", "5k", "7.5k", "10k"])
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=8, loc="upper right", frameon=False, ncols=2, borderaxespad=0.1, columnspacing=0.8, handlelength=1.2
    )


def main() -> int:
    """Write the picture and say so."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(5, 3, figsize=(12, 15), layout="constrained")
    places = iter(axes.flat)
    for curves in PANELS:
        panel(next(places), curves[0]["type"], [(label(options), factors(options)) for options in curves])
    warm = [("warmup_iter: 1500", factors(WARMED_UP, 1500)), ("without", factors(WARMED_UP))]
    panel(next(places), f"warm-up x {WARMED_UP['type']}", warm)
    panel(next(places), f"{CYCLED['type']}: momentum", [(label(CYCLED), momenta(CYCLED))])
    figure.supxlabel("iteration", fontsize=11)
    figure.supylabel("rate over base rate (last picture: momentum)", fontsize=11)
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=90)
    print(f"wrote {path.relative_to(ROOT)}, {path.stat().st_size // 1000} kB")  # noqa: T201 - a program's output
    return 0


if __name__ == "__main__":
    sys.exit(main())
