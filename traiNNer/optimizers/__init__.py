"""Optimizers by name, each behind a short function whose annotated signature is its schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from traiNNer.utils.registry import OPTIMIZERS

LearningRate = Annotated[float, Field(gt=0, description="base learning rate, before warm-up and schedule")]
Betas = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
    Field(description="decay rates of the running means of the gradient and of its square"),
]
WeightDecay = Annotated[float, Field(ge=0, description="weight decay per step, relative to the learning rate")]
Eps = Annotated[float, Field(gt=0, description="added to the denominator")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="momentum factor")]


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
    """The hyperparameters of each parameter group: rates, betas, weight decay, ..."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def apply_settings(optimizer: torch.optim.Optimizer, saved: list[dict[str, Any]]) -> None:
    """Write hyperparameters into the groups; `load_state_dict` puts those of the checkpoint there, the file's count."""
    for group, values in zip(optimizer.param_groups, saved, strict=True):
        group.update(values)


def skips_on_device(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether torch's fused kernels exist for these parameters; they take `found_inf` and so need no host decision."""
    return all(parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point() for parameter in parameters)
