"""A term of the total loss: what an entry of `train.losses` does in a step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from traiNNer.losses.adversarial import AdversarialLoss
from traiNNer.losses.base import Loss, Value, total
from traiNNer.losses.iterative_loss_wrapper import IterativeLossWrapper, needs
from traiNNer.utils.weight_schedule import WeightSchedule


class Term:
    """A loss with its weight over the iterations, as the model uses it.

    Args:
        label: its name in the log.
        built: what `build_loss` returned.
    """

    def __init__(self, label: str, built: Loss | IterativeLossWrapper) -> None:
        self.label = label
        self.schedule: WeightSchedule = built.schedule
        self.loss: Loss = built.loss if isinstance(built, IterativeLossWrapper) else built
        self.needs = needs(self.loss)
        self._multiplier = 1.0
        self.balance = 1.0
        """What an automation multiplies the weight by."""
        self._components: dict[str, float] = {}

    def take(self, multipliers: Mapping[str, float]) -> None:
        """Multiply the weight by what loss schedulers say, by label, or by label/component for parts of the value."""
        self._multiplier = multipliers.get(self.label, 1.0)
        start = f"{self.label}/"
        self._components = {
            name.removeprefix(start): value for name, value in multipliers.items() if name.startswith(start)
        }

    @property
    def adversarial(self) -> bool:
        """Whether net_d takes part in it."""
        return isinstance(self.loss, AdversarialLoss)

    @property
    def measures_fidelity(self) -> bool:
        """Whether it compares an output with its GT and needs nothing else, so that a validation can compute it."""
        return self.needs <= {"output", "target"} and not self.schedule.negative

    def weight(self, current_iter: int) -> float:
        """The weight at an iteration, signed as the option file writes it."""
        return self.schedule.value(current_iter) * self._multiplier * self.balance

    def weights(self, current_iter: int) -> dict[str, float]:
        """The weight by the names under which it is logged: the loss's, and those of components with their own."""
        schedule = self.schedule.value(current_iter) * self.balance
        own = {f"{self.label}_{name}": schedule * multiplier for name, multiplier in self._components.items()}
        return {self.label: self.weight(current_iter), **own}

    def live(self, current_iter: int) -> bool:
        """Whether the loss is to be evaluated: it, or a component of it, has a weight."""
        return any(self.weights(current_iter).values())

    def weighted(self, value: Value, current_iter: int) -> Tensor:
        """A value's part of the total; the sign of a weight says what the target is, it is no factor."""
        factor = abs(self.weight(current_iter))
        if isinstance(value, Tensor) or not self._components:
            return factor * total(value)
        schedule = abs(self.schedule.value(current_iter) * self.balance)
        own = {name: schedule * multiplier for name, multiplier in self._components.items()}
        return total({name: own.get(name, factor) * part for name, part in value.items()})

    def trains_discriminator(self, current_iter: int) -> bool:
        """Whether net_d learns by it at an iteration."""
        start, ended = self.schedule.trains_discriminator_from, self.schedule.ended(current_iter)
        return self.adversarial and current_iter >= start and not ended

    def phases(self, current_iter: int) -> list[str]:
        """A line about each thing that begins at exactly this iteration."""
        schedule, phase = self.schedule, self.schedule.phase_at(current_iter)
        lines: list[str] = []
        if phase is not None and schedule.scheduled:
            weight = "" if phase == "disabled" else f", weight {schedule.value(current_iter):g}"
            lines.append(f"loss {self.label} {phase}{weight}")
        apart = 1 < current_iter == schedule.trains_discriminator_from != schedule.start_iter
        if apart and self.trains_discriminator(current_iter):
            lines.append(f"loss {self.label}: net_d starts to train")
        return lines


def parts(label: str, value: Value) -> dict[str, Tensor]:
    """A loss's value by the names under which it is logged: its label, with the component's name behind it."""
    return {label: value} if isinstance(value, Tensor) else {f"{label}_{name}": each for name, each in value.items()}
