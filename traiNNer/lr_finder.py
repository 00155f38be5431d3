"""Learning-rate range test (`train.py -opt FILE --find_lr`): net_g's loss while the rate grows from step to step.

L. N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3. The steps are the run's own
(data, losses, optimizer, accumulation, mixed precision, clipping); what they change is put back afterwards.

Batches differ more than what a few steps teach. So the same batches are also measured at rate 0, and the curve is each
loss relative to that of its batch before any training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from traiNNer.data import TrainLoader
from traiNNer.models.sr_model import SRModel
from traiNNer.schedulers import LearningRate
from traiNNer.types import Stateful
from traiNNer.utils import dist
from traiNNer.utils.errors import ConfigError, Problem, RunError
from traiNNer.utils.rng import RandomState

STEPS = 100
LOWEST, HIGHEST = 1e-7, 10.0
"""The rates of the first and the last step."""

REACH = 4
"""The smoothed loss is a mean over so many steps on either side, with weights that fall linearly."""

DIVERGED = 4.0
"""The test ends where the smoothed loss exceeds its smallest value so many times."""

CLIPPED = 10.0
"""A single loss counts for at most so many times the loss before any training."""

DEPTH = 0.5
"""The valley of the curve is what is lower than this part of its depth."""

PLACE = 0.4
"""Where in the valley the suggestion lies, on the logarithmic axis: 0 is its low end, 1 its high one."""


# the curve: pure functions


@dataclass(frozen=True)
class Curve:
    """What a test measured, one value for each step until the last or the divergence."""

    rates: Sequence[float]
    raw: Sequence[float]
    """Loss before the step's update."""
    smoothed: Sequence[float]
    """The same without the batches' differences, averaged over neighbours."""


def growing_rates(count: int = STEPS, lowest: float = LOWEST, highest: float = HIGHEST) -> list[float]:
    """Rates in geometric progression."""
    return [lowest * (highest / lowest) ** (index / (count - 1)) for index in range(count)]


def evened(losses: Sequence[float], untrained: Sequence[float]) -> list[float]:
    """Losses without the differences between batches, of which `untrained` has the losses before any training.

    Their ratio, times the mean of `untrained`; where losses are not all above 0, their difference plus that mean.
    """
    mean = sum(untrained) / len(untrained)
    if min(untrained) > 0:
        values = [mean * loss / before for loss, before in zip(losses, untrained, strict=False)]
    else:
        values = [mean + loss - before for loss, before in zip(losses, untrained, strict=False)]
    return [min(value, times(CLIPPED, mean)) for value in values]


def smooth(values: Sequence[float]) -> list[float]:
    """The weighted mean of each value and its neighbours, on both sides alike, so that nothing is shifted."""
    smoothed: list[float] = []
    for index in range(len(values)):
        near = range(max(index - REACH, 0), min(index + REACH + 1, len(values)))
        weights = [REACH + 1 - abs(index - at) for at in near]
        smoothed.append(sum(weight * values[at] for weight, at in zip(weights, near, strict=True)) / sum(weights))
    return smoothed


def diverges(smoothed: Sequence[float]) -> bool:
    """Whether the last value is far above the smallest."""
    return smoothed[-1] > times(DIVERGED, min(smoothed))


def times(factor: float, loss: float) -> float:
    """A loss that is `factor` > 1 times as bad; losses may be below 0."""
    return loss + (factor - 1) * abs(loss)


def valley(curve: Curve) -> tuple[float, float] | None:
    """The lowest and the highest rate at which the smoothed loss has come down by half of what it does at best.

    Below them the loss hardly falls, above them it blows up. None if it never falls by a thousandth.
    """
    start, lowest = curve.smoothed[0], min(curve.smoothed)
    if start - lowest < 1e-3 * abs(start):
        return None
    level = start - DEPTH * (start - lowest)
    inside = [rate for rate, loss in zip(curve.rates, curve.smoothed, strict=True) if loss <= level]
    return inside[0], inside[-1]


def suggestion(curve: Curve) -> float | None:
    """The rate two fifths of the way into the valley, on the logarithmic axis; None without a valley.

    The place was found by experiment, see docs/find-lr.md.
    """
    ends = valley(curve)
    return None if ends is None else ends[0] ** (1 - PLACE) * ends[1] ** PLACE


def written(rate: float) -> str:
    """Two digits, as one writes them into an option file: 3.2e-4."""
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


# the test


def find_lr(model: SRModel, loader: TrainLoader, iteration: int = 1) -> Curve:
    """Measure net_g's loss at growing rates, from its present weights; everything is as before afterwards.

    The losses are those that act at `iteration`, counted from 1, and need no discriminator.

    Raises:
        ConfigError: there is no such loss, or there are several processes.
        RunError: the loss is not finite before any training.
    """
    if dist.world_size() > 1:
        message = f"found {dist.world_size()} processes; accepted: one, started without torchrun"
        raise ConfigError(Problem(key="--find_lr", message=message))
    alone = model.generator_alone(iteration)
    if not alone.losses:
        message = (
            f"no loss of this run acts at iteration {iteration:,} without a discriminator; accepted: one that does"
        )
        raise ConfigError(Problem(key="--find_lr", message=message))
    untrained: list[float] = []
    for loss in _steps(alone, loader, iteration, [0.0] * STEPS):
        untrained.append(loss)
        if not math.isfinite(loss):
            raise RunError(f"--find_lr: the loss of batch {len(untrained)} is {loss} before any training")
    rates = growing_rates()
    raw: list[float] = []
    with closing(_steps(alone, loader, iteration, rates)) as steps:
        for loss in steps:
            if not math.isfinite(loss):
                break
            raw.append(loss)
            if diverges(smooth(evened(raw, untrained))):
                break
    return Curve(rates[: len(raw)], raw, smooth(evened(raw, untrained)))


def _steps(model: SRModel, loader: TrainLoader, iteration: int, rates: Sequence[float]) -> Generator[float]:
    """The total loss of a step at each rate, before its update; infinite if a gradient is not finite.

    What the steps change is put back when the last one is done or the generator is closed.
    """
    player, rate = model.players["net_g"], 0.0
    first = player.optimizer.param_groups[0]["initial_lr"]
    with _put_back(model, loader), torch.autograd.set_detect_anomaly(False):
        player.learning_rate = LearningRate(player.optimizer, lambda _iteration, _base: rate / first)
        for rate in rates:  # noqa: B007 - the schedule above reads it
            model.feed_data(loader.next_batches())
            model.optimize_parameters(iteration)
            yield _total(model)


def _total(model: SRModel) -> float:
    """The weighted sum of the last step's losses; what a float16 scale overflows with does not count against it."""
    record, total = model.record, 0.0
    if not record["finite"] and (model.players["net_g"].loss_scale is None or not record["losses_finite"]):
        return math.inf  # host-device synchronization, as below: the test ends at the step that diverges
    for label in model.losses:
        names = [label] if label in record else [name for name in record if name.startswith(f"{label}_")]
        weights = [abs(model.loss_weights.get(name, model.loss_weights[label])) for name in names]
        total += float(sum(weight * record[name] for name, weight in zip(names, weights, strict=True)))
    return total


@contextmanager
def _put_back(model: SRModel, loader: TrainLoader) -> Iterator[None]:
    """Undo within this process whatever steps of net_g change, however the block ends."""
    player = model.players["net_g"]
    modules = [module for root in (player.net, *model.losses.values()) for module in root.modules()]
    modes = [module.training for module in modules]
    tensors = {id(t): t for module in modules for t in (*module.parameters(False), *module.buffers(False))}
    copies = {key: tensor.detach().to("cpu", copy=True) for key, tensor in tensors.items()}
    learning_rate = player.learning_rate
    parts: list[Stateful] = [player.optimizer, loader]
    parts += [RandomState()] if player.loss_scale is None else [player.loss_scale, RandomState()]
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    try:
        yield
    finally:
        player.learning_rate = learning_rate
        player.optimizer.zero_grad(set_to_none=True)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(copies[key])
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)


# what the user gets


def plot(curve: Curve, path: Path, title: str) -> None:
    """Draw the curve and its suggestion into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.raw, ".", color="0.7", label="loss of each step")
    axes.plot(curve.rates, curve.smoothed, color="tab:blue", label="smoothed, without the differences between batches")
    ends, suggested = valley(curve), suggestion(curve)
    if ends is not None and suggested is not None:
        axes.axvspan(*ends, color="tab:blue", alpha=0.08, label="half of the fall and more")
        axes.axvline(suggested, color="tab:red", linestyle="--", label=f"suggestion: {written(suggested)}")
    shown = [*curve.smoothed, *curve.raw]
    top = min(max(shown), times(1.5, max(curve.raw[: len(curve.raw) // 2])))  # what blows up may leave the picture
    margin = 0.05 * (top - min(shown))
    axes.set(xscale="log", xlabel="learning rate of net_g", ylabel="loss", title=title)
    axes.set_ylim(min(shown) - margin, top + margin)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def report(curve: Curve, path: Path) -> str:
    """The line that says what to write into the option file."""
    suggested = suggestion(curve)
    if suggested is None:
        return f"no rate from {written(LOWEST)} to {written(curve.rates[-1])} lowers the loss; see {path}"
    return f"suggestion: train.optim_g.lr: {written(suggested)}  (range test over {len(curve.rates)} rates: {path})"
