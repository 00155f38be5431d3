"""What networks and losses demand of a run, asked before its first iteration; nothing is written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.config import Options, TrainOptions
from traiNNer.data import FieldDataset, ImageDataset
from traiNNer.field_checks import check_metric
from traiNNer.findings import Findings
from traiNNer.inference import network_info
from traiNNer.losses import BuiltLoss
from traiNNer.losses.base import total
from traiNNer.losses.term import Term
from traiNNer.metrics import build_metric
from traiNNer.optimizers import keeps_average
from traiNNer.schedulers import CyclesMomentum, ObservesValidation
from traiNNer.types import Better, Metric
from traiNNer.utils.errors import ConfigError, Problem, nearest

IMAGES = frozenset({"output", "target", "ema_output"})
"""Inputs of a loss that are images of GT's size."""

ROOMY = 64
"""No loss, with its defaults, needs larger crops than this, px."""


def check_needs(options: Options, train: TrainOptions, term: Term) -> None:
    """Raises:
    ConfigError: what the loss needs is not in the file, with what to add.
    """
    problems: list[str] = []
    if "ema_output" in term.needs and not train.ema_decay:
        problems.append("the moving average of net_g; accepted: train.ema_decay, such as 0.999")
    if term.needs & {"latent_mean", "latent_log_variance"}:
        problems.append("an encoder's latents, and a super-resolution model has no encoder; accepted: leaving it out")
    if term.adversarial and options.network_d is None:
        problems.append("a discriminator; accepted: network_d, such as {type: munet}")
    if term.adversarial and train.optim_d is None:
        problems.append("an optimizer of net_d; accepted: train.optim_d, such as {type: AdamW, lr: 1e-4}")
    if term.adversarial and term.schedule.negative:
        problems.append("a weight that is not negative: it has no target")
    if problems:
        raise ConfigError([Problem(message=f"found {term.label}, which needs {each}") for each in problems])


def check_crops(term: Term, gt_size: Any, channels: int) -> None:
    """Compute a loss that compares images once with crops of the training's size, where they are small.

    Raises:
        ConfigError: they are too small for it.
    """
    if isinstance(gt_size, int) and term.needs <= IMAGES and (reason := _too_small(term, gt_size, channels)):
        message = f"found crops of {gt_size} px (gt_size), which are too small for {term.label}: {reason}"
        raise ConfigError(message if "accepted: " in reason else f"{message}; accepted: larger ones")


def check_validation_images(term: Term, dataset: ImageDataset) -> None:
    """The same with a square as small as the smallest image of a validation set, which `val/loss` measures.

    Raises:
        ConfigError: it is too small for the loss.
    """
    if not term.measures_fidelity or dataset.smallest is None:
        return
    side, file = dataset.smallest
    if reason := _too_small(term, side, dataset.channels):
        message = f"found an image of {side} px in {dataset.name}, too small for {term.label}: {reason}"
        message = f"{message}; the smallest is {file}"
        raise ConfigError(message if "accepted: " in reason else f"{message}; accepted: larger ones")


def _too_small(term: Term, side: int, channels: int) -> str:
    """Why a loss cannot be computed for square images of this side; empty if it can."""
    if side >= ROOMY:
        return ""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        images = {name: torch.rand(1, channels, side, side) for name in term.needs}
        try:
            copy.deepcopy(term.loss)(**images)
        except (ConfigError, RuntimeError, ValueError) as error:
            return str(error).splitlines()[0]
    return ""


def discriminator_notice(term: Term, total_iter: int) -> str:
    """What the `discriminator_start_iter` of a loss does that may not be meant; empty if nothing."""
    schedule, start = term.schedule, term.schedule.trains_discriminator_from
    if schedule.discriminator_start_iter is None:
        return ""
    if not term.adversarial:
        return "has no effect: the loss is not adversarial"
    last = total_iter if schedule.disable_after is None else min(total_iter, schedule.disable_after)
    if start > last:
        return f"net_d is never trained: the loss acts until iteration {last:,}"
    first = max(1, schedule.start_iter)
    if start > first and (schedule.value(first) or schedule.value(start - 1)):
        return f"net_g feels net_d from iteration {first:,}, before net_d is trained"
    return ""


def check_discriminator(net: nn.Module, gt_size: Any, channels: int) -> None:
    """Raises:
    ConfigError: it does not take the data's channels, or none as small as the crops.
    """
    info = network_info(net)
    if info.in_channels != channels:
        data = "3 (RGB)" if channels == 3 else f"{channels}, the data's"
        raise ConfigError(f"found {info.type} with {info.in_channels} input channels; accepted: {data}")
    if isinstance(gt_size, int) and gt_size < info.minimum:
        message = f"found {info.type}, which needs images of at least {info.minimum} px, but gt_size is {gt_size}"
        raise ConfigError(f"{message}; accepted: larger crops, or another discriminator")


def check_deterministic(name: str, net: nn.Module, device: torch.device) -> None:
    """Take one small step with a copy of a network: torch refuses operations that have no deterministic form.

    Raises:
        ConfigError: naming network and operation.
    """
    info = network_info(net)
    side = -(-max(16, info.minimum) // info.multiple_of) * info.multiple_of

    def step() -> None:
        answer = copy.deepcopy(net).to(device).train()(torch.rand(1, info.in_channels, side, side, device=device))
        torch.stack([each.mean() for each in ([answer] if isinstance(answer, Tensor) else answer)]).sum().backward()

    _refuse_nondeterministic(f"{name} {info.type}", step)


def check_deterministic_loss(term: Term, device: torch.device, channels: int) -> None:
    """Compute a loss that compares images, and its gradient, as `check_deterministic` does with a network.

    Raises:
        ConfigError: naming loss and operation.
    """
    if not term.needs <= IMAGES:
        return

    def step() -> None:
        shape = (1, channels, 48, 48)
        images = {name: torch.rand(shape, device=device, requires_grad=name == "output") for name in term.needs}
        total(copy.deepcopy(term.loss).to(device)(**images)).backward()

    _refuse_nondeterministic(f"loss {term.label}", step)


def _refuse_nondeterministic(what: str, step: Callable[[], None]) -> None:
    with torch.random.fork_rng():
        try:
            step()
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            reason = str(error).split(". ", maxsplit=1)[0]
            raise ConfigError(f"found true, but {what} cannot be: {reason}; accepted: false") from None


def given_by_validations(
    datasets: Mapping[str, ImageDataset], losses: Mapping[str, BuiltLoss], metrics: Mapping[str, Metric]
) -> dict[str, Better]:
    """What validations compute, by the name that log and schedules use, and where it improves.

    Args:
        datasets: the run's, checked, by their keys; a set without GT measures nothing.
        losses: by label.
        metrics: by label.
    """
    sets = [dataset for key, dataset in datasets.items() if key.startswith("val")]
    prefixes = ["val" if n == 1 else f"val_{n}" for n, each in enumerate(sets, 1) if each.smallest is not None]
    terms = [Term(label, loss) for label, loss in losses.items()]
    each: dict[str, Better] = {label: metric.better for label, metric in metrics.items()}
    if any(term.measures_fidelity and term.schedule.loss_weight != 0 for term in terms):
        each["loss"] = "lower"
    return {f"{prefix}/{label}": better for prefix in prefixes for label, better in each.items()}


def check_monitor(schedule: ObservesValidation, given: Mapping[str, Better]) -> None:
    """Raises:
    ConfigError: no validation gives what the schedule follows, or it improves the other way.

    Args:
        schedule: follows a metric.
        given: what validations compute, such as `val/psnr`, and where it improves.
    """
    if schedule.monitor not in given:
        accepted = ", ".join(given) or "a schedule that needs no validation, as there is none"
        message = f"found {schedule.monitor}, which no validation computes; accepted: {accepted}"
        raise ConfigError(Problem(key="monitor", message=message + nearest(schedule.monitor, given)))
    better = "lower" if schedule.mode == "min" else "higher"
    if given[schedule.monitor] != better:
        found = f"found {schedule.mode}, but {schedule.monitor} is better when it is {given[schedule.monitor]}"
        raise ConfigError(Problem(key="mode", message=f"{found}; accepted: {'max' if better == 'lower' else 'min'}"))


def check_momentum(schedule: CyclesMomentum, optimizer: torch.optim.Optimizer) -> None:
    """Raises:
    ConfigError: the schedule would move the momentum of a schedule-free optimizer, which finds its average by it.
    """
    if schedule.momentum(1) is not None and keeps_average(optimizer):
        message = "found true, but a schedule-free optimizer finds its average by a constant betas[0]; accepted: false"
        raise ConfigError(Problem(key="cycle_momentum", message=message))


def build_metrics(options: Options, datasets: Collection[ImageDataset], findings: Findings) -> dict[str, Metric]:
    """The metrics of `val.metrics` that can be built and can measure every image of the checked data sets, by label."""
    metrics: dict[str, Metric] = {}
    if options.val is None or not options.val.metrics_enabled:
        return metrics
    for label, entry in (options.val.metrics or {}).items():
        with findings.at(f"val.metrics.{label}"):
            metric = build_metric(entry)
            if any(isinstance(dataset, FieldDataset) for dataset in datasets):
                check_metric(metric)
            if datasets and getattr(metric, "axes", 2) != 2:
                message = "found true, but the data sets have no depth; accepted: false"
                raise ConfigError(Problem(key="volume", message=message))
            _check_sizes(metric, datasets)
            metrics[label] = metric
    return metrics


def _check_sizes(metric: Metric, datasets: Iterable[ImageDataset]) -> None:
    for dataset in datasets:
        side, file = dataset.smallest or (metric.minimum, "")
        if side < metric.minimum:
            found = f"found an image of {side} px in {dataset.name}, the smallest is {file}"
            raise ConfigError(
                f"{found}; accepted by this metric, with its crop_border: {metric.minimum} px at least on each side"
            )
