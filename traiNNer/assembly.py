"""The parts of a trainer, built from a prepared run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from traiNNer.automation_setup import put_to_work
from traiNNer.best import BestValues
from traiNNer.cli import TrainArguments
from traiNNer.config import DatasetOptions
from traiNNer.config.automations import clip_threshold
from traiNNer.data import TrainLoader, ValidationLoader
from traiNNer.data.normalization import dumped
from traiNNer.inference import network_info
from traiNNer.models.adaptive_d import AdaptiveDiscriminator
from traiNNer.models.ema import Ema
from traiNNer.models.loss_scale import LossScale
from traiNNer.models.loss_schedulers import LossSchedulers
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.monitor import StepMonitor
from traiNNer.optimizers import apply_settings, keeps_average, settings
from traiNNer.preparation import Prepared, folders_of
from traiNNer.reporting import Reporter
from traiNNer.run_record import RunRecord
from traiNNer.samples import Samples
from traiNNer.schedulers import ObservesValidation
from traiNNer.trainer import Trainer, TrainerSettings
from traiNNer.types import Stateful
from traiNNer.utils import dist
from traiNNer.utils.checkpoint import Checkpoint
from traiNNer.utils.device import compile_obstacle
from traiNNer.utils.rng import RandomState, seed_everything
from traiNNer.utils.weights import network_metadata
from traiNNer.validation import ImageNames, Validator

if TYPE_CHECKING:
    from rich.console import Console


def build_trainer(run: Prepared, arguments: TrainArguments, console: Console | None) -> tuple[Trainer, list[str]]:
    """Assemble the trainer of a prepared run and load the checkpoint it resumes from; with lines for the log."""
    options = run.options
    model, loader = build_model(run), build_loader(run)
    loaders = build_validation_loaders(run)
    validators, samples = build_validators(run, model, loaders), build_samples(run, loaders)
    monitor, best = StepMonitor(), BestValues()
    record = RunRecord(
        run.seed,
        options.dump(),
        {name: rate.dump() for name, rate in run.rates.items()},
        None if run.normalization is None else dumped(run.normalization),
    )
    iteration = 0 if run.resume is None else run.resume.iteration
    reporter = Reporter(
        console=console,
        tensorboard=run.paths.tb_logger if run.logger.use_tb_logger else None,
        start_iter=iteration,
        total_iter=run.train.total_iter,
        enabled=dist.is_main(),
    )
    manager = put_to_work(run, model, loader, monitor, reporter.scalars, console)
    checkpoint = _track(run, model)
    seed_everything(run.seed, dist.rank())  # from here on every rank draws numbers of its own
    per_rank = {"monitor": dist.PerRank(monitor), "rng": dist.PerRank(RandomState())}
    tracked: dict[str, Stateful] = {"loader": loader, "best": best, "run": record}
    if manager is not None:
        per_rank["observations"] = dist.PerRank(manager.observations)
        tracked["automations"] = manager
    for name, stateful in {**tracked, **per_rank}.items():
        checkpoint.track(name, stateful, last=name == "rng")
    lines = [] if run.resume is None else _load(checkpoint, run, model)
    trainer_settings = TrainerSettings(
        total_iter=run.train.total_iter,
        print_freq=run.logger.print_freq,
        save_freq=run.logger.save_checkpoint_freq,
        val_freq=run.val.val_freq or 0 if run.val and validators else 0,
        sample_freq=run.sample_freq,
        resume_command=f"{arguments.command} --auto_resume",
        options_text=json.dumps(options.dump()),
    )
    trainer = Trainer(
        model=model,
        loader=loader,
        validators=validators,
        checkpoint=checkpoint,
        reporter=reporter,
        monitor=monitor,
        best=best,
        settings=trainer_settings,
        iteration=iteration,
        automations=manager,
        per_rank=list(per_rank.values()),
        samples=samples,
    )
    return trainer, [*lines, *(f"changed option: {line}" for line in record.changes)]


def _load(checkpoint: Checkpoint, run: Prepared, model: SRModel) -> list[str]:
    """Load what the run resumes from; the optimizers' hyperparameters stay those of the option file."""
    if run.resume is None:
        return []
    for player in model.players.values():  # a schedule that cycles the momentum may need state that is not there
        player.learning_rate.apply(run.resume.iteration + 1)
    optimizers = [player.optimizer for player in model.players.values()]
    written = [settings(optimizer) for optimizer in optimizers]
    lines = checkpoint.load(run.resume, ignore=run.options.path.ignore_resume_networks or ())
    for optimizer, values in zip(optimizers, written, strict=True):
        apply_settings(optimizer, values)
    return lines


def build_model(run: Prepared) -> SRModel:
    """Networks with their optimizers, losses and EMA, on the run's device."""
    options, train = run.options, run.train
    torch.autograd.set_detect_anomaly(options.detect_anomaly)
    net_g = run.nets["net_g"]
    ema = None
    if train.ema_decay > 0:
        ema = Ema(net_g, decay=train.ema_decay, power=train.ema_power, update_after_step=train.ema_update_after_step)
    adaptive_d = None
    if train.adaptive_d and "net_d" in run.nets:
        adaptive_d = AdaptiveDiscriminator(
            decay=train.adaptive_d_ema_decay, threshold=train.adaptive_d_threshold, device=run.device
        )
    return SRModel(
        generator=_build_player(run, "net_g"),
        losses={label: loss.to(run.device) for label, loss in run.losses.items()},
        discriminator=_build_player(run, "net_d") if "net_d" in run.nets else None,
        adaptive_d=adaptive_d,
        ema=ema,
        device=run.device,
        precision=run.precision,
        channels_last=options.use_channels_last,
        loss_schedulers=LossSchedulers(run.loss_schedulers),
        recovers=run.automations.recovers,
    )


def _build_player(run: Prepared, name: str) -> Player:
    net, optimizer = run.nets[name], run.optimizers[name]
    return Player(
        net,
        optimizer,
        run.rates[name].of(optimizer),
        max_norm=clip_threshold(run.train),
        loss_scale=LossScale(run.device) if run.precision.scales_loss else None,
        forward_net=_forward_net(run, net),
    )


def _forward_net(run: Prepared, net: nn.Module) -> nn.Module:
    """What training calls: the network, compiled if asked for, wrapped if there are several processes.

    Validation and saving use the network itself, so that other image sizes do not compile again.
    """
    if run.options.use_compile:
        obstacle = compile_obstacle(run.device)
        if obstacle is None:
            net = torch.compile(net, mode=run.options.compile_mode)  # type: ignore[assignment]
        else:
            run.notices.append(f"use_compile: off, because {obstacle}")
    if dist.world_size() > 1:
        devices = None if run.device.type == "cpu" else [run.device]
        net = DistributedDataParallel(net, device_ids=devices, broadcast_buffers=False)
    return net


def build_loader(run: Prepared) -> TrainLoader:
    """The endless loader of the training set."""
    section = run.options.datasets["train"]
    return TrainLoader(
        run.datasets["train"],
        batch_size=section.batch_size_per_gpu or 1,
        accum_iter=section.accum_iter,
        seed=run.seed,
        rank=dist.rank(),
        world_size=dist.world_size(),
        num_workers=section.num_worker_per_gpu,
        pin_memory=section.pin_memory,
        prefetch_factor=section.prefetch_factor,
        persistent_workers=section.persistent_workers,
        enlarge_ratio=section.dataset_enlarge_ratio,
        device_hint=run.device,
    )


def build_validation_loaders(run: Prepared) -> dict[str, ValidationLoader]:
    """By the keys of the validation sets, in the file's order: the images of each that fall to this process."""
    return {
        key: ValidationLoader(
            dataset,
            rank=dist.rank(),
            world_size=dist.world_size(),
            num_workers=run.options.datasets[key].num_worker_per_gpu,
            persistent_workers=run.options.datasets[key].persistent_workers,
            prefetch_factor=run.options.datasets[key].prefetch_factor,
        )
        for key, dataset in run.datasets.items()
        if key.startswith("val")
    }


def build_validators(run: Prepared, model: SRModel, loaders: Mapping[str, ValidationLoader]) -> list[Validator]:
    """One validator for each validation set of the file, in its order."""
    val = run.val
    if val is None:
        return []
    return [
        Validator(
            run.options.datasets[key].name,
            loader,
            run.metrics,
            scale=run.options.scale,
            tile_size=val.tile_size,
            tile_overlap=val.tile_overlap,
            save_folder=_pictures(run, key) if val.save_img else None,
            suffix=val.suffix,
            roots=_roots(run.options.datasets[key]),
            fidelity_losses=lambda: model.fidelity_losses,
            normalization=run.normalization,
        )
        for key, loader in loaders.items()
    ]


def build_samples(run: Prepared, loaders: Mapping[str, ValidationLoader]) -> Samples | None:
    """Pictures of the validation images at some checkpoints, if the file asks for them."""
    val = run.options.val
    if val is None or not run.sample_freq:
        return None
    names = ImageNames([root for key in loaders for root in _roots(run.options.datasets[key])])
    return Samples(
        run.paths.samples,
        list(loaders.values()),
        # every process names all images, so that a name does not depend on who gets which
        {path: names.name(path) for loader in loaders.values() for path in loader.dataset.inputs()},
        tile_size=val.tile_size,
        tile_overlap=val.tile_overlap,
        normalization=run.normalization,
    )


def _roots(section: DatasetOptions) -> list[Path]:
    """The folders of a data set, under which pictures keep their sub-folders."""
    folders: list[Path] = []
    for key in ("dataroot_lq", "dataroot_gt"):
        value = section.component.get(key) or []
        folders += [Path(value)] if isinstance(value, str) else [Path(folder) for folder in value]
    return folders


def _pictures(run: Prepared, key: str) -> Path:
    return run.paths.visualization / key


def _track(run: Prepared, model: SRModel) -> Checkpoint:
    """A checkpoint that tracks the networks and what optimizes them."""
    logger = run.logger
    checkpoint = Checkpoint(
        folders_of(run.paths), weights_format=logger.save_checkpoint_format, save_last_n=logger.save_last_n
    )
    info = network_info(run.nets["net_g"])
    for name, player in model.players.items():
        own = network_info(player.net)
        checkpoint.track_network(
            name,
            player.net,
            lambda iteration, own=own: network_metadata(own, iteration),
            released=name == "net_g",
            averaged=model.evaluation_weights if name == "net_g" and keeps_average(player.optimizer) else None,
        )
        checkpoint.track(f"optimizer/{name}", player.optimizer, required=True)
        if isinstance(player.learning_rate.schedule, ObservesValidation):
            checkpoint.track(f"scheduler/{name}", player.learning_rate.schedule)
        if player.loss_scale is not None:
            checkpoint.track(f"loss_scale/{name}", player.loss_scale)
    if model.adaptive_d is not None:
        checkpoint.track("adaptive_d", model.adaptive_d)
    for label, loss in model.losses.items():
        if loss.learns:
            checkpoint.track(f"loss/{label}", loss)
    for name, scheduler in model.loss_schedulers.tracked.items():
        checkpoint.track(name, scheduler)
    if model.ema is not None:
        checkpoint.track_network("net_g_ema", model.ema.net, lambda iteration: network_metadata(info, iteration))
    return checkpoint
