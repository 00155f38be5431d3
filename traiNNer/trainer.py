"""The loop of a run: data, step, log, validate, save, stop. It knows no loss, network or automation by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from traiNNer.best import BestValues
from traiNNer.data import TrainLoader
from traiNNer.interrupts import StopRequest, stop_on_signal
from traiNNer.models.sr_model import SRModel
from traiNNer.monitor import StepMonitor
from traiNNer.reporting import Reporter, Speed, duration, figure
from traiNNer.samples import Samples
from traiNNer.training_automations.manager import AutomationManager
from traiNNer.types import Batch
from traiNNer.utils import dist
from traiNNer.utils.checkpoint import Checkpoint, SaveError
from traiNNer.utils.errors import ConfigError, RunError
from traiNNer.utils.images import ImageError
from traiNNer.utils.logging import get_logger
from traiNNer.validation import ValidationReport, Validator

SAVE_ATTEMPTS = 3
"""This many failed saves in a row end the run."""

LISTED_IMAGES = 20
"""Validation sets up to this size are listed image by image at the end of a run."""

AGREE_EVERY = 10
"""Several processes agree on a stop every so many iterations."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """When things happen, in iterations (0 for never), and what a stopped run leaves behind."""

    total_iter: int
    print_freq: int
    save_freq: int
    val_freq: int = 0
    sample_freq: int = 0
    resume_command: str = ""
    """What the last line of a stopped run tells the user to type."""
    options_text: str = ""
    """Resolved options, written into every checkpoint."""


class Trainer:
    """Drives a model from its present iteration to the last.

    Args:
        model: networks and losses.
        loader: endless source of micro-batches.
        validators: one for each validation set; the first one's metrics are `val/<metric>`.
        checkpoint: tracks everything that changes.
        reporter: what the user sees.
        monitor: reads the steps' values.
        best: best value of each metric.
        settings: when things happen.
        iteration: iterations done already (a resumed run).
        automations: tune the run, and may end it.
        per_rank: states that differ between processes, gathered before a save.
        samples: pictures of the validation images, written after a save.
    """

    def __init__(
        self,
        *,
        model: SRModel,
        loader: TrainLoader,
        validators: Sequence[Validator],
        checkpoint: Checkpoint,
        reporter: Reporter,
        monitor: StepMonitor,
        best: BestValues,
        settings: TrainerSettings,
        iteration: int = 0,
        automations: AutomationManager | None = None,
        per_rank: Sequence[dist.PerRank] = (),
        samples: Samples | None = None,
    ) -> None:
        self.iteration = iteration
        self._model, self._loader, self._validators = model, loader, list(validators)
        self._checkpoint, self._reporter, self._monitor, self._best = checkpoint, reporter, monitor, best
        self._settings, self._automations, self._per_rank, self._samples = settings, automations, per_rank, samples
        self._saved_at = iteration
        self._failed_saves = 0
        self._speed = Speed()

    @property
    def model(self) -> SRModel:
        """What is trained."""
        return self._model

    @property
    def loader(self) -> TrainLoader:
        """Where its data comes from."""
        return self._loader

    def train(self) -> None:
        """Run to the last iteration, or until a signal asks to stop.

        Raises:
            RunError: the run cannot go on (exit code 1).
        """
        started = time.perf_counter()
        with stop_on_signal() as stop, self._reporter:
            try:
                if self._automations is not None:
                    self._automations.begin(self.iteration)
                self._loop(stop)
                self._finish(stop, started)
            except RunError as error:
                raise RunError(f"{error}{self._way_on}") from None
            except BaseException:
                self._save_after_crash()
                raise
            finally:
                self._loader.close()

    def _loop(self, stop: StopRequest) -> None:
        self._speed.restart()
        while self.iteration < self._settings.total_iter and not self._stopped_early and not self._agreed(stop):
            if self._automations is not None:
                self._automations.before_iteration()
            before = time.perf_counter()
            batches = self._loader.next_batches()
            waited = time.perf_counter() - before
            self.iteration += 1
            self._model.feed_data(batches)
            self._announce_phases()
            self._model.optimize_parameters(self.iteration)
            self._monitor.add(self.iteration, self._model.record, _files(batches), self._model.learning_rates)
            self._monitor.note(_faults(self.iteration, batches))
            self._speed.step(sum(len(batch["lq"]) for batch in batches) * dist.world_size(), waited)
            self._reporter.iteration(self.iteration)
            if self._automations is not None:
                self._automations.after_iteration(self.iteration)
            if self._due(self._settings.print_freq):
                self.log()
            if self._due(self._settings.val_freq):
                self._outside_training(self._validate_or_save)
            if self._due(self._settings.save_freq):
                self._outside_training(self.save)
            if self._settings.sample_freq and self.iteration % self._settings.sample_freq == 0:
                self._outside_training(self.sample)

    @property
    def _stopped_early(self) -> bool:
        """Whether an automation has asked for the end of the run; all processes know at the same iteration."""
        return self._automations is not None and bool(self._automations.stopped)

    def _announce_phases(self) -> None:
        self._announce(self._model.phases(self.iteration), self.iteration)

    def _announce(self, lines: Sequence[str], iteration: int) -> None:
        """Say how the losses' weights change, and when."""
        for line in lines:
            get_logger().info("[iter %s] %s", f"{self.iteration:,}", line)
        if lines and self._automations is not None:
            self._automations.phase(iteration, "losses")

    def _due(self, interval: int) -> bool:
        return interval > 0 and (self.iteration % interval == 0 or self.iteration == self._settings.total_iter)

    def _agreed(self, stop: StopRequest) -> bool:
        """Whether all processes stop here; asked of the others only now and then, because it is an exchange."""
        if dist.world_size() == 1:
            return bool(stop)
        if self.iteration % AGREE_EVERY:
            return False
        names = [name for name in dist.all_gather_objects(stop.signal_name) if name]
        stop.signal_name = names[0] if names else ""
        return bool(stop)

    def log(self) -> None:
        """Read the values of the last steps and show their means.

        The last line of a run can show a part of an interval; its sums are kept for a resume that goes on.
        """
        whole = self._settings.print_freq > 0 and self.iteration % self._settings.print_freq == 0
        values = self._monitor.means(anew=whole)
        values |= {f"lr_effective/{name}": rate for name, rate in self._model.effective_learning_rates.items()}
        self._log_reports()
        self._reporter.training(self.iteration, self._loader.epoch, values, self._model.learning_rates, self._speed)
        weights = {f"loss_weight/{label}": weight for label, weight in self._model.loss_weights.items()}
        if not self._validators:  # otherwise a validation writes them
            weights |= self._model.loss_schedulers.scalars()
        self._reporter.scalars(weights, self.iteration)

    def _log_reports(self) -> None:
        for line in self._monitor.reports():
            get_logger().warning(line)
        for line in self._monitor.overflows():
            get_logger().info(line)

    def validate(self) -> None:
        """Validate on every set; weights that are the best by a metric are kept."""
        metrics: dict[str, float] = {}
        losses: dict[str, float] = {}
        self._model.average_buffers()
        for number, validator in enumerate(self._validators, 1):
            prefix = "val" if number == 1 else f"val_{number}"
            with self._model.evaluation_weights():
                report = validator.run(self._model.net_val, self.iteration)
            values = report.values if report.loss is None else {**report.values, "loss": report.loss}
            losses = losses or report.losses
            metrics |= {f"{prefix}/{name}": value for name, value in values.items()}
            self._note_best(prefix, validator, report.values)
            get_logger().info(self._validation_line(prefix, validator, report))
            if self.iteration == self._settings.total_iter:
                _log_images(report)
        for line in self._model.after_validation(metrics, self.iteration):
            get_logger().info("[iter %s] %s", f"{self.iteration:,}", line)
        moves = self._model.update_loss_scheduler({**losses, **metrics}, self.iteration)
        self._announce(moves, self.iteration + 1)
        self._reporter.scalars({**metrics, **self._model.loss_schedulers.scalars()}, self.iteration)
        if self._automations is not None:
            self._automations.after_validation(metrics, self.iteration)
        self._reporter.flush()

    def _validate_or_save(self) -> None:
        """Validate; if that cannot be done, what was trained is saved before the run ends."""
        try:
            self.validate()
        except (RunError, ConfigError, ImageError) as error:
            self.save()
            raise RunError(f"validation at iteration {self.iteration} failed: {error}") from error

    def _note_best(self, prefix: str, validator: Validator, values: dict[str, float]) -> None:
        for name, value in values.items():
            metric = f"{prefix}/{name}"
            if self._best.update(metric, value, self.iteration, validator.metrics[name].better):
                label = _best_label(metric)
                self._guarded(lambda label=label, value=value: self._checkpoint.save_best(label, value, self.iteration))

    def _validation_line(self, prefix: str, validator: Validator, report: ValidationReport) -> str:
        parts: list[str] = []
        for name, value in report.values.items():
            best, at = self._best[f"{prefix}/{name}"] if math.isfinite(value) else (value, self.iteration)
            baseline = validator.baseline().get(name)
            against = "" if baseline is None else f", bicubic {figure(baseline)}"
            parts.append(f"{name} {figure(value)} (best {figure(best)} at {at:,}{against})")
        work = f"{report.images} images, {report.seconds:.1f} s"
        return f"[iter {self.iteration:,}] {prefix} {validator.name}: {'  '.join(parts)}  ({work})"

    def save(self) -> None:
        """Write a checkpoint, unless this iteration has one.

        Raises:
            RunError: the third failure in a row.
        """
        if self._saved_at == self.iteration:
            return
        self._model.average_buffers()
        for state in self._per_rank:
            state.collect()
        if self._guarded(lambda: self._checkpoint.save(self.iteration, options_text=self._settings.options_text)):
            self._saved_at = self.iteration
            get_logger().info("[iter %s] saved", f"{self.iteration:,}")
        self._reporter.flush()

    def sample(self) -> None:
        """Write pictures of the validation images; one that cannot be written is reported, and the run goes on."""
        if self._samples is None:
            return
        with self._model.evaluation_weights():
            written, failures = self._samples.write(self._model.net_val, self.iteration)
        get_logger().info("[iter %s] samples written: %d", f"{self.iteration:,}", written)
        if failures:
            get_logger().error("SAMPLES FAILED (%d of %d): %s", len(failures), written + len(failures), failures[0])

    def _guarded(self, write: Callable[[], Any]) -> bool:
        """Write a file as rank 0; a failure is reported and counted, the third in a row ends the run."""
        failure = ""
        if dist.is_main():
            try:
                write()
            except SaveError as error:
                failure = str(error)
        failure = dist.broadcast_object(failure)
        self._failed_saves = self._failed_saves + 1 if failure else 0
        if failure:
            get_logger().error("SAVE FAILED (%d of %d in a row): %s", self._failed_saves, SAVE_ATTEMPTS, failure)
        if self._failed_saves >= SAVE_ATTEMPTS:
            raise RunError(f"{SAVE_ATTEMPTS} saves in a row failed: {failure}")
        return not failure

    def _outside_training(self, action: Callable[[], None]) -> None:
        """Do something that the measured speed leaves out."""
        self._speed.pause()
        action()
        if self._automations is not None:
            self._automations.after_pause()
        self._speed.restart()

    def _finish(self, stop: StopRequest, started: float) -> None:
        self._log_reports()
        self.save()
        elapsed = duration(time.perf_counter() - started)
        if stop and self.iteration < self._settings.total_iter:
            get_logger().info(
                "stopped by %s at iteration %s after %s; resume with: %s",
                stop.signal_name,
                f"{self.iteration:,}",
                elapsed,
                self._settings.resume_command,
            )
            return
        self._guarded(self._checkpoint.save_latest)
        early = f" of {self._settings.total_iter:,}, stopped early" if self._stopped_early else ""
        get_logger().info("done: %s iterations%s, %s in this session", f"{self.iteration:,}", early, elapsed)
        for metric, (value, iteration) in self._best.items():
            file = self._checkpoint.best_file(_best_label(metric))
            where = f", in {file.name}" if file.exists() else ""
            get_logger().info("best %s: %s at iteration %s%s", metric, figure(value), f"{iteration:,}", where)

    @property
    def _way_on(self) -> str:
        """What the message that ends a run adds; without a checkpoint there is nothing to resume from."""
        return f"; resume with: {self._settings.resume_command}" if self._saved_at else ""

    def _save_after_crash(self) -> None:
        """Keep what there is after an unexpected error, under a name that resuming does not prefer."""
        get_logger().debug("unexpected error", exc_info=True)  # the terminal gets the traceback from Python
        if not dist.is_main() or dist.world_size() > 1:
            return
        try:
            path = self._checkpoint.save(self.iteration, options_text=self._settings.options_text, crash=True)
            get_logger().error("unexpected error at iteration %d; state kept in %s", self.iteration, path)
        except (SaveError, RunError) as error:
            get_logger().error("unexpected error at iteration %d; no state kept: %s", self.iteration, error)


def _best_label(metric: str) -> str:
    """A metric in the name of the weights that are the best by it; the first validation set goes without saying."""
    return metric.removeprefix("val/").replace("/", "_")


def _log_images(report: ValidationReport) -> None:
    """Each image's figures against bicubic's, at the end of a run; sets of many images are left to their mean."""
    if len(report.each) > LISTED_IMAGES:
        return
    for image in report.each:
        figures = (
            f"{name} {figure(value)} (bicubic {figure(image.bicubic[name])})" for name, value in image.values.items()
        )
        picture = "" if image.picture is None else f"  {image.picture}"
        get_logger().info("  %s: %s%s", image.name, "  ".join(figures), picture)


def _faults(iteration: int, batches: Sequence[Batch]) -> list[str]:
    """A line for each image that could not be read and was replaced."""
    return [f"iteration {iteration}: replaced by another image: {line}" for batch in batches for line in batch["fault"]]


def _files(batches: Sequence[Batch]) -> list[str]:
    """The images of one iteration, for the report of a step that was not finite."""
    return [path for batch in batches for path in batch["lq_path"]]
