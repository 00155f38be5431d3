"""A run of train.py: check everything, open its folders, say what it is, train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from traiNNer import __version__
from traiNNer.assembly import build_trainer
from traiNNer.cli import TrainArguments
from traiNNer.config import DatasetOptions, Options, TrainOptions
from traiNNer.config.automations import clip_threshold
from traiNNer.inference import network_info
from traiNNer.lr_finder import STEPS, find_lr, plot, report
from traiNNer.preparation import Prepared, folders_of, prepare
from traiNNer.rates import Rate
from traiNNer.reporting import log_table
from traiNNer.run_folders import move_away
from traiNNer.utils import dist
from traiNNer.utils.checkpoint_files import set_aside_newer
from traiNNer.utils.device import describe_device
from traiNNer.utils.device_check import unusable_gpu_warning
from traiNNer.utils.errors import ConfigError, RunError
from traiNNer.utils.logging import configure_logging, get_logger, make_console
from traiNNer.utils.run_lock import RunLock
from traiNNer.utils.weight_schedule import WeightSchedule

if TYPE_CHECKING:
    from rich.console import Console

SWITCHES = ("use_channels_last", "use_compile", "fast_matmul", "deterministic", "detect_anomaly")
"""Options that the start-up table lists when they are on."""


def train(arguments: TrainArguments) -> int:
    """Train as the command line asks; returns the exit code.

    Raises:
        ConfigError: mistakes in the option file or in what it names (exit code 2); nothing has been written.
        RunError: the run cannot go on (exit code 1).
    """
    try:
        _train(arguments)  # what it built is gone when it returns: the process group outlives those who use it
        dist.barrier()
        return 0
    except RunError as error:
        get_logger().debug("the run ended: %s", error)  # the terminal gets it as the program's last words
        raise
    finally:
        dist.stop()


def _train(arguments: TrainArguments) -> None:
    run = prepare(arguments)
    console = make_console() if dist.is_main() else None
    if arguments.check:
        configure_logging(console)
        _announce(run, console)
        get_logger().info("%s: no mistakes found", arguments.option_file)
        return
    if arguments.find_lr:
        configure_logging(console)
        _find_lr(run, arguments, console)
        return
    archived = _open(run) if dist.is_main() else None
    lock = RunLock(run.paths.experiment)
    if dist.is_main():
        lock.take()
        run.headers.write()
    dist.barrier()
    configure_logging(console, run.paths.log / "train.log" if dist.is_main() else None)
    if archived is not None:
        run.notices.append(f"an earlier run of this name was moved to {archived}")
    if run.resume is not None and run.continues and dist.is_main():
        aside = set_aside_newer(folders_of(run.paths), run.resume.iteration)
        run.notices += [f"newer checkpoints of this run are set aside: {', '.join(aside)}"] if aside else []
    trainer, resumed = build_trainer(run, arguments, console)
    _announce(run, console, resumed)
    run.losses.clear()  # the model has them, and lets go of those that end with the memory of their networks
    try:
        trainer.train()
    finally:
        lock.release()


def _find_lr(run: Prepared, arguments: TrainArguments, console: Console | None) -> None:
    """Test learning rates where the run would start or go on; the plot is all that is written."""
    trainer, resumed = build_trainer(run, arguments, console)
    _announce(run, console, resumed)
    optimizer, iteration = run.optimizers["net_g"], trainer.iteration + 1
    if type(optimizer).__name__.lower().startswith("prodigy"):
        get_logger().warning("Prodigy finds its step size itself, and lr is a factor on it: a range test means little")
    get_logger().info("range test of net_g's learning rate at iteration %s, twice %d steps", f"{iteration:,}", STEPS)
    curve = find_lr(trainer.model, trainer.loader, iteration)
    picture = run.paths.experiment.parent / "find_lr" / f"{run.paths.experiment.name}.png"
    try:
        plot(curve, picture, f"{run.options.name}, iteration {iteration:,}")
    except OSError as error:
        message = f"the plot cannot be written: {error}"
        raise ConfigError(run.options.problem("path.experiments_root", message)) from None
    get_logger().info(report(curve, picture))


def _open(run: Prepared) -> Path | None:
    try:
        return _open_folders(run)
    except OSError as error:
        key = "path.experiments_root"
        raise ConfigError(run.options.problem(key, f"the run's folder cannot be made: {error}")) from None


def _open_folders(run: Prepared) -> Path | None:
    """Make the run's folders; an earlier run of the same name is moved away unless it is resumed."""
    paths = run.paths
    archived = None if run.continues else move_away(paths.experiment)
    for folder in (paths.experiment, paths.models, paths.resume_models, paths.training_states, paths.log):
        folder.mkdir(parents=True, exist_ok=True)
    (paths.experiment / Path(run.options.file).name).write_text(run.options.text, encoding="utf-8")
    return archived


def _announce(run: Prepared, console: Console | None, resumed: Sequence[str] = ()) -> None:
    """The head of the log: where the run starts, what was noticed, and what it is."""
    logger = get_logger()
    if run.resume is not None:
        logger.info("resumed from iteration %s of %s", f"{run.resume.iteration:,}", run.resume.path)
    warning = unusable_gpu_warning() if run.device.type == "cpu" and run.options.num_gpu != 0 else None
    if warning is not None:
        logger.warning(warning)
    for notice in [*resumed, *run.notices]:
        logger.info(notice)
    log_table(f"{run.options.name} (traiNNer {__version__}, torch {torch.__version__})", describe(run), console)


def describe(run: Prepared) -> list[tuple[str, str]]:
    """The rows of the start-up table."""
    options, section = run.options, run.options.datasets["train"]
    processes = dist.world_size()
    batch = (section.batch_size_per_gpu or 1) * section.accum_iter * processes
    images = len(run.datasets["train"])
    iterations, guarded = run.train.total_iter, run.automations.guarded.values()
    return [
        (
            "device",
            f"{describe_device(run.device)}, {processes} process{'es' if processes > 1 else ''}, {run.precision}",
        ),
        ("switches", _switches_row(options)),
        ("seed", str(run.seed)),
        *((name.replace("net_", "network_"), _network_row(net)) for name, net in run.nets.items()),
        *((f"data {key}", _facts_row(dataset.describe())) for key, dataset in run.datasets.items()),
        *((f"loading {key}", _loading_row(options.datasets[key])) for key in run.datasets),
        ("effective batch", f"{_batch_row(section)} x {processes} (processes) = {batch} images"),
        ("length", f"{iterations:,} iterations, {iterations * batch / images:,.1f} passes{_epoch_row(section)}"),
        *((f"loss {label}", _loss_row(loss.schedule)) for label, loss in run.losses.items()),
        *((f"optimizer {name}", _optimizer_row(run.train, name)) for name in run.nets),
        *((f"learning rate {name}", _rate_row(run.rates[name])) for name in run.nets),
        ("EMA", _ema_row(run.train)),
        ("validation", _validation_row(run)),
        ("metrics", _metrics_row(run)),
        *([("automations", ", ".join(each.name for each in guarded))] if guarded else []),
        *([("samples", f"every {run.sample_freq:,} iterations")] if run.sample_freq else []),
        ("folder", str(run.paths.experiment)),
    ]


def _facts_row(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _loading_row(section: DatasetOptions) -> str:
    workers = section.num_worker_per_gpu
    if not workers:
        return "in the training process"
    pinned = ", pinned memory" if section.pin_memory else ""
    kept = ", workers kept" if section.persistent_workers else ""
    return f"{workers} workers, {section.prefetch_factor} batches ahead each{pinned}{kept}"


def _epoch_row(section: DatasetOptions) -> str:
    ratio = section.dataset_enlarge_ratio
    return " over the images" if ratio == "auto" else f" over the images; an epoch is {ratio} of them"


def _batch_row(section: DatasetOptions) -> str:
    return f"{section.batch_size_per_gpu} (batch_size_per_gpu) x {section.accum_iter} (accum_iter)"


def _loss_row(schedule: WeightSchedule) -> str:
    """When a loss acts, and with which weights."""
    if schedule.knots:
        weight = ", ".join(f"{weight:g} at {at:,}" for at, weight in schedule.knots)
    elif schedule.target_iter is not None and schedule.target_iter > schedule.start_iter:
        end = schedule.value(schedule.target_iter) or schedule.target_weight or 0.0
        weight = f"{schedule.loss_weight:g} to {end:g} at {schedule.target_iter:,} ({schedule.schedule_type})"
    else:
        weight = f"{schedule.loss_weight if schedule.target_weight is None else schedule.target_weight:g}"
    parts = [f"weight {weight}"]
    parts += [f"from {schedule.start_iter:,}"] if schedule.start_iter > 1 else []
    parts += [] if schedule.disable_after is None else [f"until {schedule.disable_after:,}"]
    parts += ["against the enlarged LQ"] if schedule.negative else []
    if schedule.discriminator_start_iter is not None:
        parts.append(f"net_d trains from {schedule.trains_discriminator_from:,}")
    return ", ".join(parts)


def _optimizer_row(train: TrainOptions, name: str) -> str:
    options = train.optim_g if name == "net_g" else train.optim_d
    norm = clip_threshold(train)
    clip = "" if norm is None else f", gradient norm clipped at {norm:g}"
    rest = ", rests while the adversarial loss rises" if name == "net_d" and train.adaptive_d else ""
    return _component_row(options) + clip + rest


def _ema_row(train: TrainOptions) -> str:
    if not train.ema_decay:
        return "off"
    return f"decay {train.ema_decay:g}, power {train.ema_power:g}, from iteration {train.ema_update_after_step + 1:,}"


def _validation_row(run: Prepared) -> str:
    if run.val is None:
        return "off"
    tiles = f", in tiles of {run.val.tile_size} px overlapping by {run.val.tile_overlap}" if run.val.tile_size else ""
    return f"every {run.val.val_freq:,} iterations{tiles}"


def _metrics_row(run: Prepared) -> str:
    return "; ".join(f"{label}: {metric.describe()}" for label, metric in run.metrics.items()) or "none"


def _switches_row(options: Options) -> str:
    names = [name for name in SWITCHES if getattr(options, name)]
    return ", ".join(f"{name} ({options.compile_mode})" if name == "use_compile" else name for name in names) or "none"


def _network_row(net: nn.Module) -> str:
    info = network_info(net)
    trained = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    scale = f" x{info.scale}" if info.scale > 1 else ""
    channels = f", {info.in_channels} channels" if info.in_channels != 3 else ""
    return f"{info.type}{scale}{channels}, {trained:,} trainable parameters"


def _component_row(options: Mapping[str, Any] | None) -> str:
    if options is None:
        return "constant"
    return ", ".join(
        [
            str(options["type"]),
            *(f"{key} {value}" for key, value in options.items() if key != "type" and value is not None),
        ]
    )


def _rate_row(rate: Rate) -> str:
    warmup = f", warm-up over {rate.warmup_iter:,} iterations" if rate.warmup_iter > 0 else ""
    return f"{rate.lr:g}, {_component_row(rate.scheduler)}{warmup}"
