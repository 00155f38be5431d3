"""What fields as data ask of a run: one normalization for all data sets, networks and losses for their channels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from traiNNer.archs.channels import NAMES
from traiNNer.config import ComponentOptions, Options
from traiNNer.data import FieldDataset, ImageDataset, normalization_of
from traiNNer.findings import Findings
from traiNNer.losses.term import Term
from traiNNer.types import Metric, NetworkInfo, Normalization
from traiNNer.utils.checkpoint import ResumePoint
from traiNNer.utils.errors import ConfigError, Problem


def settle_normalization(
    datasets: Mapping[str, ImageDataset], known: Normalization | None, channels: int, findings: Findings
) -> None:
    """Give every data set of fields its normalization: the training set's own, and that to all others.

    Args:
        datasets: by their keys in the option file.
        known: that of the run that is resumed, or of the weights that are tested.
        channels: of the training set, or of the weights' network.
        findings: takes what is wrong.
    """
    training = datasets.get("train")
    if isinstance(training, FieldDataset):
        with findings.at("datasets.train"):
            training.normalize_by(known)
            known = training.normalization
    for key, dataset in datasets.items():
        if dataset is training:
            continue
        with findings.at(f"datasets.{key}"):
            if training is not None and isinstance(dataset, FieldDataset) != isinstance(training, FieldDataset):
                kinds = ("fields", "images") if isinstance(dataset, FieldDataset) else ("images", "fields")
                raise ConfigError(f"found {kinds[0]}, but the training set holds {kinds[1]}; accepted: the same")
            if dataset.channels != channels:
                of = "network takes" if training is None else "training set has"
                raise ConfigError(f"found {dataset.channels} channels, but the {of} {channels}; accepted: the same")
            if isinstance(dataset, FieldDataset):
                dataset.normalize_by(known)


def saved_normalization(resume: ResumePoint | None) -> Normalization | None:
    """What the run that is resumed was normalized by."""
    saved = None if resume is None else (resume.object_state("run") or {}).get("normalization")
    return None if saved is None else Normalization(mean=tuple(saved["mean"]), std=tuple(saved["std"]))


def network_options(options: Options, key: str, dataset: ImageDataset | None) -> Mapping[str, Any]:
    """The options of `network_g` or `network_d`, its channels those of the data where the file does not say them.

    Raises:
        ConfigError: the file says other channels.
    """
    section: ComponentOptions | None = getattr(options, key)
    if section is None:
        raise TypeError(f"there is no {key}")
    if dataset is None or normalization_of(dataset) is None:
        return section
    names = [name for name in NAMES if name in section]
    wrong = [name for name in names if options.has(f"{key}.{name}") and section[name] != dataset.channels]
    if wrong:
        has = dataset.channels
        of = f"the data ({dataset.name}) has {has} channels; accepted: {has}, or leaving it out"
        raise ConfigError([Problem(key=name, message=f"found {section[name]}, but {of}") for name in wrong])
    return {**section, **dict.fromkeys(names, dataset.channels)}


def check_generator_channels(info: NetworkInfo, channels: int) -> None:
    """Raises:
    ConfigError: it takes or gives others than the data has.
    """
    if (info.in_channels, info.out_channels) != (channels, channels):
        found = f"{info.type} with {info.in_channels} input and {info.out_channels} output channels"
        data = " (RGB)" if channels == 3 else ", the data's"
        raise ConfigError(f"found {found}; accepted: {channels} and {channels}{data}")


def check_channels(term: Term, channels: int) -> None:
    """Raises:
    ConfigError: a loss is not one for fields of so many channels.
    """
    if term.schedule.negative:
        message = "found a negative weight, whose target is an image in [0, 1], but the data are fields"
        raise ConfigError(Problem(key="loss_weight", message=f"{message}; accepted: a positive one"))
    if term.loss.channels not in (None, channels):
        message = f"found {term.label}, which compares RGB images, but the data has {channels} channels"
        raise ConfigError(f"{message}; accepted: losses of any channels, such as fielderrorloss or l1loss")
    if not term.needs <= {"output", "target", "ema_output"}:
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        fields = {name: torch.randn(1, channels, 64, 64) for name in term.needs}
        try:
            copy.deepcopy(term.loss)(**fields)
        except (ConfigError, RuntimeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"found {term.label}, which cannot compare fields of {channels} channels: {reason}"
            ) from None


def check_metric(metric: Metric) -> None:
    """Raises:
    ConfigError: it compares images.
    """
    if getattr(metric, "images_only", False):
        message = f"found {metric.describe()}, but the data are fields, which have no levels"
        raise ConfigError(f"{message}; accepted: field_error, spectrum_error, raps_distance and others of fields")
