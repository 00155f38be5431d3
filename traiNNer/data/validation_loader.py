"""Whole images, one after the other, for validation and upscaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from traiNNer.data.dataset import ImageDataset, unit_range_sample
from traiNNer.data.order import sample_generator
from traiNNer.data.workers import draw, initialize_worker, start
from traiNNer.types import Sample
from traiNNer.utils.errors import RunError
from traiNNer.utils.images import ImageError


class ValidationLoader:
    """The whole images of a data set that fall to this process, in order; can be gone through again and again.

    Args:
        dataset: what to read.
        rank: number of this process; it gets the images i with i mod world_size = rank.
        world_size: number of processes.
        num_workers: loader processes; 0 reads in this one.
        persistent_workers: keep the processes between passes.
        prefetch_factor: images that each worker reads ahead.
        multiprocessing_context: start method of the workers; the system's own by default.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        persistent_workers: bool = False,
        prefetch_factor: int | None = 2,
        multiprocessing_context: str | None = None,
    ) -> None:
        self.dataset = dataset
        self._indices = range(rank, len(dataset), world_size)
        loading: dict[str, Any] = {}
        if num_workers:
            loading = {
                "persistent_workers": persistent_workers,
                "prefetch_factor": prefetch_factor or 2,
                "multiprocessing_context": multiprocessing_context,
            }
        self._loader = DataLoader(
            _Images(dataset),
            batch_size=None,
            sampler=self._indices,
            num_workers=num_workers,
            collate_fn=_unchanged,  # type: ignore[arg-type] - it gets one sample, as batch_size is None
            worker_init_fn=initialize_worker,
            generator=torch.Generator(),  # making an iterator draws a seed, else from the global generator
            **loading,
        )

    def __len__(self) -> int:
        """Images of this process."""
        return len(self._indices)

    @property
    def indices(self) -> Sequence[int]:
        """Their places in the data set."""
        return self._indices

    def __iter__(self) -> Iterator[Sample]:
        """Samples with `lq` (3, h, w) float32 in [0, 1] and what else the data set gives.

        Raises:
            RunError: a file cannot be read, or a worker died.
        """
        samples = start(self._loader)
        for _ in self._indices:
            sample = draw(samples)
            if "fault" in sample:
                raise RunError(f"the data set {self.dataset.name} cannot be read: {sample['fault']}")
            yield unit_range_sample(sample)


class _Images(Dataset[Sample]):
    """Nothing is random in whole images; the generator is there for the interface."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> Sample:
        try:
            return self._dataset.stored_sample(index, sample_generator(0, 0, index))
        except ImageError as error:  # would not survive the way from a worker as this type
            return {"fault": str(error)}


def _unchanged(sample: Sample) -> Sample:
    return sample
