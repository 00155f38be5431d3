"""What every loss is."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn


class Loss(nn.Module):
    """A module whose forward returns the unweighted value; its entry of `train.losses` gives it weight and label.

    Facts about a class that others, the contract tests among them, need:
    """

    minimum: ClassVar[float | None] = 0.0
    """The value for an output that equals its target, where it is smallest; None if it is not smallest there."""

    batch_coupled: ClassVar[bool] = False
    """Images of a batch influence each other's part: the mean over pieces of a batch is not the value of the whole."""

    loss_weight: float = 1.0
    label: str = ""

    def __call__(self, *inputs: Any, **named_inputs: Any) -> Tensor:
        """The unweighted value, a scalar tensor."""
        return super().__call__(*inputs, **named_inputs)
