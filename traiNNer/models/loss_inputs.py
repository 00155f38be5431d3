"""What the model hands to a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from traiNNer.losses.term import Term


def given(term: Term, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a loss asks for; one of negative weight compares with the enlarged LQ image."""
    own = {name: inputs[name] for name in term.needs}
    if term.schedule.negative and "target" in own:
        own["target"] = inputs["enlarged"]
    return own


def enlarged(lq: Tensor, gt: Tensor) -> Tensor:
    """LQ at the size of GT, by antialiased bicubic interpolation, in [0, 1]."""
    size = (gt.shape[-2], gt.shape[-1])
    return nn.functional.interpolate(lq, size=size, mode="bicubic", antialias=True).clamp(0, 1)
