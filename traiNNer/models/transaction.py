"""The passes of one network's part of a step, run again in smaller pieces where memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from traiNNer.models.player import Player
from traiNNer.types import StepObserver
from traiNNer.utils import dist
from traiNNer.utils.balanced import balanced
from traiNNer.utils.errors import RunError
from traiNNer.utils.out_of_memory import figures, free_memory, is_out_of_memory
from traiNNer.utils.rng import capture_torch, restore_torch

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Images `start` to `stop` of a micro-batch, or all of it."""

    number: int
    """The micro-batch, from 0."""
    start: int
    stop: int
    parts: float
    """What its loss is divided by: images of the whole iteration / images of the piece."""
    fraction: float
    """Its part of the micro-batch, 1 for all of it."""
    exchanges: bool
    """Several processes exchange gradients in its backward pass."""

    @property
    def images(self) -> int:
        """How many they are."""
        return self.stop - self.start

    def of(self, images: Tensor) -> Tensor:
        """Its part of a micro-batch's images."""
        return images if self.images == len(images) else images[self.start : self.stop]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a transaction is to do."""

    network: str
    player: Player
    sizes: Sequence[int]
    """Images of each micro-batch."""
    image: Sequence[int]
    """Height and width of the network's input, px."""
    current_iter: int
    buffers: Sequence[Tensor] = field(default_factory=tuple)
    """Whatever a forward pass may change."""


class Transactions:
    """Runs transactions; with recovery on, one that does not fit in memory is run again until it does.

    A transaction is the forward and backward passes of one network's micro-batches, between `Player.begin` and
    `Player.commit`. The same images then go through in pieces, whose largest is halved until all fit; pieces of a
    micro-batch differ by one image at most, and each counts by its share of the images, so that gradients and values
    add up to the whole's. The random state is put back once, at the start: numbers drawn for each image (dropout) come
    in another order in pieces, and are as random as before. Buffers are put back before each piece to what they were
    at its micro-batch's start, and are their mean over its pieces, weighted by images, at its end: as after one forward
    pass where their rule is linear in the batch (running means) or does not see it (spectral norm).

    Several processes agree, over the host, on whether all succeeded and else on the size of the pieces; gradients are
    exchanged after that, in one piece, so that none waits for another that has failed.

    Args:
        device: where the networks are.
        recovers: run again what does not fit; else that ends the run.
        observer: told of each transaction that did not fit and then did.
    """

    def __init__(self, device: torch.device, *, recovers: bool = False, observer: StepObserver | None = None) -> None:
        self.recovers = recovers
        self._device, self.observer = device, observer
        self._agrees = recovers and dist.world_size() > 1
        self._group = dist.host_group() if self._agrees else None

    def run(self, asked: Asked, passes: Callable[[Piece], Result]) -> list[tuple[Piece, Result]]:
        """Run `passes`, forward and backward, over the micro-batches; what it returned for each piece.

        Args:
            asked: what is to be done.
            passes: must keep nothing but its result.

        Raises:
            RunError: it does not fit, not even image by image where recovery is on.
        """
        largest = max(asked.sizes)
        start = _Start(asked.buffers) if self.recovers else None
        attempt = self._attempt(asked, largest, passes)
        while (smaller := self._agreed(largest, attempt.failure)) is not None:
            if start is None or smaller == 0:
                raise RunError(_message(asked, largest, attempt.failure, recovers=self.recovers))
            largest, attempt = smaller, None
            asked.player.drop_gradients()
            free_memory(self._device)
            start.put_back()
            attempt = self._attempt(asked, largest, passes)
        if attempt.gradients is not None:
            asked.player.set_gradients(dist.average_(attempt.gradients))
        if largest < max(asked.sizes) and self.observer is not None:
            self.observer.on_out_of_memory(asked.network, max(asked.sizes), largest, asked.current_iter)
        return attempt.results

    def _attempt(self, asked: Asked, largest: int, passes: Callable[[Piece], Result]) -> _Attempt[Result]:
        """One try; when this has returned, nothing keeps the error or its frames, and so their tensors."""
        try:
            results = [(piece, passes(piece)) for piece in self._pieces(asked, largest)]
            return _Attempt(results, asked.player.flat_gradients() if self._agrees else None)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = figures(error)
        return _Attempt([], None, failure)

    def _agreed(self, largest: int, failure: str) -> int | None:
        """The size of the pieces to try next, 0 where there is none; None when all processes have succeeded."""
        smaller = largest if not failure else -(-largest // 2) if largest > 1 else 0
        succeeded, smaller = dist.smallest_of([not failure, smaller], self._group)
        return None if succeeded else smaller

    def _pieces(self, asked: Asked, largest: int) -> Iterator[Piece]:
        images = sum(asked.sizes)
        for number, size in enumerate(asked.sizes):
            parts = balanced(size, largest)
            mean = _MeanBuffers(asked.buffers) if len(parts) > 1 else None
            start = 0
            for part in parts:
                if mean is not None:
                    mean.begin()
                last = number == len(asked.sizes) - 1 and start + part == size
                yield Piece(
                    number=number,
                    start=start,
                    stop=start + part,
                    parts=images / part,
                    fraction=part / size,
                    exchanges=last and not self._agrees,
                )
                if mean is not None:
                    mean.add(part)
                start += part
            if mean is not None:
                mean.finish()


def weighted_mean(values: Sequence[dict[str, Tensor]], images: Sequence[int]) -> dict[str, Tensor]:
    """The mean of device scalars by label, each weighted by the images that it is of."""
    stacks = {label: torch.stack([each[label] for each in values]) for label in values[0]}
    if len(set(images)) == 1:
        return {label: stack.mean() for label, stack in stacks.items()}
    total = sum(images)
    return {
        label: sum(
            (value * (size / total) for value, size in zip(stack, images, strict=True)), start=stack.new_zeros(())
        )
        for label, stack in stacks.items()
    }


def joined(outputs: Sequence[tuple[Piece, Tensor]]) -> list[Tensor]:
    """Micro-batches from the images of their pieces, which are in order."""
    by_number: dict[int, list[Tensor]] = {}
    for piece, images in outputs:
        by_number.setdefault(piece.number, []).append(images)
    return [images[0] if len(images) == 1 else torch.cat(images) for images in by_number.values()]


@dataclass(frozen=True)
class _Attempt(Generic[Result]):
    """What came of a try."""

    results: list[tuple[Piece, Result]]
    gradients: Tensor | None = None
    """In one piece, where processes are to exchange them now."""
    failure: str = ""
    """What the error reports."""


class _Start:
    """Buffers and random state at the start of a transaction."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self._buffers, self._saved = buffers, [buffer.clone() for buffer in buffers]
        self._random = capture_torch()

    def put_back(self) -> None:
        _copy(self._saved, self._buffers)
        restore_torch(self._random)


class _MeanBuffers:
    """Buffers over the pieces of one micro-batch."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self._buffers, self._saved = buffers, [buffer.clone() for buffer in buffers]
        self._mean = [buffer.clone() for buffer in buffers]
        self._images = 0

    def begin(self) -> None:
        """A piece is about to pass."""
        _copy(self._saved, self._buffers)

    @torch.no_grad()
    def add(self, images: int) -> None:
        """A piece of so many images has passed."""
        self._images += images
        for mean, buffer in zip(self._mean, self._buffers, strict=True):
            if mean.is_floating_point() and images < self._images:
                mean.lerp_(buffer, images / self._images)  # to the bit what it was where the two are equal
            else:
                mean.copy_(buffer)

    def finish(self) -> None:
        """All pieces have passed."""
        _copy(self._mean, self._buffers)


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _message(asked: Asked, largest: int, failure: str, *, recovers: bool) -> str:
    """What was asked for, what there is, what to lower."""
    height, width = asked.image
    images = f"{max(asked.sizes)} image{'' if max(asked.sizes) == 1 else 's'} of {height}x{width} px"
    pieces = f", nor with {largest} at a time" if largest < max(asked.sizes) else ""
    what = f"out of memory at iteration {asked.current_iter}: the passes of {asked.network} do not fit with {images}"
    there = failure or "another process reports it"
    lower = "lower " + ("" if largest == 1 else "batch_size_per_gpu or ") + "lq_size (gt_size), or set use_amp"
    recovery = "" if recovers else ", or turn on the automation DynamicBatchSizeOptimizer, which goes on in pieces"
    return f"{what}{pieces} ({there}); {lower}{recovery}"
