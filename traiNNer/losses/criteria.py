"""The differences that a loss can take between two maps (luma, gradients, spectra), chosen by its `criterion`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from traiNNer.losses.charbonnier_loss import charbonnier

CriterionName = Annotated[
    Literal["l1", "l2", "mse", "charbonnier", "huber", "chc"],
    Field(description="how two maps are compared; mse is l2, huber has a delta of 1, chc is a clipped charbonnier"),
]
"""The type of a loss's parameter `criterion`."""

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Two tensors of one shape become a scalar, the mean over elements."""


def clipped_charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """mean clamp(sqrt((output - target)^2 + 1e-12), 1/255, 254/255), a scalar.

    There is no gradient from differences below 1/255, a level of 8 bits, or above 254/255.
    Source: `chc` of neosr without its cosine term; the range of 8 bits as the fork of traiNNer-redux writes it.
    """
    return charbonnier(output, target).clamp(1 / 255, 254 / 255).mean()


def mean_charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """mean sqrt((output - target)^2 + 1e-12), a scalar."""
    return charbonnier(output, target).mean()


_CRITERIA: dict[str, Criterion] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "mse": F.mse_loss,
    "charbonnier": mean_charbonnier,
    "huber": F.huber_loss,
    "chc": clipped_charbonnier,
}


def criterion(name: CriterionName) -> Criterion:
    """The function of that name: two tensors of one shape become the mean over their elements, a scalar.

    Only charbonnier (1e-6) and chc (1/255) are not 0 for equal tensors.
    """
    return _CRITERIA[name]
