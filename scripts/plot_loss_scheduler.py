"""Draw what the loss schedulers of a run did: `python scripts/plot_loss_scheduler.py experiments/NAME`.

One column for each scheduler, over the iterations: the multipliers of source and target, the weights of the losses that
they move, and the watched value. Each adaptation is a line, with its reason from the log below. The run may be going
on; what it resumed from is joined. Without --save the picture is loss_scheduler.png in the run's folder.

Exit code: 0 drawn, 2 there is nothing to draw.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.utils.errors import ConfigError

SOURCE, TARGET, OTHER = "#0072B2", "#D55E00", "#666666"

Curve = dict[int, float]
"""Iteration to value."""


@dataclass
class Move:
    """What one scheduler did."""

    name: str
    curves: dict[str, Curve]
    """`weight_source`, `weight_target`, `progress`, and `monitored` where something is watched."""
    source: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    monitor: str = ""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why it moved, by iteration."""

    @property
    def adaptations(self) -> list[int]:
        """Iterations at which progress has risen since the point before."""
        points = sorted(self.curves["progress"].items())
        return [at for (_, before), (at, now) in pairwise(points) if now > before]


def read(folder: Path) -> tuple[list[Move], dict[str, Curve]]:
    """The moves of a run, and the weights of its losses by label.

    Raises:
        ConfigError: there is no such run, or it has no loss scheduler.
    """
    events = folder / "tb_logger"
    if not events.is_dir():
        reason = "accepted: the folder of a run with use_tb_logger: true, such as experiments/NAME"
        raise ConfigError(f"found no tb_logger in {folder}; {reason}")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(events), size_guidance={"scalars": 0})
    found.Reload()
    curves = {tag: {point.step: point.value for point in found.Scalars(tag)} for tag in found.Tags()["scalars"]}
    names = sorted({tag.partition("/")[0] for tag in curves if re.fullmatch(r"loss_scheduler(_\d+)?/progress", tag)})
    if not names:
        reason = "accepted: one with train.loss_scheduler that has validated at least once"
        raise ConfigError(f"the run {folder} has logged no loss scheduler; {reason}")
    moves = [Move(name, _below(curves, name)) for name in names]
    log = folder / "train.log"
    if log.is_file():
        _read_log(log.read_text(encoding="utf-8"), moves)
    return moves, _below(curves, "loss_weight")


def _below(curves: dict[str, Curve], name: str) -> dict[str, Curve]:
    return {tag.removeprefix(f"{name}/"): curve for tag, curve in curves.items() if tag.startswith(f"{name}/")}


def _read_log(text: str, moves: list[Move]) -> None:
    """Names and reasons; of an iteration that was run twice, the last line counts."""
    starts = re.findall(r"loss scheduler: from (.*) to (.*), multipliers .* (?:(?:on \w+ of (\S+))|by schedule)", text)
    for move, (source, target, monitor) in zip(moves, starts[-len(moves) :], strict=False):
        move.source, move.target, move.monitor = source.split(", "), target.split(", "), monitor
    for move in moves:
        title = move.name.replace("_", " ")
        lines = re.findall(rf"\[iter ([\d,]+)\] {title}: (.*?)(?: \(.*\))?: progress", text)
        move.reasons = {int(at.replace(",", "")): reason for at, reason in lines}


def draw(moves: Sequence[Move], weights: dict[str, Curve], path: Path, title: str = "") -> None:
    """Write the picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5 * len(moves), 8), layout="constrained")
    grid = figure.subplots(3, len(moves), squeeze=False, sharex="col", height_ratios=(1, 1.2, 1.2))
    for column, move in enumerate(moves):
        multipliers, effective, watched = grid[:, column]
        _multipliers(multipliers, move)
        _weights(effective, move, weights)
        _watched(watched, move)
        for axes in grid[:, column]:
            for at in move.adaptations:
                axes.axvline(at, color="#bbbbbb", linewidth=0.7, zorder=0)
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        watched.set_xlabel(f"iteration\n{_summary(move)}")
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=90)


def _multipliers(axes: Any, move: Move) -> None:
    for name, color, labels in (("source", SOURCE, move.source), ("target", TARGET, move.target)):
        text = f"{name}: {', '.join(labels)}" if labels else name
        _steps(axes, move.curves[f"weight_{name}"], color=color, label=text)
    axes.set_ylabel("multiplier")
    axes.set_ylim(bottom=0)
    axes.set_title(move.name.replace("_", " "), loc="left", fontweight="bold")
    axes.legend(frameon=False, fontsize=9)


def _weights(axes: Any, move: Move, weights: dict[str, Curve]) -> None:
    """The moved losses' weights in the total; logarithmic where they are of other orders."""
    colors = {**dict.fromkeys(move.source, SOURCE), **dict.fromkeys(move.target, TARGET)}
    shown = {name: curve for name, curve in weights.items() if name in colors or name.replace("_", "/", 1) in colors}
    for number, (name, curve) in enumerate(sorted((shown or weights).items())):
        style = ("-", "--", ":", "-.")[number % 4]
        _steps(axes, curve, color=colors.get(name, OTHER), linestyle=style, label=name)
    values = [abs(value) for curve in (shown or weights).values() for value in curve.values() if value]
    if values and max(values) > 50 * min(values):
        axes.set_yscale("symlog", linthresh=min(values))
    axes.set_ylabel("weight in the total")
    axes.legend(frameon=False, fontsize=9)


def _watched(axes: Any, move: Move) -> None:
    curve = move.curves.get("monitored", {})
    if curve:
        axes.plot(*zip(*sorted(curve.items()), strict=True), color=OTHER, marker=".", linewidth=1.2)
        values = list(curve.values())
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_yscale("log")
    else:
        axes.text(0.5, 0.5, "nothing is watched: moved by its schedule", ha="center", transform=axes.transAxes)
    axes.set_ylabel(f"{move.monitor or 'watched value'}, smoothed" if curve else "")


def _steps(axes: Any, curve: Curve, **style: Any) -> None:
    axes.plot(*zip(*sorted(curve.items()), strict=True), drawstyle="steps-post", linewidth=1.8, **style)


def _summary(move: Move) -> str:
    """How often it moved, and why."""
    counts = Counter(reason for at, reason in move.reasons.items() if at in move.adaptations)
    text = ", ".join(f"{reason} {count} times" if count > 1 else f"{reason} once" for reason, count in counts.items())
    count = len(move.adaptations)
    return f"{count} {'adaptation' if count == 1 else 'adaptations'}{f': {text}' if text and move.monitor else ''}"


def main(argv: Sequence[str] | None = None) -> int:
    """Read the run, write the picture and say where it is."""
    parser = argparse.ArgumentParser(
        prog="plot_loss_scheduler.py", description="Draw what the loss schedulers of a run did, from its logs."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run, such as experiments/NAME")
    parser.add_argument("--save", type=Path, metavar="FILE", help="picture to write (.png, .svg, .pdf)")
    found = parser.parse_args(argv)
    moves, weights = read(found.run)
    path = found.save or found.run / "loss_scheduler.png"
    try:
        draw(moves, weights, path, title=found.run.name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--save: {path} cannot be written: {error}") from None
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    from traiNNer.cli import ending_with_message

    sys.exit(ending_with_message(main))
