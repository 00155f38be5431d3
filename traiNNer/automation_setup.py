"""The automations of a run: built and started while everything is checked, put to work when the trainer is built."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from traiNNer.component_checks import given_by_validations
from traiNNer.controls import RunControls
from traiNNer.data.measures import Measures, measure_dataset
from traiNNer.data.train_loader import AUTO_ITERATIONS, TrainLoader
from traiNNer.losses.base import LossKind
from traiNNer.losses.term import Term
from traiNNer.reporting import log_table
from traiNNer.training_automations.base import BatchFacts, LossFacts, ObservesMemory, RunFacts
from traiNNer.training_automations.calibration import describe
from traiNNer.training_automations.guard import Guarded
from traiNNer.training_automations.journal import Journal, Scalars
from traiNNer.training_automations.manager import AutomationManager
from traiNNer.utils import dist
from traiNNer.utils.images import ImageError
from traiNNer.utils.logging import get_logger
from traiNNer.utils.memory import cap_allocator, memory_reader
from traiNNer.utils.registry import AUTOMATIONS

if TYPE_CHECKING:
    from rich.console import Console

    from traiNNer.findings import Findings
    from traiNNer.models.sr_model import SRModel
    from traiNNer.monitor import StepMonitor
    from traiNNer.preparation import Prepared

STEADY: frozenset[LossKind] = frozenset({"pixel", "structure", "frequency"})
"""Kinds of losses that fall as long as a network learns to reconstruct."""

GRAPH_MODES = ("reduce-overhead", "max-autotune")
"""Modes of torch.compile that record CUDA graphs, each for one size of a batch."""

FILE = "automations.jsonl"

KNOWN = 0.05
"""Seconds in which nothing is measured: the result was kept."""

LOSSES, BATCHES = "dynamic_loss_scheduling", "dynamic_batch_size_optimizer"


@dataclass
class Automations:
    """Those that are on, by the names of their sections, and what they were told of the run."""

    guarded: dict[str, Guarded] = field(default_factory=dict[str, Guarded])
    facts: RunFacts = field(default_factory=lambda: RunFacts(total_iter=1))

    @property
    def recovers(self) -> bool:
        """Whether steps that do not fit into memory are run again in pieces."""
        return any(isinstance(each.automation, ObservesMemory) for each in self.guarded.values())


def build_automations(run: Prepared, findings: Findings) -> Automations:
    """Build and start the automations of the option file; what they have to say becomes the run's notices."""
    active: Mapping[str, Mapping[str, Any]] = run.train.training_automations.active
    if not active or "net_g" not in run.nets or "train" not in run.datasets:
        return Automations()
    built = Automations()
    with findings.at(f"train.training_automations.{BATCHES}"):  # some systems need a package to read their memory
        built.facts = _facts(run, memory_reader(run.device).read().total if BATCHES in active else 0)
    for key, options in active.items():
        with findings.at(f"train.training_automations.{key}"):
            own = {name: value for name, value in options.items() if name not in ("enabled", "max_adjustments")}
            if key == "intelligent_learning_rate_scheduler" and own.get("monitor_metric") is None:
                metric = active.get("intelligent_early_stopping", {}).get("monitor_metric")
                own["monitor_metric"] = metric if metric in built.facts.better else None
            guarded = Guarded(AUTOMATIONS.build(own), options.get("max_adjustments"))
            run.notices += guarded.start(built.facts)
            built.guarded[key] = guarded
    return built


def _facts(run: Prepared, total_memory: int) -> RunFacts:
    terms = {label: Term(label, loss) for label, loss in run.losses.items()}
    entries = {entry["name"]: entry for entry in run.train.losses or ()}
    section = run.options.datasets["train"]
    batch_size, images = section.batch_size_per_gpu or 1, len(run.datasets["train"])
    ratio = section.dataset_enlarge_ratio
    epoch = images * (max(AUTO_ITERATIONS * batch_size // images, 1) if ratio == "auto" else ratio)
    better = given_by_validations(run.datasets if run.val is not None else {}, run.losses, run.metrics)
    features = [label for label, metric in run.metrics.items() if getattr(metric, "perceptual", False)]
    adversarial = [max(term.schedule.start_iter, 1) for term in terms.values() if term.adversarial]
    graphs = run.options.use_compile and run.options.compile_mode in GRAPH_MODES and run.device.type == "cuda"
    return RunFacts(
        total_iter=run.train.total_iter,
        first_iteration=1 if run.resume is None else run.resume.iteration + 1,
        parameters=sum(each.numel() for each in run.nets["net_g"].parameters()),
        val_freq=run.val.val_freq or 0 if run.val is not None else 0,
        iterations_per_epoch=math.ceil(epoch / (batch_size * section.accum_iter * dist.world_size())),
        better=better,
        perceptual=frozenset(name for name in better if name.partition("/")[2] in features),
        adversarial_from=min(adversarial, default=None),
        trend_losses=frozenset(label for label, term in terms.items() if _is_trend(term)),
        has_schedule=run.rates["net_g"].scheduler is not None if "net_g" in run.rates else False,
        batch=BatchFacts(
            size=batch_size,
            accum_iter=section.accum_iter,
            images=images // dist.world_size(),
            total_memory=total_memory,
            fixed=f"compile_mode {run.options.compile_mode} records CUDA graphs" if graphs else "",
        ),
        losses={
            label: LossFacts(
                kind=term.loss.kind, share=entries[label].get("share"), fixed=bool(entries[label].get("fixed"))
            )
            for label, term in terms.items()
        },
    )


def _is_trend(term: Term) -> bool:
    """Whether a loss's value says whether training goes on; those in dB, below 0, have no relative gain."""
    return term.loss.kind in STEADY and term.loss.minimum is not None and term.loss.minimum >= 0


def calibrate(run: Prepared, console: Console | None) -> None:
    """Measure the training images of a run that begins, if its losses are to be calibrated by them, and say so."""
    guarded = run.automations.guarded.get(LOSSES)
    if guarded is None or run.resume is not None or not dist.is_main():
        return
    options = run.train.training_automations.active[LOSSES]
    if not options["auto_calibrate"]:
        return
    with guarded.doing("calibration"):
        _calibrate(run, guarded, console)


def _calibrate(run: Prepared, guarded: Guarded, console: Console | None) -> None:
    began = time.perf_counter()
    found = _measured(run)
    if isinstance(found, str):
        get_logger().warning("Automation %s: not calibrated: %s", guarded.name, found)
        return
    facts = replace(run.automations.facts, measures=found.medians.by_name())
    rows = describe(facts.measures, facts.losses)
    shown = [(row.measure, f"{row.found} (usual {row.reference}): {row.follows}") for row in rows]
    title = f"training images: {found.crops} crops of {found.images} files"
    seconds = time.perf_counter() - began
    when = "known from an earlier run" if seconds < KNOWN else f"measured in {seconds:.1f} s"
    log_table(f"{title}, {when}", shown, console)
    guarded.start(facts)


def _measured(run: Prepared) -> Measures | str:
    """What the training images are like, or why that is not known."""
    try:
        cache = run.paths.experiment.parent / ".cache"
        return measure_dataset(run.datasets["train"], seed=run.seed, cache_folder=cache)
    except ImageError as error:
        return str(error)


def put_to_work(
    run: Prepared, model: SRModel, loader: TrainLoader, monitor: StepMonitor, scalars: Scalars, console: Console | None
) -> AutomationManager | None:
    """The manager of a run's automations, which model and monitor report to; None for a run without any."""
    automations = run.automations
    if not automations.guarded:
        return None
    calibrate(run, console)
    if automations.recovers and (capped := cap_allocator(run.device)):
        get_logger().info(capped)
    manager = AutomationManager(
        automations.guarded,
        controls=RunControls(model, loader, run.train.total_iter),
        journal=Journal(run.paths.experiment / FILE if dist.is_main() else None, scalars),
        run=automations.facts,
        values=monitor,
        memory=memory_reader(run.device) if automations.recovers else None,
        coupled=model.batch_coupled,
    )
    model.observe(manager)
    monitor.listener = manager.observations.read
    model.gradient_shares.request(manager.samples_gradients)
    return manager
