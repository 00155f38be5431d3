"""What fields as data ask of a run: one normalization for all data sets, networks and losses for their channels."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from traiNNer.archs.channels import NAMES
from traiNNer.config import ComponentOptions, Options
from traiNNer.data import FieldDataset, ImageDataset, normalization_of
from traiNNer.data.normalization import identity
from traiNNer.findings import Findings
from traiNNer.losses.term import Term
from traiNNer.types import Metric, NetworkInfo, Normalization
from traiNNer.utils.checkpoint import ResumePoint
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.weights import WeightsFile


def settle_normalization(datasets: Mapping[str, ImageDataset], known: Normalization | None, findings: Findings) -> None:
    """Give every data set of a training run that holds fields the training set's normalization.

    Args:
        datasets: by their keys in the option file.
        known: that of the run that is resumed.
        findings: takes what is wrong.
    """
    training = datasets.get("train")
    if training is None:  # a mistake of its own
        return
    if isinstance(training, FieldDataset):
        with findings.at("datasets.train"):
            training.normalize_by(known)
            known = training.normalization
    expected = _Expected(_kind(training), training.channels, "training set holds", "training set has")
    others = {key: dataset for key, dataset in datasets.items() if dataset is not training}
    _normalize_as(others, known, expected, findings)


def settle_test_normalization(
    datasets: Mapping[str, ImageDataset], weights: WeightsFile, info: NetworkInfo, findings: Findings
) -> None:
    """Give every test set of fields the normalization of the weights; refuse sets of what the weights are not for.

    Args:
        datasets: by their keys in the option file.
        weights: of the network; where the metadata do not say what it was trained on, the first set does.
        info: of the network.
        findings: takes what is wrong.
    """
    first = next(iter(datasets.values()), None)
    kind = weights.trained_on or (_kind(first) if first is not None else "")
    holds = "weights were trained on" if weights.trained_on else "first test set holds"
    _normalize_as(datasets, weights.normalization, _Expected(kind, info.in_channels, holds, "network takes"), findings)


def _normalize_as(
    datasets: Mapping[str, ImageDataset], known: Normalization | None, expected: _Expected, findings: Findings
) -> None:
    for key, dataset in datasets.items():
        with findings.at(f"datasets.{key}"):
            expected.check(dataset)
            if isinstance(dataset, FieldDataset):
                dataset.normalize_by(known)


@dataclass(frozen=True)
class _Expected:
    """What a data set must hold, and in words why."""

    kind: str
    channels: int
    holds: str
    has: str

    def check(self, dataset: ImageDataset) -> None:
        """Raises:
        ConfigError: it holds something else.
        """
        if _kind(dataset) != self.kind:
            raise ConfigError(f"found {_kind(dataset)}, but the {self.holds} {self.kind}; accepted: {self.kind}")
        if dataset.channels != self.channels:
            channels = f"found {dataset.channels} channels, but the {self.has} {self.channels}"
            raise ConfigError(f"{channels}; accepted: the same")


def _kind(dataset: ImageDataset) -> str:
    return "fields" if isinstance(dataset, FieldDataset) else "images"


def drop_faulty(datasets: dict[str, ImageDataset], keys: Iterable[str]) -> None:
    """Leave out sets of fields with mistakes in their files: their channels may be wrong, and more would follow."""
    for key in keys:
        if isinstance(datasets.get(key), FieldDataset):
            del datasets[key]


def resumed_notice(options: Options, resume: ResumePoint | None) -> list[str]:
    """A line where the option file asks for another normalization than that of the run that is resumed."""
    saved = None if resume is None else resume.object_state("run")
    if saved is None or "normalization" not in saved:
        return []
    known = saved_normalization(resume)
    before, now = (_stated(each) for each in (json.loads(saved["options"]), options.dump()))
    numbers = identity(len(saved["normalization"]["mean"])) if now == "none" else _given(now)
    if (numbers is None and before == now) or numbers == known:
        return []
    line = f"datasets.train.normalization: found {now}, but the run that is resumed keeps its numbers"
    return [f"{line}: {_shown(known)}"]


def _stated(options: Mapping[str, Any]) -> Any:
    return options["datasets"]["train"].get("normalization") or "none"


def _given(stated: Any) -> Normalization | None:
    if not isinstance(stated, Mapping):
        return None
    return Normalization(mean=tuple(stated["mean"]), std=tuple(stated["std"]))


def pretrained_notice(weights: WeightsFile, normalization: Normalization | None) -> list[str]:
    """A line where the weights were trained on fields of another normalization, on fields or on images instead."""
    if not weights.trained_on or weights.normalization == normalization:
        return []
    line = f"{weights.path} was trained on {_shown(weights.normalization)}, and this run is on {_shown(normalization)}"
    return [f"net_g: {line}"]


def _shown(normalization: Normalization | None) -> str:
    if normalization is None:
        return "images"
    mean, std = (" ".join(f"{value:.4g}" for value in each) for each in (normalization.mean, normalization.std))
    return f"fields of mean {mean}, std {std}"


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


def check_weights(weights: WeightsFile, dataset: ImageDataset | None) -> None:
    """Raises:
    ConfigError: the metadata say that the network is not for such data, or takes other channels than the fields have.
    """
    if dataset is None:
        return
    if weights.trained_on not in ("", kind := _kind(dataset)):
        found = f"found {weights.path}, trained on {weights.trained_on}"
        raise ConfigError(f"{found}, but the data ({dataset.name}) holds {kind}; accepted: weights of {kind}")
    if kind == "images":
        return
    try:
        parameters = json.loads(weights.metadata.get("parameters", "{}"))
        taken = [parameters[name] for name in NAMES if name in parameters]
    except (TypeError, ValueError):
        return
    if taken and taken[0] != dataset.channels:
        of = f"the data ({dataset.name}) has {dataset.channels}"
        raise ConfigError(f"found {weights.path} of a network that takes {taken[0]} channels, but {of}")


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
    ConfigError: a loss is not one for fields, whether or not they have the three channels of RGB.
    """
    if term.schedule.negative:
        message = "found a negative weight, whose target is an image in [0, 1], but the data are fields"
        raise ConfigError(Problem(key="loss_weight", message=f"{message}; accepted: a positive one"))
    if term.loss.images_only or term.loss.channels is not None:
        kind = "images in [0, 1]" if term.loss.channels is None else "RGB images"
        message = f"found {term.label}, which compares {kind}, but the data are fields"
        raise ConfigError(f"{message}; accepted: losses of any numbers, such as fielderrorloss or l1loss")
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
