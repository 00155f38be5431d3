"""What a user sees of a run: live progress, log lines and TensorBoard curves. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from traiNNer.utils.logging import get_logger

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from torch.utils.tensorboard import SummaryWriter


class Speed:
    """Iterations and images per second of this session, validation and saving left out."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._iterations = self._images = 0
        self._waited = 0.0
        self.total_iterations = 0
        self.total_seconds = 0.0

    def step(self, images: int, waited: float) -> None:
        """Count one iteration; `waited` is how many seconds it waited for data."""
        self._iterations += 1
        self._images += images
        self._waited += waited

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        self.total_seconds += time.perf_counter() - self._since
        self.total_iterations += self._iterations

    def take(self) -> tuple[float, float, float]:
        """(iterations per second, images per second, share of the time spent waiting for data) since the last call."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        result = self._iterations / seconds, self._images / seconds, min(1.0, self._waited / seconds)
        self.pause()
        self.restart()
        return result

    def restart(self) -> None:
        """Start the clock again, with nothing counted."""
        self._since = time.perf_counter()
        self._iterations = self._images = 0
        self._waited = 0.0

    def remaining(self, iterations: int) -> float | None:
        """Seconds that this many iterations take at this session's speed, None before the first measurement."""
        return None if self.total_iterations == 0 else iterations * self.total_seconds / self.total_iterations


class Reporter:
    """Terminal, log and TensorBoard of one process; on ranks other than 0 it does nothing.

    Args:
        console: where the live line goes; None for silence.
        tensorboard: folder of the curves, or None.
        start_iter: last iteration done before this session; later points of an earlier session are purged.
        total_iter: length of the run in iterations.
        enabled: False on ranks other than 0.
    """

    def __init__(
        self,
        *,
        console: Console | None,
        tensorboard: Path | None,
        start_iter: int,
        total_iter: int,
        enabled: bool = True,
    ) -> None:
        self._tensorboard = tensorboard if enabled else None
        self._start_iter, self._total_iter = start_iter, total_iter
        self._writer: SummaryWriter | None = None
        self._progress = _make_progress(console) if enabled and console is not None and console.is_terminal else None
        self._task = (
            self._progress.add_task("", total=total_iter, completed=start_iter, text="") if self._progress else None
        )

    def __enter__(self) -> Reporter:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def iteration(self, iteration: int) -> None:
        """Move the live line; costs next to nothing."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=iteration)

    def training(
        self, iteration: int, epoch: int, values: Mapping[str, float], learning_rates: Mapping[str, float], speed: Speed
    ) -> None:
        """The line of a `print_freq`, and its curves."""
        per_second, images, waiting = speed.take()
        left = speed.remaining(self._total_iter - iteration)
        shown = "  ".join(f"{label} {value:.4g}" for label, value in values.items())
        rates = "  ".join(f"lr {name} {rate:.2e}" for name, rate in learning_rates.items())
        pace = f"{per_second:.2f} it/s  {images:.1f} img/s  data {waiting:.0%}"
        text = f"{pace}  left {duration(left)}  {shown}  {rates}"
        get_logger().info("[iter %s/%s, epoch %d] %s", f"{iteration:,}", f"{self._total_iter:,}", epoch, text)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, text=text)
        scalars = {name if "/" in name else f"loss/{name}": value for name, value in values.items()}
        self.scalars(scalars | {f"lr/{name}": rate for name, rate in learning_rates.items()}, iteration)

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        """Add points to TensorBoard's curves."""
        if self._tensorboard is not None:
            for name, value in values.items():
                self._open().add_scalar(name, value, iteration)

    def flush(self) -> None:
        """Write the curves out, so that a killed run keeps them."""
        if self._writer is not None:
            self._writer.flush()

    def _open(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # a second at import: not before the first point

            self._writer = SummaryWriter(str(self._tensorboard), purge_step=self._start_iter + 1)
        return self._writer


def _make_progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn  # only a terminal needs it

    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[text]}"),
    )
    return Progress(*columns, console=console, transient=True, refresh_per_second=4)


def log_table(title: str, rows: Sequence[tuple[str, str]], console: Console | None) -> None:
    """Write a two-column table: drawn on a terminal, plain lines in the log file and elsewhere."""
    logger = get_logger()
    if console is None or not console.is_terminal:
        logger.info("%s\n%s", title, _plain(rows))
        return
    from rich.table import Table
    from rich.text import Text  # names may hold what looks like markup

    table = Table(title=Text(title), show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for handler in logger.handlers:
        if hasattr(handler, "baseFilename"):  # the file gets the text, the terminal has the drawing
            handler.handle(logger.makeRecord(logger.name, 20, "", 0, "%s\n%s", (title, _plain(rows)), None))


def _plain(rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def duration(seconds: float | None) -> str:
    """`1:02:03`, or `?` when it is not known."""
    if seconds is None:
        return "?"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"


def figure(value: float) -> str:
    """A metric with four decimals, or four digits where it is small: `31.4159`, `0.0001234`."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.1 else f"{value:.4g}"
