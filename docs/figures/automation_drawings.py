"""What an automation did in a run, as a picture; see automations.py."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED, GREEN, ORANGE, GREY, LIGHT = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#777777", "#c4c4c4"
GIB = 2**30
TICK = 10
"""Iterations between two readings of memory."""

Curve = dict[int, float]


@dataclass(frozen=True)
class Written:
    """What a run wrote."""

    options: dict[str, Any]
    decisions: list[dict[str, Any]]
    curves: dict[str, Curve]
    readings: list[dict[str, float]]

    @property
    def section(self) -> dict[str, Any]:
        """Of the one automation."""
        return next(iter(self.options["train"]["training_automations"].values()))

    def changes(self, what: str) -> list[dict[str, Any]]:
        """Decisions that changed something."""
        return [line for line in self.decisions if line["what"] == what]


def steps(run: Written, what: str, start: float, end: int) -> tuple[list[int], list[float]]:
    """A value over a run: what it was at the start, and from each decision on."""
    changes = run.changes(what)
    at = [0, *(line["iteration"] for line in changes), end]
    values = [start, *(line["to"] for line in changes)]
    return at, [*values, values[-1]]


def line(axes: Any, curve: Curve, **style: Any) -> None:
    """A curve over iterations."""
    at = sorted(curve)
    axes.plot(at, [curve[each] for each in at], **style)


def smoothed(curve: Curve, width: int) -> Curve:
    """Mean of so many neighbouring points."""
    at, half = sorted(curve), width // 2
    return {
        at[index]: statistics.fmean(curve[each] for each in at[index - half : index + half + 1])
        for index in range(half, len(at) - half)
    }


def legend(axes: Any, where: str = "upper left", columns: int = 1) -> None:
    """Beside the axes, so that it hides nothing."""
    place = (0, 1.0) if where == "above" else (1.01, 1.0)
    box = "lower left" if where == "above" else "upper left"
    axes.legend(
        fontsize=9, frameon=False, loc=box, bbox_to_anchor=place, ncols=columns, borderaxespad=0.2, handlelength=1.5
    )


def panels(count: int, height: float, ratios: list[float]) -> tuple[Figure, Any]:
    """A figure 800 px wide with panels below each other, over iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for each in axes:
        each.grid(color="#e8e8e8", linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
        each.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes[-1].set_xlabel("iteration")
    return figure, axes


def learning_rate(run: Written) -> Figure:
    """The rate with its cuts, and the loss."""
    figure, (upper, lower) = panels(2, 5.4, [1, 1.2])
    line(
        upper,
        run.curves["lr/net_g"],
        color=BLUE,
        linewidth=2,
        drawstyle="steps-post",
        label="scheduled rate (constant) x factor",
    )
    upper.set_ylabel("learning rate")
    loss = run.curves["loss/l1loss"]
    line(lower, loss, color=LIGHT, linewidth=0.7, label="mean of 10 iterations")
    line(lower, smoothed(loss, 41), color="black", linewidth=1.8, label="mean of 410")
    lower.set_yscale("log")
    middle = statistics.median(loss.values())
    lower.set_ylim(0.6 * middle, 2.2 * middle)
    lower.set_yticks([0.01, 0.015, 0.02, 0.03], ["0.010", "0.015", "0.020", "0.030"], minor=False)
    lower.minorticks_off()
    lower.set_ylim(0.6 * middle, 2.2 * middle)
    lower.set_ylabel("training loss (L1)")
    colors = {"plateau detection": RED, "divergence": "#AA3377", "steady improvement": GREEN}
    told: set[str] = set()
    for change in run.changes("learning_rate_factor"):
        reason = change["reason"]
        color = colors.get(reason, GREY)
        for axes in (upper, lower):
            text = f"{reason}: x {change['to'] / change['from']:.2f}" if axes is upper and reason not in told else None
            axes.axvline(change["iteration"], color=color, linewidth=1.2, linestyle=":", label=text)
        told.add(reason)
        place = (change["iteration"], run.options["train"]["optim_g"]["lr"] * change["from"])
        upper.annotate(f" {change['to']:.2f}", place, va="bottom", fontsize=10, color=color)
    legend(upper, "above", 3)
    upper.set_ylim(0, 1.25 * max(run.curves["lr/net_g"].values()))
    legend(lower, "above", 2)
    return figure


def batch_size(run: Written) -> Figure:
    """The size, and the memory that it follows."""
    figure, (upper, lower) = panels(2, 6, [1, 1.3])
    end = run.options["train"]["total_iter"]
    start = run.options["datasets"]["train"]["batch_size_per_gpu"]
    upper.plot(*steps(run, "batch_size", start, end), color=BLUE, linewidth=2, drawstyle="steps-post")
    marks = {
        "free VRAM": (GREEN, "^", "memory is free"),
        "lower throughput": (ORANGE, "v", "lower throughput"),
        "high VRAM usage": (RED, "v", "high memory use"),
    }
    for reason, (color, marker, text) in marks.items():
        found = [each for each in run.changes("batch_size") if each["reason"] == reason]
        if found:
            at, values = [each["iteration"] for each in found], [each["to"] for each in found]
            upper.plot(at, values, marker, color=color, markersize=8, label=text)
    upper.set_ylabel("images of a micro-batch")
    upper.yaxis.get_major_locator().set_params(integer=True)
    upper.set_ylim(bottom=0)
    legend(upper, "above", 3)
    at = [TICK * number for number in range(len(run.readings))]
    own = [each["reserved"] / GIB for each in run.readings]
    others = [(each["used"] - each["reserved"]) / GIB for each in run.readings]
    total = run.readings[0]["total"] / GIB
    lower.stackplot(
        at, others, own, colors=(LIGHT, BLUE), alpha=0.8, labels=("other programs", "this run, at its most")
    )
    target = run.section["target_vram_usage"]
    limit = target - run.section["safety_margin"]
    lower.axhline(target * total, color=RED, linewidth=1.6, label="target_vram_usage: shrinks above")
    lower.axhline(limit * total, color=GREEN, linewidth=1.6, linestyle="--", label="less safety_margin: grows below")
    most = max(range(len(others)), key=others.__getitem__)
    lower.annotate(
        "another program takes memory ",
        (at[most], others[most]),
        (-30, 18),
        textcoords="offset points",
        ha="right",
        fontsize=10,
        arrowprops={"arrowstyle": "->"},
    )
    lower.set_ylabel("memory in use, GiB")
    lower.set_ylim(0.75 * min(others), 1.06 * max(target * total, *(a + b for a, b in zip(own, others, strict=True))))
    legend(lower, "above", 2)
    return figure


def gradient_clipping(run: Written) -> Figure:
    """Norms, and the threshold over them."""
    figure, (axes,) = panels(1, 4.6, [1])
    norms = run.curves["grad_norm/net_g"]
    axes.plot(list(norms), list(norms.values()), ".", color=GREY, markersize=2.5, label="gradient norm of a step")
    start = run.section.get("initial_threshold", 1.0)
    end = run.options["train"]["total_iter"]
    axes.plot(
        *steps(run, "clip_threshold/net_g", start, end),
        color=BLUE,
        linewidth=2,
        drawstyle="steps-post",
        label="clipping threshold",
    )
    notes = [each for each in run.decisions if each["reason"] == "exploding gradients"]
    at = [max(range(each["iteration"] - 9, each["iteration"] + 1), key=lambda i: norms.get(i, 0.0)) for each in notes]
    axes.plot(
        at,
        [norms[each] for each in at],
        "x",
        color=RED,
        markersize=9,
        markeredgewidth=2,
        label='told as "exploding gradients"',
    )
    for shift in (each for each in run.changes("clip_threshold/net_g") if each["reason"] == "level shift"):
        axes.annotate(
            "level shift: a second loss\nhas switched on",
            (shift["iteration"], shift["to"]),
            (-14, 16),
            textcoords="offset points",
            ha="right",
            fontsize=9.5,
            color=BLUE,
            arrowprops={"arrowstyle": "->", "color": BLUE},
        )
    axes.set_yscale("log")
    axes.set_ylabel("norm, log scale")
    legend(axes, "above", 3)
    return figure


def early_stopping(run: Written) -> Figure:
    """The metric, its best, the patience and the stop."""
    figure, (axes,) = panels(1, 4.4, [1])
    metric = run.curves["val/psnr"]
    line(axes, metric, color=BLUE, linewidth=1.4, marker=".", markersize=5, label="val/psnr, a validation every 50")
    (stop,) = run.changes("stop")
    evidence, warmup = stop["evidence"], run.section["warmup_iterations"]
    since = stop["iteration"] - evidence["iterations"]
    axes.axvspan(0, warmup, color=LIGHT, alpha=0.5, linewidth=0, label="warm-up, does not count")
    axes.axvspan(since, stop["iteration"], color=ORANGE, alpha=0.2, linewidth=0, label="patience runs")
    enough = metric[since] + run.section["min_improvement"]
    axes.plot([since, stop["iteration"]], [enough] * 2, "--", color=ORANGE, label="more would be an improvement")
    axes.plot(
        [evidence["best_iteration"]], [evidence["best"]], "*", color=GREEN, markersize=15, label="best weights kept"
    )
    axes.axvline(stop["iteration"], color=RED, linewidth=2)
    text = f"stopped at {stop['iteration']:,} \nof {run.options['train']['total_iter']:,}: {stop['reason']} "
    top = max(metric.values())
    axes.set_ylim(top - 3, top + 0.25)
    axes.text(stop["iteration"], top - 2.8, text, color=RED, ha="right", fontsize=10)
    axes.set_xlim(0, 1.02 * stop["iteration"])
    axes.set_ylabel("PSNR-Y, dB")
    legend(axes, "above", 3)
    return figure


def dynamic_loss(run: Written) -> Figure:
    """Shares at each adjustment with their targets, and the weights."""
    figure, (upper, lower) = panels(2, 6, [1.2, 1])
    colors = {"spectrumerrorloss": RED, "mssimloss": GREEN}
    end = run.options["train"]["total_iter"]
    for label, color in colors.items():
        changes = run.changes(f"loss_factor/{label}")
        (entry,) = [each for each in run.options["train"]["losses"] if each["type"] == label]
        target = changes[-1]["evidence"]["target"]
        origin = "given" if "share" in entry else "what its weight gave at first"
        upper.plot(
            [each["iteration"] for each in changes],
            [each["evidence"]["share"] for each in changes],
            "o",
            color=color,
            markersize=5,
            label=f"{label}: share found",
        )
        upper.axhline(target, color=color, linewidth=1.4, linestyle="--", label=f"target {target:.2g}, {origin}")
        at, factors = steps(run, f"loss_factor/{label}", 1.0, end)
        weights = [entry["loss_weight"] * factor for factor in factors]
        lower.plot(at, weights, color=color, linewidth=2, drawstyle="steps-post", label=label)
    upper.set_ylabel("share of the gradient,\nrelative to L1's, log scale")
    lower.set_ylabel("weight in the total,\nlog scale")
    for axes in (upper, lower):
        axes.set_yscale("log")
    legend(upper, "above", 2)
    legend(lower, "above", 2)
    return figure


DRAWINGS: dict[str, Callable[[Written], Figure]] = {
    "learning_rate": learning_rate,
    "batch_size": batch_size,
    "gradient_clipping": gradient_clipping,
    "early_stopping": early_stopping,
    "dynamic_loss": dynamic_loss,
}
