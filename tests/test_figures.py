"""How the log writes the values of metrics."""

from __future__ import annotations

import math

import pytest

from traiNNer.reporting import figure


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31.41592, "31.4159"),
        (0.98765432, "0.9877"),
        (-0.5, "-0.5000"),
        (0.1, "0.1000"),
        (0, "0.0000"),
        (0.012345678, "0.01235"),
        (0.00012345678, "0.0001235"),
        (-3.25671e-7, "-3.257e-07"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_small_values_have_four_digits(value: float, text: str) -> None:
    assert figure(value) == text
