"""Networks that run out of memory on demand, and an observer that notes what it is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.models.sr_model import SRModel

PLACES = ("generator forward", "generator backward", "judge", "discriminator forward", "discriminator backward")
"""Where in a step; `judge` is the generator's pass through net_d."""

ERROR = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.50 GiB is free."
)


class Reports:
    """An observer that notes what did not fit."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, int]] = []

    def before_update(self, *_: Any) -> None:
        """Nothing to note."""

    def after_step(self, *_: Any) -> None:
        """Nothing to note."""

    def on_out_of_memory(self, network: str, batch_size: int, fitted: int, current_iter: int) -> None:
        self.seen.append((network, batch_size, fitted, current_iter))


@contextmanager
def memory_for(images: int, model: SRModel, place: str) -> Iterator[list[int]]:
    """At that place no more than so many images fit at a time; the sizes that were tried."""
    network, _, when = place.partition(" ")
    net = model.players["net_g" if network == "generator" else "net_d"].net
    tried: list[int] = []

    def look(count: int) -> None:
        tried.append(count)
        if count > images:
            raise torch.OutOfMemoryError(ERROR)

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        frozen = not next(module.parameters()).requires_grad  # net_d in the generator's step
        penalty = network == "discriminator" and inputs[0].requires_grad
        if frozen != (network == "judge") or penalty:
            return
        count = len(inputs[0]) // (2 if network == "discriminator" else 1)  # it sees GT and output
        if when == "backward":
            output.register_hook(lambda gradient: look(count))
        else:
            look(count)

    handle = net.register_forward_hook(hook)  # type: ignore[arg-type]
    try:
        yield tried
    finally:
        handle.remove()
