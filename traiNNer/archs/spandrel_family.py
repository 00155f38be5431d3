"""What a row of the table of spandrel's networks says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from traiNNer.archs.spandrel_parameters import one_of

Parameters = Mapping[str, Any]

X1234 = (1, 2, 3, 4)
SHUFFLED = (1, 2, 3, 4, 8)
"""Scales of networks that enlarge by steps of pixel shuffling."""

RATES: dict[str, Any] = {"drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.1}
"""What transformers drop in training."""

ENDS = one_of("convolution at a group's end", ("1conv", "3conv"))
IDENTITY = one_of("convolution at a group's end", ("1conv", "identity"))
SWIN_UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect", "nearest+conv", "")

OFF = "channel attention ends in few ReLUs, which can be off for all images of a batch"


def constant(value: Any) -> Callable[[Parameters], Any]:
    """A fact that does not depend on the parameters."""
    return lambda parameters: value


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture of spandrel."""

    module: str
    """In `spandrel.architectures`."""
    summary: str
    reference: str
    defaults: Parameters
    """traiNNer-redux's parameters beside `scale`, with the defaults that the variants share."""
    variants: Mapping[str, Parameters]
    """By name: the defaults that differ."""
    scales: tuple[int, ...]
    other_scales: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """Of variants whose upsampler has others."""
    scale: str | None = "upscale"
    """spandrel's name of `scale`; None if there is none."""
    network: str = ""
    """The class, if it is not called as the module."""
    adapt: Callable[[dict[str, Any]], tuple[str, dict[str, Any]]] | None = None
    """From traiNNer-redux's parameters to the class and its arguments, where they differ in more than a name."""
    annotations: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Where a parameter means or accepts something else than usual."""
    only: Mapping[str, str] = field(default_factory=dict[str, str])
    """Parameters that have their default only, and why; they are not handed on."""
    minimum: Callable[[Parameters], int] = lambda parameters: 1
    """Of the parameters: smallest side of an image, px."""
    multiple_of: Callable[[Parameters], int] = lambda parameters: 1
    """Of the parameters: what both sides must be multiples of, px."""
    smallest_batch: int = 1
    """Images that a training step needs."""
    half: Callable[[Parameters], bool] = lambda parameters: True
    """Of the parameters: whether float16 is known to work."""
    may_be_zero: Mapping[str, str] = field(default_factory=dict[str, str])
    """Patterns of names of trained parameters whose gradient can be zero, and why."""
    untrained: Mapping[str, str] = field(default_factory=dict[str, str])
    """Patterns of parameter names that no gradient reaches, and why; they are frozen."""
    derived: tuple[str, ...] = ()
    """Endings of the names of buffers that the network computes by itself."""
