"""Option files: reading, checking, and typed sections; see `load_options`."""

from __future__ import annotations

from traiNNer.config.components import ComponentOptions
from traiNNer.config.loading import load_options
from traiNNer.config.options import Options
from traiNNer.config.paths import RunPaths, run_paths
from traiNNer.config.sections import DatasetOptions, LogOptions, PathOptions, TrainOptions, ValOptions

__all__ = [
    "ComponentOptions",
    "DatasetOptions",
    "LogOptions",
    "Options",
    "PathOptions",
    "RunPaths",
    "TrainOptions",
    "ValOptions",
    "load_options",
    "run_paths",
]
