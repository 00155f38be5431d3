"""The leaf module: protocols and plain records that the layers exchange. It imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

from torch import Tensor

Better = Literal["higher", "lower"]
"""Direction in which a metric improves."""


@runtime_checkable
class Stateful(Protocol):
    """Whatever changes during training; tracked by the checkpoint under a unique name."""

    def state_dict(self) -> dict[str, Any]:
        """Dicts with string or integer keys, lists, numbers, strings and tensors only."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take over what `state_dict` returned."""
        ...


class Sample(TypedDict, total=False):
    """One item of a data set. Images are (3, H, W) float32 RGB in [0, 1]; fields (C, H, W) float32, normalized."""

    lq: Tensor
    gt: Tensor
    lq_path: str
    gt_path: str
    fault: str
    """Set by the loader when this sample stands in for an unreadable file: `PATH: what is wrong`."""


class Batch(TypedDict):
    """Collated samples. Images are (B, 3, H, W) float32 RGB in [0, 1]; fields (B, C, H, W) float32, normalized."""

    lq: Tensor
    gt: Tensor
    lq_path: list[str]
    gt_path: list[str]
    fault: list[str]
    """One line per unreadable file that was replaced in this batch; usually empty."""


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """How the channels of fields became what networks see: (value - mean) / std, a number for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """Facts about a network that others need; `build_network` puts it on the network as `network_info`."""

    type: str
    """Registered name, the canonical spelling."""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    """Complete constructor parameters, enough to build the same network again."""
    scale: int = 1
    in_channels: int = 3
    out_channels: int = 3
    multiple_of: int = 1
    """Input height and width must be multiples of this; callers pad by reflection and crop the result."""
    minimum: int = 1
    """Smallest input height and width, px."""
    supports_half: bool = True
    supports_bfloat16: bool = True
    batch_coupled: bool = False
    """Samples of a batch influence each other (BatchNorm in training, noise drawn in the network)."""
    normalization: Normalization | None = None
    """That of the fields it was trained on; None for images."""


class Metric(Protocol):
    """A full-reference image metric."""

    better: Better
    minimum: int
    """Smallest height and width that it can measure, px, its crop included."""

    def __call__(self, output: Tensor, target: Tensor) -> float:
        """Value for one image pair, each (1, 3, H, W) float32 RGB in [0, 1]."""
        ...

    def describe(self) -> str:
        """Channel, crop and range, for the log."""
        ...


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What an optimizer step was."""

    iteration: int
    values: dict[str, Tensor]
    """Device scalars, see `SRModel.record`."""
    weights: dict[str, float]
    """The weight of each loss, everything that multiplies it included."""
    scheduled_weights: dict[str, float]
    """The same without the factors of automations."""
    scheduled_rate: float
    """Of net_g, without the factors of automations."""
    samples: int
    """Images of this process."""


class StepObserver(Protocol):
    """What a model calls within its optimize step; the training automations' manager is one."""

    def before_update(self, network: str, gradient_norm: Tensor, current_iter: int) -> None:
        """Gradients of `network` are unscaled and complete, the optimizer has not stepped. Norm is a device scalar."""
        ...

    def after_step(self, report: StepReport) -> None:
        """The iteration's updates are done."""
        ...

    def on_out_of_memory(self, network: str, batch_size: int, fitted: int, current_iter: int) -> None:
        """The transaction of `network` did not fit with micro-batches of so many images, and did in smaller pieces."""
        ...
