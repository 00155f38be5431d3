"""What every loss is."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from torch import Tensor, nn

from traiNNer.utils.weight_schedule import WeightSchedule

Value: TypeAlias = Tensor | dict[str, Tensor]
"""What a loss returns: a scalar, or its named components, whose sum it is."""


LossKind: TypeAlias = Literal["pixel", "structure", "frequency", "perceptual", "color", "adversarial", "other"]
"""What a loss compares; the first three fall steadily while a network learns to reconstruct."""


class Loss(nn.Module):
    """A module whose forward returns the unweighted value; its entry of `train.losses` gives it weight and label.

    Facts that others, the contract tests among them, need; a class's, or an instance's where options decide:
    """

    kind: LossKind = "other"
    """What it compares, by which automations treat it."""

    minimum: float | None = 0.0
    """The value for an output that equals its target, where it is smallest; None if it is not smallest there."""

    batch_coupled: bool = False
    """Images of a batch influence each other's part: the mean over pieces of a batch is not the value of the whole."""

    sums_images: bool = False
    """The value is a sum over the images of a batch, not their mean."""

    channels: int | None = None
    """Channels that output and target must have, 3 where RGB is meant; None: any."""

    images_only: bool = False
    """Its constants are levels of images in [0, 1], which fields do not have."""

    learns: ClassVar[bool] = False
    """Its buffers change during training, so they are in the checkpoint."""

    unused: frozenset[str] = frozenset()
    """Inputs that forward takes but that these options do not use; they are not computed, and not handed to it."""

    schedule: WeightSchedule = WeightSchedule(loss_weight=1.0)
    label: str = ""

    def __init__(self) -> None:
        super().__init__()

    @property
    def loss_weight(self) -> float:
        """The base weight of its entry."""
        return self.schedule.loss_weight

    def __call__(self, *inputs: Any, **named_inputs: Any) -> Any:
        """The unweighted value: a scalar tensor, or a dict of them."""
        return super().__call__(*inputs, **named_inputs)


def total(value: Value) -> Tensor:
    """A loss's value as one scalar."""
    return value if isinstance(value, Tensor) else sum(value.values(), start=next(iter(value.values())).new_zeros(()))
