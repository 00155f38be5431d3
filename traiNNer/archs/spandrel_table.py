"""spandrel's networks under traiNNer-redux's names: one table, read without importing spandrel.

A family is an architecture of spandrel; its variants are the names of option files, which differ in their defaults
only. Facts that spandrel finds out when it loads weights (sizes, precision) stand here, and tests compare them.
"""

from __future__ import annotations

from traiNNer.archs.spandrel_attention import ATTENTION
from traiNNer.archs.spandrel_convolution import CONVOLUTION
from traiNNer.archs.spandrel_family import Family
from traiNNer.archs.spandrel_swin import SWIN

FAMILIES: tuple[Family, ...] = (*SWIN, *ATTENTION, *CONVOLUTION)
