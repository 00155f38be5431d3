"""Data sets, the loaders that read them, and the check of their files before a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traiNNer.data.dataset import FieldDataset, ImageDataset, normalization_of
from traiNNer.data.preflight import HeaderCache, check_datasets
from traiNNer.data.train_loader import TrainLoader
from traiNNer.data.validation_loader import ValidationLoader
from traiNNer.utils.registry import DATASETS

__all__ = [
    "FieldDataset",
    "HeaderCache",
    "ImageDataset",
    "TrainLoader",
    "ValidationLoader",
    "build_dataset",
    "check_datasets",
    "normalization_of",
]


def build_dataset(options: Mapping[str, Any]) -> ImageDataset:
    """The data set of `{"type": NAME, **parameters}`, with `phase` and `scale` among the parameters.

    Raises:
        ConfigError: unknown type or parameters, folders missing or empty; keys are relative to the options.
    """
    return DATASETS.build(options)
