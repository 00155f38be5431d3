"""From an option file to a run that can start: everything is checked and built, nothing is written.

Mistakes found here (devices, folders, images, weights, checkpoints) carry file and line of the option they concern,
and all of them are reported together.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from traiNNer import field_checks
from traiNNer.archs import build_network
from traiNNer.automation_setup import Automations, build_automations
from traiNNer.cli import TrainArguments
from traiNNer.component_checks import (
    build_metrics,
    check_crops,
    check_deterministic,
    check_deterministic_loss,
    check_discriminator,
    check_momentum,
    check_monitor,
    check_needs,
    check_validation_images,
    discriminator_notice,
    given_by_validations,
)
from traiNNer.config import LogOptions, Options, RunPaths, TrainOptions, ValOptions, load_options, run_paths
from traiNNer.data import HeaderCache, build_dataset, check_datasets, normalization_of
from traiNNer.findings import Findings
from traiNNer.inference import network_info
from traiNNer.loss_scheduler_checks import build_loss_schedulers, describe
from traiNNer.losses import BuiltLoss, build_losses
from traiNNer.losses.flexible_loss_scheduler import FlexibleLossScheduler
from traiNNer.losses.term import Term
from traiNNer.optimizers import build_optimizer
from traiNNer.rates import Rate, choose_rates
from traiNNer.run_folders import check_folders, refuse_foreign_files
from traiNNer.schedulers import CyclesMomentum, ObservesValidation, build_schedule
from traiNNer.types import Metric, Normalization
from traiNNer.utils import dist
from traiNNer.utils.checkpoint import (
    Checkpoint,
    CheckpointFolders,
    ResumePoint,
    check_networks,
    find_iteration,
    find_state,
    latest_complete,
)
from traiNNer.utils.device import Precision, configure_backends, resolve_device, resolve_precision
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.rng import seed_everything
from traiNNer.utils.run_lock import RunLock
from traiNNer.utils.weights import load_into, read_weights

Section = TypeVar("Section")


@dataclass(kw_only=True)
class Prepared:
    """A checked run, built up to the point where files are written."""

    options: Options
    device: torch.device
    precision: Precision = field(default_factory=Precision)
    seed: int = 0
    resume: ResumePoint | None = None
    nets: dict[str, nn.Module] = field(default_factory=dict)
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    """By the name of their network."""
    rates: dict[str, Rate] = field(default_factory=dict)
    """What each network's learning rate follows from."""
    losses: dict[str, BuiltLoss] = field(default_factory=dict)
    loss_schedulers: list[FlexibleLossScheduler] = field(default_factory=list)
    automations: Automations = field(default_factory=Automations)
    datasets: dict[str, Any] = field(default_factory=dict)
    headers: HeaderCache = field(default_factory=HeaderCache)
    """Of the data sets' images; written when the run starts."""
    metrics: dict[str, Metric] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def paths(self) -> RunPaths:
        """Where the run's files go."""
        return run_paths(self.options)

    @property
    def continues(self) -> bool:
        """Whether the run goes on in its own folder, instead of starting there afresh or from another run's state."""
        return self.resume is not None and self.resume.path.parent.resolve() == self.paths.training_states.resolve()

    @property
    def train(self) -> TrainOptions:
        """The section `train`, which an option file of train.py has."""
        return _given(self.options.train)

    @property
    def logger(self) -> LogOptions:
        """The section `logger`, which an option file of train.py has."""
        return _given(self.options.logger)

    @property
    def val(self) -> ValOptions | None:
        """The section `val`, if validation is on."""
        val = self.options.val
        return val if val is not None and val.val_enabled else None

    @property
    def channels(self) -> int:
        """Channels of the data; 3 for images, also where the training set could not be made."""
        return self.datasets["train"].channels if "train" in self.datasets else 3

    @property
    def normalization(self) -> Normalization | None:
        """Of the fields it trains on; None for images."""
        return normalization_of(self.datasets["train"]) if "train" in self.datasets else None

    @property
    def sample_freq(self) -> int:
        """Iterations between pictures of the validation images; 0 for none."""
        val = self.options.val
        return 0 if val is None else val.samples_per_checkpoint * self.logger.save_checkpoint_freq


def _given(section: Section | None) -> Section:
    if section is None:
        raise TypeError("options loaded for training have the sections train and logger")
    return section


def join_processes(arguments: TrainArguments, options: Options) -> dist.ProcessGroup:
    """Ranks of this run's processes, from the launcher that the command line or torchrun's environment names.

    Raises:
        ConfigError: `dist: true` in a process that no launcher started.
    """
    launcher = arguments.launcher
    if launcher == "none" and dist.started_by_torchrun():
        launcher = "pytorch"
    if options.dist and launcher == "none":
        command = f"torchrun --nproc_per_node=2 {arguments.command.removeprefix('python ')}"
        raise ConfigError(Problem(message=f"found true, but torchrun did not start this process; use: {command}"))
    return dist.read_environment(launcher)


def prepare(arguments: TrainArguments) -> Prepared:
    """Check the option file and everything it names, join the other processes, and build networks and data sets.

    Raises:
        ConfigError: all mistakes found; nothing has been written.
    """
    options = load_options(
        arguments.option_file,
        overrides=arguments.overrides,
        purpose="train",
        components=arguments.optim_sched_config,
    )
    findings = Findings(options)
    run = Prepared(options=options, device=torch.device("cpu"), notices=list(options.notices))
    group = dist.ProcessGroup()
    with findings.at("dist"):
        group = join_processes(arguments, options)
    with findings.at("num_gpu"):
        run.device, notices = resolve_device(options.num_gpu, group.local_rank, group.world_size)
        run.notices += notices
        dist.start(group, run.device)
        configure_backends(run.device, deterministic=options.deterministic, fast_matmul=options.fast_matmul)
    with findings.at("path"):
        run.resume, fresh = _find_resume(options, run.paths, arguments)
        run.notices[:0] = [] if run.resume else [f"starting fresh: {fresh}"]
        if not run.continues:
            refuse_foreign_files(run.paths)
    if dist.is_main():
        with findings.at("path"):
            check_folders(options, run.paths)
            with findings.at("name"):
                RunLock(run.paths.experiment).check()
    run.seed = _choose_seed(options, run.resume)
    _build_datasets(run, findings)
    _build_losses(run, findings)
    with findings.at("network_g"):
        _build_networks(run, findings)
    with findings.at("train.scheduler"):
        run.rates, notices = choose_rates(options, run.resume, run.nets, preserve=arguments.preserve_lr)
        run.notices += notices
    if "net_d" in run.nets and "train" in run.datasets:
        with findings.at("network_d"):
            check_discriminator(run.nets["net_d"], options.datasets["train"].component.get("gt_size"), run.channels)
    _build_optimizers(run, findings)
    if run.val is not None:
        measured = [dataset for key, dataset in run.datasets.items() if key.startswith("val")]
        for index, entry in enumerate(run.train.losses or ()):
            for dataset in measured if entry["name"] in run.losses else ():
                with findings.at(f"train.losses[{index}]"):
                    check_validation_images(Term(entry["name"], run.losses[entry["name"]]), dataset)
        run.metrics = build_metrics(options, measured, findings)
    _check_schedules(run, findings)
    _build_loss_schedulers(run, findings)
    if findings.none:  # they are told facts of everything else
        run.automations = build_automations(run, findings)
    findings.raise_if_any()
    return run


def folders_of(paths: RunPaths) -> CheckpointFolders:
    """The folders that checkpoints are written to."""
    return CheckpointFolders(
        models=paths.models, resume_models=paths.resume_models, training_states=paths.training_states
    )


def _find_resume(options: Options, paths: RunPaths, arguments: TrainArguments) -> tuple[ResumePoint | None, str]:
    folders = folders_of(paths)
    if arguments.resume is not None:
        try:
            return find_iteration(folders, arguments.resume), ""
        except ConfigError as error:
            raise ConfigError([replace(problem, key="--resume") for problem in error.problems]) from None
    if not options.auto_resume and not options.path.resume_state:
        return None, "auto_resume is off and no resume_state is given"
    point, passed_over = latest_complete(folders) if options.auto_resume else (None, [])
    if point is None and options.path.resume_state:
        with _keyed("resume_state"):
            return find_state(Path(options.path.resume_state), folders), ""
    nothing = f"auto_resume found no complete checkpoint in {paths.training_states}"
    return point, "" if point else "; ".join([nothing, *passed_over])


@contextmanager
def _keyed(key: str) -> Iterator[None]:
    """Give problems without a key this one."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([replace(problem, key=problem.key or key) for problem in error.problems]) from None


def _choose_seed(options: Options, resume: ResumePoint | None) -> int:
    """The file's seed; else that of the run that is resumed; else a random one, the same on every rank."""
    if options.manual_seed is not None:
        return options.manual_seed
    saved = None if resume is None else resume.object_state("run")
    return dist.broadcast_object(secrets.randbelow(2**31)) if saved is None else saved["seed"]


def _build_losses(run: Prepared, findings: Findings) -> None:
    """Build the losses that have a weight at some iteration, and ask for what they need."""
    train = run.train
    entries = train.losses or ()
    with findings.at("train.losses"):
        run.losses = build_losses(entries, total_iter=train.total_iter)
    for index, entry in enumerate(entries):
        built = run.losses.get(entry["name"])
        if built is None:
            continue
        term = Term(entry["name"], built)
        with findings.at(f"train.losses[{index}]"):
            check_needs(run.options, train, term)
            if run.normalization is not None:
                field_checks.check_channels(term, run.channels)
            check_crops(term, run.options.datasets["train"].component.get("gt_size"), run.channels)
        if run.options.deterministic:
            with findings.at("deterministic"):
                check_deterministic_loss(term, run.device, run.channels)
        if notice := discriminator_notice(term, train.total_iter):
            key = f"train.losses[{index}].discriminator_start_iter"
            run.notices.append(str(run.options.problem(key, notice)))


def _check_schedules(run: Prepared, findings: Findings) -> None:
    """Build each network's schedule, and ask what it follows."""
    given = given_by_validations(run.datasets if run.val is not None else {}, run.losses, run.metrics)
    for name, rate in run.rates.items():
        key = f"scheduler_{name[-1]}"
        key = key if getattr(run.train, key) is not None else "scheduler"
        with findings.at(f"train.{key}"):
            schedule = build_schedule(rate.scheduler, rate.total_iter)
            if isinstance(schedule, CyclesMomentum) and name in run.optimizers:
                check_momentum(schedule, run.optimizers[name])
            if isinstance(schedule, ObservesValidation):
                check_monitor(schedule, given)
                if run.val is not None:
                    every = schedule.patience * (run.val.val_freq or 0)
                    count = "1 validation" if schedule.patience == 1 else f"{schedule.patience} validations"
                    line = f"{name}: the rate is reduced after more than {count}"
                    run.notices.append(f"{line} ({every:,} iterations) without improvement in {schedule.monitor}")


def _build_loss_schedulers(run: Prepared, findings: Findings) -> None:
    terms = {label: Term(label, loss) for label, loss in run.losses.items()}
    if any(key.startswith("val") and key not in run.datasets for key in run.options.datasets) and run.val is not None:
        return  # a set that cannot be built is a mistake of its own
    given = given_by_validations(run.datasets if run.val is not None else {}, run.losses, run.metrics)
    run.loss_schedulers = build_loss_schedulers(run.train.loss_scheduler or (), terms, given, findings)
    val_freq = run.val.val_freq or 0 if run.val is not None else 0
    for scheduler in run.loss_schedulers:
        run.notices += describe(scheduler, terms, run.train.total_iter, val_freq)


def _build_networks(run: Prepared, findings: Findings) -> None:
    options = run.options
    seed_everything(run.seed)  # every rank starts from the same weights
    data = run.datasets.get("train")
    run.nets["net_g"] = build_network(field_checks.network_options(options, "network_g", data))
    adversarial = any(Term(label, loss).adversarial for label, loss in run.losses.items())
    if options.network_d is not None and adversarial:
        with findings.at("network_d"):
            run.nets["net_d"] = build_network(field_checks.network_options(options, "network_d", data))
    elif options.network_d is not None:
        run.notices.append("network_d is not used: no loss of this run is adversarial")
    for name in run.nets:
        with findings.at("path"):
            _load_pretrained(run, name, name[-1])
        if options.deterministic:
            with findings.at("deterministic"):
                check_deterministic(name.replace("net_", "network_"), run.nets[name], run.device)
        if run.resume is not None and (name == "net_g" or name in run.resume.weights):
            with findings.at(name.replace("net_", "network_")):
                check_networks(run.resume, {name: run.nets[name]}, options.path.ignore_resume_networks or ())
    info = network_info(run.nets["net_g"])
    if data is not None:
        field_checks.check_generator_channels(info, run.channels)
    if info.scale != options.scale:
        message = f"found {info.type} of scale {info.scale}; accepted: {options.scale}, the file's scale"
        raise ConfigError(Problem(key="network_g", message=message))
    run.precision, notices = resolve_precision(
        run.device,
        use_amp=options.use_amp,
        amp_bf16=options.amp_bf16,
        supports_half=info.supports_half,
        supports_bfloat16=info.supports_bfloat16,
    )
    run.notices += notices
    run.nets["net_g"].network_info = replace(info, normalization=run.normalization)  # type: ignore[assignment]
    for net in run.nets.values():
        net.to(run.device)
        if options.use_channels_last:
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _build_optimizers(run: Prepared, findings: Findings) -> None:
    """Optimizers of the networks; to compare them with the checkpoint makes sense where the networks are right."""
    comparable = findings.none
    for name, net in run.nets.items():
        key = name.replace("net_", "optim_")
        options = getattr(run.train, key)
        if options is None:  # noted where a loss needs it
            continue
        with findings.at(f"train.{key}"):
            run.optimizers[name] = build_optimizer(options, net)
            if run.resume is not None and comparable:
                checkpoint = Checkpoint(folders_of(run.paths))
                checkpoint.track(f"optimizer/{name}", run.optimizers[name], required=True)
                checkpoint.check_fits(run.resume, run.options.path.ignore_resume_networks or ())


def _load_pretrained(run: Prepared, name: str, letter: str) -> None:
    path = getattr(run.options.path, f"pretrain_network_{letter}")
    if path is None:
        return
    key = f"pretrain_network_{letter}"
    if run.resume is not None and name in run.resume.weights:
        run.notices.append(f"path.{key} is not used: the run is resumed")
        return
    with _keyed(key):
        weights = read_weights(Path(path), param_key=getattr(run.options.path, f"param_key_{letter}"))
        strict = getattr(run.options.path, f"strict_load_{letter}")
        report = load_into(run.nets[name], weights, strict=strict, where=key)
    run.notices += [f"{name}: loaded {path}", *report.lines]
    if name == "net_g" and "train" in run.datasets:
        run.notices += field_checks.pretrained_notice(weights, run.normalization)


def _build_datasets(run: Prepared, findings: Findings) -> None:
    for key, section in run.options.datasets.items():
        phase = "train" if key.startswith("train") else "val"
        if phase == "val" and run.val is None and not run.sample_freq:
            continue
        with findings.at(f"datasets.{key}"):
            run.datasets[key] = build_dataset(
                {**section.component, "phase": phase, "scale": run.options.scale, "name": section.name}
            )
    with findings.at("datasets"):
        run.headers = HeaderCache(run.paths.experiment.parent / ".cache" / "image_headers.json")
        try:
            run.notices += check_datasets(run.datasets, run.headers)
        except ConfigError as error:
            field_checks.drop_faulty(run.datasets, [problem.key for problem in error.problems])
            raise
        field_checks.settle_normalization(run.datasets, field_checks.saved_normalization(run.resume), findings)
        run.notices += field_checks.resumed_notice(run.options, run.resume)
