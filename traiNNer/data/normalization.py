"""Mean and standard deviation of fields, channel by channel, and what is done with them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from traiNNer.types import Normalization

SMALLEST = float(np.finfo(np.float32).tiny)
"""A standard deviation below is none."""


def identity(channels: int) -> Normalization:
    """The one that changes nothing."""
    return Normalization(mean=(0.0,) * channels, std=(1.0,) * channels)


def statistics(frames: Iterable[np.ndarray], channels: int) -> Normalization:
    """Mean and standard deviation over all pixels of (C, H, W) frames; one frame in memory at a time, in float64.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979. A channel
    that does not vary gets the standard deviation 1.
    """
    count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    for frame in frames:
        values = frame.reshape(channels, -1).astype(np.float64)
        size = values.shape[1]
        own = values.mean(1)
        shift = own - mean
        squares += ((values - own[:, None]) ** 2).sum(1) + shift**2 * (count * size / (count + size))
        mean += shift * (size / (count + size))
        count += size
    std = np.sqrt(squares / max(count, 1))
    floor = np.maximum(1e-12 * np.abs(mean), SMALLEST)
    return Normalization(mean=tuple(mean.tolist()), std=tuple(np.where(std > floor, std, 1.0).tolist()))


def normalized(field: np.ndarray, normalization: Normalization) -> np.ndarray:
    """(C, H, W) float32 in units of the normalization, computed in float64: a large mean takes no digits away."""
    mean, std = (np.array(each)[:, None, None] for each in (normalization.mean, normalization.std))
    with np.errstate(over="ignore"):
        return ((field - mean) / std).astype(np.float32)


def physical(field: Tensor, normalization: Normalization) -> Tensor:
    """(..., C, H, W) in the units of the files, in the field's type: float32 holds 7 digits, the mean's among them."""
    both = (normalization.mean, normalization.std)
    mean, std = (torch.tensor(each, device=field.device)[:, None, None] for each in both)
    return field * std + mean


def dumped(normalization: Normalization) -> dict[str, list[float]]:
    """As checkpoints and option files have it."""
    return {"mean": list(normalization.mean), "std": list(normalization.std)}
