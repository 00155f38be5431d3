"""Draw what the loss schedulers of a run did: multipliers, effective weights, the watched value, adaptations.

    python scripts/plot_loss_scheduler.py experiments/NAME                  experiments/NAME/loss_scheduler.png
    python scripts/plot_loss_scheduler.py experiments/NAME --save out.pdf   any format that matplotlib writes

It reads the run's TensorBoard files and its train.log, also while the run goes on. A run that was resumed is one run:
points that a session took back are left out. Each scheduler has a row; its adaptations are listed on the terminal.

Exit code: 0 drawn, 2 there is nothing to draw.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from traiNNer.utils.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = dict[int, float]
"""Iteration to value."""

SOURCE, TARGET, GREY = "#0072B2", "#D55E00", "#777777"
OTHERS = (SOURCE, TARGET, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = {"plateau": ("#555555", ":"), "worse": ("#AA3377", "--"), "point": ("#228833", "-."), "pause": ("#CCBB44", "-")}
"""Colour and line of a mark, by what it says."""
LISTED = 6
"""Weights of so many losses are told apart in one picture."""

START = re.compile(
    r"INFO[:\]] loss scheduler: (?:from (.+?), multipliers .+? (?:by schedule|on \w+ of (.+))|off, the .*)$"
)
ITERATION = re.compile(r"\[iter ([\d,]+)[/\]]")
SESSION = re.compile(r"INFO[:\]] (?:resumed from iteration ([\d,]+) of |starting fresh)")
ADAPTATION = re.compile(r"\[iter ([\d,]+)\] (loss scheduler(?: \d+)?): (.+): progress ([\d.]+), source")
PAUSE = re.compile(r"loss scheduler \((.+?)\): (\d+ adaptations without improvement; paused .*)$")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that a scheduler did."""

    iteration: int
    kind: str
    """A key of `MARKS`."""
    text: str
    progress: float | None = None


@dataclass(kw_only=True)
class Told:
    """What a run's log says of one scheduler."""

    names: str = ""
    """Such as `l1loss to spectrumerrorloss`."""
    watched: str = ""
    """The monitored value's name; empty with trigger iteration."""
    marks: dict[int, Mark] = field(default_factory=dict)


@dataclass(kw_only=True)
class Row:
    """One scheduler of a run."""

    name: str
    told: Told
    curves: dict[str, Curve]
    """`weight_source`, `weight_target`, `progress`, `monitored`."""
    weights: dict[str, Curve]
    """Effective weights by label."""
    measured: Curve
    """The watched value as validations gave it, where TensorBoard has it."""
    marks: list[Mark]


def read_scalars(folder: Path) -> dict[str, Curve]:
    """Every curve of a folder of event files; where sessions overlap, the later one counts.

    Raises:
        ConfigError: a file that is not TensorBoard's, or is damaged.
    """
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

    curves: dict[str, Curve] = {}
    paths = folder.glob("events.out.tfevents.*")
    for path in sorted(paths, key=lambda path: (path.name.split(".")[3], path.stat().st_mtime_ns)):
        try:
            for event in LegacyEventFileLoader(str(path)).Load():
                if event.session_log.status == SessionLog.START:
                    for curve in curves.values():
                        for step in [step for step in curve if step >= event.step]:
                            del curve[step]
                for value in event.summary.value:
                    if value.WhichOneof("value") == "simple_value":
                        curves.setdefault(value.tag, {})[event.step] = value.simple_value
        except Exception as error:  # noqa: BLE001 - protobuf's and TensorBoard's own kinds, which have no common root
            raise ConfigError(f"{path} is not a TensorBoard file, or is damaged: {error}") from None
    return curves


def read_log(path: Path) -> dict[str, Told]:
    """What the log says of each scheduler; what a session did is forgotten where a later one began before it."""
    told: dict[str, Told] = {}
    if not path.exists():
        return told
    iteration = count = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := ITERATION.search(line):
            iteration, count = number(found[1]), 0
        if found := SESSION.search(line):
            count = 0
            take_back(told, number(found[1] or "0"))
        elif found := START.search(line):
            count += 1  # they are named in the order of the option file, before the first iteration
            entry = told.setdefault("loss_scheduler" if count == 1 else f"loss_scheduler_{count}", Told())
            if found[1]:  # a scheduler that is off keeps the names that it had
                entry.names, entry.watched = found[1], found[2] or ""
        elif found := ADAPTATION.search(line):
            mark = Mark(iteration=iteration, kind=kind(found[3]), text=found[3], progress=float(found[4]))
            told.setdefault(found[2].replace(" ", "_"), Told()).marks[iteration] = mark
        elif found := PAUSE.search(line):
            for entry in (entry for entry in told.values() if entry.names == found[1]):
                entry.marks[iteration] = Mark(iteration=iteration, kind="pause", text=found[2])
    return told


def take_back(told: dict[str, Told], iteration: int) -> None:
    """Forget what happened after an iteration: the run went on from there."""
    for entry in told.values():
        entry.marks = {at: mark for at, mark in entry.marks.items() if at <= iteration}


def number(text: str) -> int:
    """`12,000` as 12000."""
    return int(text.replace(",", ""))


def kind(reason: str) -> str:
    """Which of `MARKS` a reason of the log is."""
    return "plateau" if reason.startswith("plateau") else "point" if reason.startswith("iteration") else "worse"


def read_run(folder: Path) -> list[Row]:
    """The schedulers of a run.

    Raises:
        ConfigError: there are none.
    """
    if not folder.is_dir():
        raise ConfigError(f"found no folder {folder}; accepted: the folder of a run, such as experiments/NAME")
    events = next((each for each in (folder / "tb_logger", folder) if any(each.glob("events.out.tfevents.*"))), None)
    if events is None:
        raise ConfigError(f"found no TensorBoard files in {folder}; accepted: a run with logger.use_tb_logger: true")
    curves = read_scalars(events)
    names = sorted({tag.partition("/")[0] for tag in curves if re.match(r"loss_scheduler(_\d+)?/", tag)}, key=order)
    if not names:
        reason = "accepted: one with train.loss_scheduler that has validated at least once"
        raise ConfigError(f"the run {folder} has logged no loss scheduler; {reason}")
    told = read_log(folder / "train.log")
    return [make_row(name, told.get(name, Told()), curves) for name in names]


def order(name: str) -> int:
    """The number of a scheduler in its option file, from 1."""
    return int(name.removeprefix("loss_scheduler").removeprefix("_") or 1)


def make_row(name: str, told: Told, curves: dict[str, Curve]) -> Row:
    """What there is of one scheduler."""
    own = {tag.partition("/")[2]: curve for tag, curve in curves.items() if tag.partition("/")[0] == name}
    weights = {tag.partition("/")[2]: curve for tag, curve in curves.items() if tag.startswith("loss_weight/")}
    labels = [each.replace("/", "_") for each in re.split(", | to ", told.names)] if told.names else list(weights)
    watched = {"val_loss": "val/loss"}.get(told.watched, told.watched)
    measured = curves.get(watched, curves.get(f"val/{watched}", {})) if watched else {}
    return Row(
        name=name,
        told=told,
        curves=own,
        weights={label: weights[label] for label in labels if label in weights},
        measured=measured,
        marks=marks_of(told, own.get("progress", {})),
    )


def marks_of(told: Told, progress: Curve) -> list[Mark]:
    """What the scheduler did, by the log; by the curve where there is none."""
    if told.marks or told.names:
        return [mark for _, mark in sorted(told.marks.items())]
    return [
        Mark(iteration=at, kind="plateau", text="no log says why", progress=progress[at])
        for before, at in pairwise(sorted(progress))
        if progress[at] > progress[before]
    ]


def draw(rows: list[Row], title: str = "") -> Figure:
    """The picture: a row for each scheduler."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        words = (title, row.name.replace("_", " "), row.told.names)
        part.suptitle(": ".join(filter(None, words)), x=0.01, ha="left", fontweight="bold", fontsize=11)
        left, middle, right = part.subplots(1, 3, sharex=True)
        draw_multipliers(left, row)
        draw_weights(middle, row)
        draw_watched(right, row)
        for axes in (left, middle, right):
            draw_marks(axes, row.marks, named=axes is left)
            axes.set_xlabel("iteration")
            axes.grid(color="#e4e4e4", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", loc="best")
    return figure


def line(axes: Any, curve: Curve, **style: Any) -> None:
    """A curve over iterations."""
    at = sorted(curve)
    axes.plot(at, [curve[each] for each in at], **style)


def by_points(row: Row) -> bool:
    """Whether the iteration alone says how far it is, so that weights change at every iteration."""
    return any(mark.kind == "point" for mark in row.marks)


def draw_multipliers(axes: Any, row: Row) -> None:
    """Multipliers and progress: what a validation decides holds until the next one."""
    style = {"drawstyle": "default" if by_points(row) else "steps-post"}
    line(axes, row.curves.get("weight_source", {}), **style, color=SOURCE, linewidth=2, label="source")
    line(axes, row.curves.get("weight_target", {}), **style, color=TARGET, linewidth=2, label="target")
    line(axes, row.curves.get("progress", {}), **style, color=GREY, linewidth=1, label="progress", zorder=1)
    axes.set_title("multipliers", loc="left", fontsize=10)
    axes.set_ylim(bottom=0)


def draw_weights(axes: Any, row: Row) -> None:
    """Effective weights, schedule times multiplier: a point has the weight since the one before it."""
    style = {"drawstyle": "default" if by_points(row) else "steps-pre"}
    shown = list(row.weights.items())[:LISTED]
    for (label, curve), color in zip(shown, OTHERS, strict=False):
        line(axes, curve, **style, color=color, linewidth=2, label=label)
    left_out = len(row.weights) - len(shown)
    values = [abs(value) for _, curve in shown for value in curve.values() if value]
    if values and max(values) > 50 * min(values):
        axes.set_yscale("symlog", linthresh=min(values))
    axes.set_title("effective weights" + (f" ({left_out} more)" if left_out else ""), loc="left", fontsize=10)
    axes.set_ylim(bottom=0)


def draw_watched(axes: Any, row: Row) -> None:
    """The watched value, smoothed as the scheduler sees it, and as measured."""
    smoothed = row.curves.get("monitored", {})
    if not smoothed:
        by_iterations = row.told.names and not row.told.watched
        text = "nothing is watched:\nprogress follows the iterations" if by_iterations else "nothing is observed yet"
        axes.text(
            0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, backgroundcolor="white"
        )
        axes.set_yticks([])
        axes.set_title("watched value", loc="left", fontsize=10)
        return
    if row.measured:
        line(axes, row.measured, color="#bbbbbb", linewidth=1, marker=".", markersize=3, label="measured")
    line(axes, smoothed, color="#000000", linewidth=1.8, label="as the scheduler sees it")
    values = [value for value in smoothed.values() if math.isfinite(value)]
    if values and 0 < 20 * min(values) < max(values):
        axes.set_yscale("log")
    axes.set_title(f"watched: {row.told.watched or 'value'}", loc="left", fontsize=10)


def draw_marks(axes: Any, marks: list[Mark], *, named: bool) -> None:
    """A vertical line for each thing the scheduler did; with their meaning in the legend where `named`."""
    for kind_of, (color, style) in MARKS.items():
        found = [mark for mark in marks if mark.kind == kind_of]
        if not found:
            continue
        reason = re.sub(r" \(.*", "", found[0].text)
        meaning = {"point": "point of the schedule", "pause": "pause"}.get(kind_of, reason)
        axes.vlines(
            [mark.iteration for mark in found],
            0,
            1,
            transform=axes.get_xaxis_transform(),
            colors=color,
            linestyles=style,
            linewidth=1,
            alpha=0.7,
            zorder=0.5,
            label=meaning if named else None,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Draw, and list the adaptations; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="plot_loss_scheduler.py", description="Draw what the loss schedulers of a run did, from its logs."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run, such as experiments/NAME")
    parser.add_argument("--save", type=Path, metavar="FILE", help="picture to write: .png, .svg, .pdf")
    found = parser.parse_args(argv)
    path = found.save or found.run / "loss_scheduler.png"
    rows = read_run(found.run)
    try:
        draw(rows, title=found.run.resolve().name).savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--save: {path} cannot be written: {error}") from None
    for row in rows:
        print(f"{row.name}: {row.told.names or 'no log says what it moves'}")
        for mark in row.marks:
            after = "" if mark.progress is None else f": progress {mark.progress:.2f}"
            print(f"  {mark.iteration:>9,}  {mark.text}{after}")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    from traiNNer.cli import ending_with_message

    sys.exit(ending_with_message(main))
