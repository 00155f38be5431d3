"""The endless stream of training batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from traiNNer.data.collate import collate, unit_range_batch
from traiNNer.data.dataset import ImageDataset
from traiNNer.data.order import SampleOrder, Ticket, sample_generator
from traiNNer.data.slicing import Grid, Slicer, join
from traiNNer.data.workers import initialize_worker, start
from traiNNer.types import Batch, Sample
from traiNNer.utils.errors import ConfigError, RunError
from traiNNer.utils.images import ImageError
from traiNNer.utils.out_of_memory import ending_the_run

ATTEMPTS = 8
"""So many unreadable files in a row for one position end the run."""

FAULTS_TOLERATED = 0.01
"""Share of unreadable files among the samples drawn, counted over at least one epoch and 100 samples."""

AUTO_ITERATIONS = 2000
"""What `enlarge_ratio: auto` makes of an epoch, at least: iterations of one process without accumulation."""


class TrainLoader:
    """Batches of random crops in an order that depends on the seed and the position alone.

    Position p of the stream is place p mod n of epoch p // n, whose permutation comes from (seed, epoch); the sample
    draws from (seed, epoch, place). Rank r of w processes reads the positions p with p mod w = r, so that together
    they read what one process with their batches in one would. Batches run across the ends of epochs, and the number
    of workers changes nothing. Nor do the sizes of the micro-batches, which may change between iterations: what is on
    its way from the workers is cut and put together anew, what is not yet comes in the new sizes.

    A file that cannot be read is named in the batch's `fault`, and its position is filled by the sample drawn from
    (seed, epoch, place, 1) (2, 3, ... if need be); no other position moves. When more than 1 % of the samples drawn
    were such, counted over at least one epoch and 100 samples, the run ends: one bad file of many never ends it.

    Args:
        dataset: what to read.
        batch_size: samples of this process in a micro-batch, until `set_micro_batches` says otherwise.
        accum_iter: micro-batches of an iteration, likewise.
        seed: the run's seed, the same in all processes.
        rank: number of this process.
        world_size: number of processes.
        num_workers: loader processes; 0 reads in this one.
        pin_memory: batches in page-locked memory, where `device_hint` is a CUDA device.
        prefetch_factor: micro-batches that each worker reads ahead.
        persistent_workers: keep the workers at the end of an epoch as counted; else new ones take over there, which
            frees what they hold and costs their start. The samples are the same.
        enlarge_ratio: an epoch as counted (`epoch`, `samples_per_epoch`) is so many passes through the data;
            `auto` makes it last 2000 iterations at least. The order of the samples does not depend on it.
        device_hint: put batches there; they travel as 8 or 16 bits and become float32 on the device.
        multiprocessing_context: start method of the workers; the system's own by default.

    Raises:
        ConfigError: the data set is empty.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        batch_size: int,
        seed: int,
        accum_iter: int = 1,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        prefetch_factor: int | None = 2,
        persistent_workers: bool = True,
        enlarge_ratio: int | Literal["auto"] = 1,
        device_hint: torch.device | str | None = None,
        multiprocessing_context: str | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise ConfigError(f"the data set {dataset.name or 'for training'} is empty")
        if enlarge_ratio == "auto":
            enlarge_ratio = max(AUTO_ITERATIONS * batch_size // len(dataset), 1)
        self.samples_per_epoch = len(dataset) * enlarge_ratio
        self._dataset, self._seed = dataset, seed
        self._grid = Grid([batch_size] * accum_iter)
        self._rank, self._world_size = rank, world_size
        self._device = None if device_hint is None else torch.device(device_hint)
        self._loading: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory and self._device is not None and self._device.type in ("cuda", "xpu"),
            "prefetch_factor": (prefetch_factor or 2) if num_workers else None,
            "multiprocessing_context": multiprocessing_context if num_workers else None,
        }
        self._persistent = persistent_workers
        self._consumed = 0
        self._faults = 0
        self._slicer: Slicer | None = None

    @property
    def epoch(self) -> int:
        """Epochs completed, as counted with the enlarge ratio."""
        return self._consumed // self.samples_per_epoch

    @property
    def num_workers(self) -> int:
        """Loader processes."""
        return self._loading["num_workers"]

    @property
    def micro_batches(self) -> tuple[int, ...]:
        """Samples of this process in each micro-batch of the next iteration."""
        return self._grid.sizes

    def set_micro_batches(self, sizes: Sequence[int]) -> None:
        """From the next `next_batches` on, an iteration has micro-batches of these sizes, alike in all processes.

        Raises:
            ValueError: there are none, or one is below 1.
        """
        self._grid.change(sizes, self._place)

    def start(self) -> Slicer:
        """Let the workers begin to read ahead; `next_batches` does so if nobody did before."""
        if self._slicer is None:
            order = SampleOrder(self._seed, len(self._dataset))
            loader = DataLoader(
                _Stream(self._dataset, self._seed),
                batch_sampler=_Positions(order, self._place, self._rank, self._world_size, self._grid),  # type: ignore[arg-type]
                collate_fn=collate,
                worker_init_fn=initialize_worker,
                generator=torch.Generator(),  # making an iterator draws a seed, else from the global generator
                **self._loading,
            )
            self._slicer = Slicer(start(loader))
        return self._slicer

    def next_batches(self) -> list[Batch]:
        """The micro-batches of the next iteration.

        Returns:
            Batches with `lq`, `gt` (B, 3, H, W) float32 in [0, 1], `lq_path`, `gt_path`, `fault`.

        Raises:
            RunError: too many files cannot be read, a worker died, or there is not enough memory.
        """
        slicer, epoch = self.start(), self.epoch
        with ending_the_run(f"reading the next {sum(self.micro_batches)} images"):
            batches = [slicer.take(size) for size in self.micro_batches]
            self._consumed += sum(self.micro_batches) * self._world_size
            self._stop_on_faults([piece for pieces in batches for piece in pieces])
            if self.epoch != epoch and not self._persistent:
                self.close()
            # Pieces are joined where they are used: pinned memory is left without waiting, and all are float32 then.
            return [join([unit_range_batch(piece, self._device) for piece in pieces]) for pieces in batches]

    def state_dict(self) -> dict[str, Any]:
        """Positions of the stream that all processes have consumed together, and this process's unreadable files."""
        return {"consumed": self._consumed, "faults": self._faults}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where another loader of the same data and seed stopped, whatever its batch size and processes."""
        self.close()
        self._consumed, self._faults = int(state_dict["consumed"]), int(state_dict["faults"])
        self._grid.change(self.micro_batches, self._place)

    def close(self) -> None:
        """Stop the workers; `next_batches` goes on where it was."""
        self._slicer = None  # the iterator's destructor ends the processes

    @property
    def _place(self) -> int:
        """Samples of this process before its first one that has not been consumed."""
        return (self._consumed - self._rank + self._world_size - 1) // self._world_size

    def _stop_on_faults(self, batches: list[Batch]) -> None:
        faults = [line for batch in batches for line in batch["fault"] if line]
        if not faults:
            return
        if any("lq" not in batch for batch in batches):
            raise RunError(f"{ATTEMPTS} files in a row cannot be read, among them {faults[-1]}")
        self._faults += len(faults)
        drawn = self._consumed // self._world_size
        share = max(drawn, math.ceil(len(self._dataset) / self._world_size), 100)
        if self._faults > FAULTS_TOLERATED * share:
            counts = f"{self._faults} of {drawn} samples drawn stood in for files that cannot be read"
            raise RunError(f"{counts}, more than 1 %; the last: {faults[-1]}")


class _Positions:
    """The tickets of one process's micro-batches, without end; the grid may change meanwhile."""

    def __init__(self, order: SampleOrder, place: int, rank: int, step: int, grid: Grid) -> None:
        self._order, self._place, self._rank, self._step, self._grid = order, place, rank, step, grid

    def __iter__(self) -> Iterator[list[Ticket]]:
        place = self._place
        while True:
            end = place + self._grid.rest(place)
            yield [self._order.ticket(p * self._step + self._rank) for p in range(place, end)]
            place = end


class _Stream(Dataset[Sample]):
    """The sample of a ticket, or the one that stands in for it."""

    def __init__(self, dataset: ImageDataset, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, ticket: Ticket) -> Sample:
        faults: list[str] = []
        for attempt in range(ATTEMPTS):
            generator = sample_generator(self._seed, ticket.epoch, ticket.place, attempt)
            index = ticket.index if attempt == 0 else int(generator.integers(len(self._dataset)))
            try:
                sample = self._dataset.stored_sample(index, generator)
            except ImageError as error:
                faults.append(str(error))
            else:
                return sample | {"fault": "; ".join(faults)} if faults else sample
        return {"fault": "; ".join(faults)}
