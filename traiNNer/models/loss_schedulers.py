"""The loss schedulers of a run, as its model uses them: several may act, each on losses of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from traiNNer.losses.flexible_loss_scheduler import FlexibleLossScheduler
from traiNNer.utils import dist


class LossSchedulers:
    """Multipliers of the losses' weights, and what validations make of them.

    Args:
        schedulers: in the option file's order.
    """

    def __init__(self, schedulers: Sequence[FlexibleLossScheduler] = ()) -> None:
        self.named = {
            "loss_scheduler" if number == 1 else f"loss_scheduler_{number}": scheduler
            for number, scheduler in enumerate(schedulers, 1)
        }
        """By the names that log and TensorBoard use."""

    @property
    def tracked(self) -> dict[str, FlexibleLossScheduler]:
        """By names for the checkpoint, which say what each moves: another order in the option file is no other run."""
        return {
            f"loss_scheduler/{'+'.join(each.params.sources)} to {'+'.join(each.params.targets)}": each
            for each in self.named.values()
        }

    @property
    def watched(self) -> frozenset[str]:
        """Labels of the losses that validations have to compute."""
        return frozenset(label for each in self.named.values() if each.enabled for label in each.watched_losses)

    def multipliers(self, current_iter: int) -> dict[str, float]:
        """Label, or label/component, to what its weight is multiplied by at an iteration."""
        for each in self.named.values():
            each.at(current_iter)
        return {name: value for each in self.named.values() for name, value in each.get_loss_weights().items()}

    def announce(self, current_iter: int) -> list[str]:
        """A line for each scheduler that reaches a point of its `schedule` at exactly this iteration."""
        reached = [(name, each.at(current_iter)) for name, each in self.named.items()]
        return [f"{_title(name)}: {adaptation}" for name, adaptation in reached if adaptation is not None]

    def update(self, metrics: Mapping[str, float], current_iter: int) -> list[str]:
        """Take the figures of a validation; a line for each adaptation. Every process decides on those of rank 0."""
        if not self.named:
            return []
        metrics = dist.broadcast_object(dict(metrics))
        watching = {name: each for name, each in self.named.items() if each.params.adaptation_trigger != "iteration"}
        adaptations = [(name, each.step(metrics, current_iter)) for name, each in watching.items()]
        return [f"{_title(name)}: {adaptation}" for name, adaptation in adaptations if adaptation is not None]

    def scalars(self) -> dict[str, float]:
        """Points for TensorBoard's curves."""
        values: dict[str, float] = {}
        for name, each in self.named.items():
            values[f"{name}/weight_source"] = each.weight_source
            values[f"{name}/weight_target"] = each.weight_target
            values[f"{name}/progress"] = each.progress
            if each.monitored is not None:
                values[f"{name}/monitored"] = each.monitored
        return values


def _title(name: str) -> str:
    return name.replace("_", " ")
