"""What the model hands to a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.losses.base import Value
from traiNNer.losses.term import Term


def evaluated(term: Term, inputs: Mapping[str, Any], fraction: float) -> Value:
    """A loss's unweighted value on a piece of a micro-batch, such a fraction of its images.

    A sum over images is brought to the size that it has for all of them, so that pieces average to the whole.
    """
    value = term.loss(**given(term, inputs))
    if not term.loss.sums_images:
        return value
    return value / fraction if isinstance(value, Tensor) else {name: part / fraction for name, part in value.items()}


def given(term: Term, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a loss asks for; one of negative weight compares with the enlarged LQ image."""
    own = {name: inputs[name] for name in term.needs}
    if term.schedule.negative and "target" in own:
        own["target"] = inputs["enlarged"]
    return own


def full_precision(images: Tensor) -> Tensor:
    """What a network returned, in float32 at least."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def enlarged(lq: Tensor, gt: Tensor) -> Tensor:
    """LQ at the size of GT, by antialiased bicubic interpolation, in [0, 1]."""
    size = (gt.shape[-2], gt.shape[-1])
    return nn.functional.interpolate(lq, size=size, mode="bicubic", antialias=True).clamp(0, 1)
