"""What every loss is."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Loss(nn.Module):
    """A module whose forward returns the unweighted value; its entry of `train.losses` gives it weight and label."""

    loss_weight: float = 1.0
    label: str = ""

    def __call__(self, *inputs: Any, **named_inputs: Any) -> Tensor:
        """The unweighted value, a scalar tensor."""
        return super().__call__(*inputs, **named_inputs)
