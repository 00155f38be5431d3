"""Optimizers by name, each behind a short function whose annotated signature is its schema."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Protocol, cast

import torch
from pydantic import Field
from torch import nn

from traiNNer.utils.registry import OPTIMIZERS

LearningRate = Annotated[float, Field(gt=0, description="base learning rate, before warm-up and schedule")]
Betas = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
    Field(description="decay rates of the running means of the gradient and of its square"),
]
ThreeBetas = Annotated[
    tuple[
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
        Annotated[float, Field(ge=0, lt=1)],
    ],
    Field(description="decay rates of the running means of the gradient, of its change and of its square"),
]
WeightDecay = Annotated[float, Field(ge=0, description="weight decay per step, relative to the learning rate")]
Eps = Annotated[float, Field(gt=0, description="added to the denominator")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="momentum factor")]
AmsGrad = Annotated[bool, Field(description="divide by the largest mean square so far; 4 more bytes a weight")]
WarmupSteps = Annotated[
    int,
    Field(ge=0, description="warm-up of the optimizer's own, in steps, beside `warmup_iter`; the average knows of it"),
]
AveragePower = Annotated[float, Field(ge=0, description="step t counts t^r in the average")]
RatePower = Annotated[
    float, Field(ge=0, description="a step counts its largest rate so far to this power in the average")
]

_FROM_THE_CHECKPOINT = frozenset(
    (
        "step",
        *("d", "d0", "d_max", "d_hat", "d_numerator", "d_de_nom"),  # Prodigy's distance; d0 is the unit of its sums
        *("weight_sum", "lr_max", "train_mode"),  # schedule-free averages
        *("max_precondition_dim", "precondition_1d"),  # the sizes of SOAP's matrices
    )
)
"""Entries of parameter groups that the optimizer learns, or that its state is built by: no settings."""

_NEEDS = {"amsgrad": "max_exp_avg_sq", "momentum": "momentum_buffer", "centered": "grad_avg"}
"""A setting of torch's optimizers, and what it keeps for each weight; without it that starts at 0."""


class _Averaging(Protocol):
    """A schedule-free optimizer: trains at y, an interpolation between its fast weights z and their average x."""

    param_groups: list[dict[str, Any]]

    def eval(self) -> None:
        """Turn the weights into x."""
        ...

    def train(self) -> None:
        """Turn the weights into y, to rounding."""
        ...


def build_optimizer(options: Mapping[str, Any], net: nn.Module) -> torch.optim.Optimizer:
    """Build `{"type": NAME, "lr": ..., **parameters}` over the trainable parameters of `net`.

    Each parameter group keeps its base rate under `initial_lr`.

    Raises:
        ConfigError: unknown type or parameter, or a value outside its range.
    """
    optimizer = OPTIMIZERS.build(options, [parameter for parameter in net.parameters() if parameter.requires_grad])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The hyperparameters of each parameter group: rates, betas, weight decay, ... ; not what is learned."""
    return [
        {key: value for key, value in group.items() if key != "params" and key not in _FROM_THE_CHECKPOINT}
        for group in optimizer.param_groups
    ]


def apply_settings(optimizer: torch.optim.Optimizer, saved: list[dict[str, Any]]) -> None:
    """Write hyperparameters into the groups; `load_state_dict` puts those of the checkpoint there, the file's count.

    What the optimizer has learned stays, such as Prodigy's distance. A schedule-free optimizer's average does too: if
    its interpolation changes, the training weights follow.
    """
    moved = keeps_average(optimizer) and [group["betas"] for group in optimizer.param_groups] != [
        values["betas"] for values in saved
    ]
    averaging = cast("_Averaging", optimizer)
    if moved:
        averaging.eval()
    for group, values in zip(optimizer.param_groups, saved, strict=True):
        group.update(values)
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                state.update({key: values[key] for key in state.keys() & values.keys()})  # SOAP has copies there
                needed = (key for setting, key in _NEEDS.items() if group.get(setting) and key not in state)
                state.update({key: torch.zeros_like(parameter) for key in needed})
    if moved:
        averaging.train()


def keeps_average(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer is schedule-free: the weights to validate and release are not those that it trains."""
    return hasattr(optimizer, "eval") and hasattr(optimizer, "train")


@contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Within, the weights of a schedule-free optimizer are their average x; afterwards bit for bit what they were.

    Other optimizers are left alone. Not to be entered twice, and not to be trained in.
    """
    if not keeps_average(optimizer):
        yield
        return
    averaging = cast("_Averaging", optimizer)
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = [weight.detach().clone() for weight in weights]  # the way back from x rounds
    try:
        averaging.eval()
        yield
    finally:
        averaging.train()
        with torch.no_grad():
            torch._foreach_copy_(weights, kept)


def effective_lr(optimizer: torch.optim.Optimizer) -> float | None:
    """The rate of an optimizer that finds its own, d lr for Prodigy; None for others. Costs no synchronization."""
    group = optimizer.param_groups[0]
    return group["d"] * group["lr"] if isinstance(group.get("d"), float) else None


def skips_on_device(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether torch's fused kernels exist for these parameters; they take `found_inf` and so need no host decision."""
    return all(parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for parameter in parameters)
