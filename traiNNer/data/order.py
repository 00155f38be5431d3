"""The order of the samples: a function of the seed and the position in the stream, and of nothing else.

Position p of the stream belongs to epoch p // n of the n samples, and is place p mod n in it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Ticket(NamedTuple):
    """What a worker needs to make the sample of one position."""

    epoch: int
    place: int
    """Position within the epoch."""
    index: int
    """Which sample of the data set."""


class SampleOrder:
    """Every epoch is a permutation of all samples, drawn from (seed, epoch).

    Args:
        seed: the run's seed.
        size: number of samples.
    """

    def __init__(self, seed: int, size: int) -> None:
        self._size = size
        # Two, because a batch can straddle the end of an epoch.
        self._permutation = lru_cache(maxsize=2)(lambda epoch: permutation(seed, epoch, size))

    def ticket(self, position: int) -> Ticket:
        """What stands at a position of the endless stream."""
        epoch, place = divmod(position, self._size)
        return Ticket(epoch, place, int(self._permutation(epoch)[place]))


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of an epoch; its numbers are apart from every sample's (a spawned sequence)."""
    return _generator(np.random.SeedSequence([seed, epoch], spawn_key=(0,))).permutation(size)


def sample_generator(seed: int, epoch: int, place: int, attempt: int = 0) -> np.random.Generator:
    """The generator from which the sample at a place of an epoch draws; 11 us to make.

    `attempt` above 0 gives the one of the sample that stands in for an unreadable file.
    """
    return _generator(np.random.SeedSequence([seed, epoch, place, attempt]))


def _generator(sequence: np.random.SeedSequence) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(sequence))
