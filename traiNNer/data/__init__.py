"""Data sets, the loaders that read them, and the check of their files before a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traiNNer.data.dataset import ImageDataset
from traiNNer.data.preflight import check_datasets
from traiNNer.data.train_loader import TrainLoader
from traiNNer.data.validation_loader import ValidationLoader
from traiNNer.utils.errors import ConfigError, Problem
from traiNNer.utils.registry import DATASETS

__all__ = ["ImageDataset", "TrainLoader", "ValidationLoader", "build_dataset", "build_datasets", "check_datasets"]


def build_dataset(options: Mapping[str, Any]) -> ImageDataset:
    """The data set of `{"type": NAME, **parameters}`, with `phase` and `scale` among the parameters.

    Raises:
        ConfigError: unknown type or parameters, folders missing or empty; keys are relative to the options.
    """
    return DATASETS.build(options)


def build_datasets(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, ImageDataset]:
    """A data set for each section; the problems of all are reported together, under `datasets.<section>`.

    Raises:
        ConfigError: see `build_dataset`.
    """
    datasets: dict[str, ImageDataset] = {}
    problems: list[Problem] = []
    for section, options in sections.items():
        try:
            datasets[section] = build_dataset(options)
        except ConfigError as error:
            problems += [problem.under(f"datasets.{section}") for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return datasets
