"""Full-reference image metrics, one per file.

A metric takes one image pair and returns a number; averages over a data set are the Validator's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traiNNer.types import Metric
from traiNNer.utils.registry import METRICS


def build_metric(options: Mapping[str, Any]) -> Metric:
    """Build a metric from an entry of `val.metrics`.

    Args:
        options: `{"type": NAME, **parameters}`, such as `{"type": "calculate_psnr", "crop_border": 4}`.

    Returns:
        A callable on (output, target), each (1, 3, H, W) float32 RGB in [0, 1], with the attribute `better`
        (`higher` or `lower`) and `describe()`, which says channel, crop and range.

    Raises:
        ConfigError: unknown type or parameter, a value outside its range, or pretrained weights that are not there.
    """
    return METRICS.build(options)
