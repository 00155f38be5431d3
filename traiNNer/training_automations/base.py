"""Observations and decisions of automations: plain records, so that each can be tested without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from traiNNer.types import Better

Phase: TypeAlias = Literal["losses", "batch size"]
"""What changes: a loss begins, ends, reaches its target or is moved; or the number of images of a step."""

Occasion: TypeAlias = Literal["interval", "validation"]

Evidence: TypeAlias = Mapping[str, float | int | str]
"""Figures behind a decision, for `automations.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What one iteration gave, as numbers on the host."""

    iteration: int
    losses: Mapping[str, float] = field(default_factory=dict[str, float])
    """Unweighted live losses by label."""
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Effective weight of each loss."""
    scheduled_rate: float = 0.0
    """Rate of net_g by its schedule, without an automation's factor."""
    norms: Mapping[str, float] = field(default_factory=dict[str, float])
    """Gradient norm of each network before clipping, unscaled."""
    applied: bool = True
    """Whether the step was finite, so that weights changed."""
    scheduled_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """Weight of each loss by schedules and loss schedulers, without an automation's factor."""
    gradients: Mapping[str, float] = field(default_factory=dict[str, float])
    """Where sampled: L2 norm of each live loss's unweighted gradient at the last convolution of net_g."""
    samples: int = 0
    """Images of the iteration, of one process."""
    seconds: float = 0.0
    """From the end of the iteration before to the end of this one; 0 if unknown."""


@dataclass(frozen=True, kw_only=True)
class MemoryFacts:
    """A reading of the device's memory; bytes."""

    iteration: int
    batch_size: int
    """Images of a micro-batch since the reading before; 0 before the first step of a run."""
    used: int
    """In use on the whole device: by other programs now, by this process at its most since the reading before."""
    reserved: int
    """The most that this process has held since the reading before."""
    total: int
    """What there is; for a CPU, what this process may use."""


@dataclass(frozen=True, kw_only=True)
class OutOfMemoryFacts:
    """A step that did not fit and was run again in pieces; nothing of it was lost."""

    iteration: int
    network: str
    """Whose transaction it was, such as `net_g`."""
    batch_size: int
    """Images of the micro-batch that did not fit."""
    fitted: int
    """Images of the pieces that did."""


@dataclass(frozen=True, kw_only=True)
class ValidationFacts:
    """What one validation gave."""

    iteration: int
    metrics: Mapping[str, float]
    """Such as `val/psnr`."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an automation wants to be done."""

    reason: str
    """In a word or two, such as `optimization`."""
    text: str
    """The log line behind `Automation <Name>: `."""
    evidence: Evidence = field(default_factory=dict[str, float | int | str])
    counts: bool = True
    """Against `max_adjustments`; a recovery does not."""


@dataclass(frozen=True, kw_only=True)
class Note(Decision):
    """Nothing changes; it is only told."""

    about: str = ""
    """What happened, where the words for it may be others each time; empty if the text says the same every time."""


@dataclass(frozen=True, kw_only=True)
class SetLearningRateFactor(Decision):
    """Multiply the scheduled rates of all networks by another factor from the next iteration on."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class StopTraining(Decision):
    """End the run after this iteration, with its last state saved."""


@dataclass(frozen=True, kw_only=True)
class SetClipThreshold(Decision):
    """Clip a network's gradients at another norm."""

    network: str
    threshold: float


@dataclass(frozen=True, kw_only=True)
class SetSchedule(Decision):
    """Give all networks this schedule of the rate from the next iteration on, as if the option file held it."""

    scheduler: Mapping[str, Any]
    """`type` and its parameters, complete."""


@dataclass(frozen=True, kw_only=True)
class SetBatchSize(Decision):
    """Use other micro-batches from the next iteration on, in every process."""

    batch_size: int
    """Images of the largest micro-batch."""
    micro_batches: tuple[int, ...]
    """Images of each micro-batch of an iteration, of one process."""
    rate_factor: float = 1.0
    """What the rates of all networks are multiplied by for the other effective batch, beside other factors."""


@dataclass(frozen=True, kw_only=True)
class SetLossWeight(Decision):
    """Multiply a loss's weight by another factor from the next iteration on."""

    label: str
    factor: float


def to_plain(decision: Decision) -> dict[str, Any]:
    """A decision as a checkpoint has it."""
    return {"kind": type(decision).__name__, **asdict(decision)}


def from_plain(plain: Mapping[str, Any]) -> Decision:
    """A decision out of a checkpoint."""
    kinds = {kind.__name__: kind for kind in Decision.__subclasses__()}
    return kinds[plain["kind"]](**{name: value for name, value in plain.items() if name != "kind"})


@dataclass(frozen=True, kw_only=True)
class Change:
    """What applying a decision changed."""

    what: str
    """Such as `clip_threshold/net_g`."""
    before: float | str | None = None
    after: float | None = None


class Controls(Protocol):
    """What decisions act upon."""

    def apply(self, decision: Decision) -> list[Change]:
        """Carry a decision out, from the next iteration on."""
        ...


@dataclass(frozen=True, kw_only=True)
class LossFacts:
    """What an entry of `train.losses` says about a loss."""

    kind: str
    """What it compares, see `LossKind`."""
    share: float | None = None
    """Wanted share of the gradient, relative to the anchor's."""
    fixed: bool = False
    """Its weight is never touched."""


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """What the option file and the device say about batches."""

    size: int = 1
    """Images of a micro-batch of one process, as the option file has them."""
    accum_iter: int = 1
    """Micro-batches of an iteration."""
    images: int = 0
    """Of the training set, for one process."""
    total_memory: int = 0
    """Of the device; bytes."""
    fixed: str = ""
    """Why the size of a batch has to stay, such as a network compiled into CUDA graphs; empty if it may change."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known of a run before its first iteration."""

    total_iter: int
    first_iteration: int = 1
    parameters: int = 0
    """Of net_g."""
    val_freq: int = 0
    """Iterations between validations; 0 for none."""
    iterations_per_epoch: int = 0
    better: Mapping[str, Better] = field(default_factory=dict[str, Better])
    """What validations compute, and where it improves; the first set's come first."""
    perceptual: frozenset[str] = frozenset()
    """Those of `better` that compare features of a network, as LPIPS and DISTS do."""
    adversarial_from: int | None = None
    """First iteration with a live GAN loss; None for a run without one."""
    trend_losses: frozenset[str] = frozenset()
    """Labels of pixel, structure and frequency losses, whose unweighted sum says whether training goes on."""
    has_schedule: bool = False
    """Whether the option file has a schedule of the rate."""
    batch: BatchFacts = field(default_factory=BatchFacts)
    losses: Mapping[str, LossFacts] = field(default_factory=dict[str, LossFacts])
    """By label, in the option file's order."""
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of the training images, by name, where the run is to be calibrated by them."""


class Automation(Protocol):
    """A state machine: what it is told and when it is asked depends on iterations and values alone.

    It touches no model, optimizer, loader, file or clock; its state has a bounded size.
    """

    name: str
    """As it stands in log lines."""
    asked: str
    """When it is asked what to do: at fixed `interval`s, which nothing shifts, or after each `validation`."""

    @property
    def max_adjustments(self) -> int | None:
        """Counted decisions after which the last values hold, unless the option file says another number; None: any."""
        ...

    def start(self, run: RunFacts) -> list[str]:
        """Take the facts of the run, before a state is loaded; lines for the start of the log.

        Raises:
            ConfigError: the options do not fit the run.
        """
        ...

    def observe_phase(self, iteration: int, what: Phase) -> None:
        """Something changes with this iteration: what is trained for, or the batch size."""
        ...

    def observe_step(self, step: StepFacts) -> None:
        """Take an iteration; they come in order."""
        ...

    def observe_validation(self, validation: ValidationFacts) -> None:
        """Take a validation."""
        ...

    def decide(self, iteration: int) -> list[Decision]:
        """What is to be done now, if anything."""
        ...

    def holding(self) -> list[Decision]:
        """What it has changed so far and holds, within the bounds of the present options; applied after a resume."""
        ...

    def fallback(self) -> list[Decision]:
        """What takes effect when the automation has failed and is off for the rest of the run."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Dicts, lists, numbers and strings."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state."""
        ...


@runtime_checkable
class ObservesMemory(Protocol):
    """An automation that also wants readings of memory, and to hear of steps that did not fit.

    With one in the run, such steps are run again in pieces.
    """

    def observe_memory(self, memory: MemoryFacts) -> None:
        """Take a reading; they come at fixed intervals, before `decide` is asked."""
        ...

    def observe_out_of_memory(self, failure: OutOfMemoryFacts) -> None:
        """Take a failure; `decide` is asked at the end of the same iteration."""
        ...


@runtime_checkable
class ObservesGradients(Protocol):
    """An automation that also wants to know each loss's gradient, at iterations of its own choice."""

    def samples_gradients(self, iteration: int) -> bool:
        """Whether `StepFacts.gradients` are wanted for an iteration; asked ahead, at fixed intervals."""
        ...
