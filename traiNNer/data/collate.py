"""Samples to a batch, in the depth in which they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from traiNNer.types import Batch
from traiNNer.utils.images import unit_range

_IMAGES = ("lq", "gt")


def collate(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """A batch of samples; images stay uint8 or uint16 where all of the batch are, which are cheap to hand over.

    `fault` has a line for each sample, empty for most, so that a batch can be cut.
    """
    batch: dict[str, Any] = {"fault": [sample.get("fault", "") for sample in samples]}
    for key in _IMAGES:
        if all(key in sample for sample in samples):
            batch[key] = default_collate(_same_depth([sample[key] for sample in samples]))  # in shared memory
            batch[f"{key}_path"] = [sample[f"{key}_path"] for sample in samples]
    return cast("Batch", batch)


def unit_range_batch(batch: Batch, device: torch.device | None = None) -> Batch:
    """The batch with float32 images in [0, 1], on `device` if one is given; moved first, in a quarter of the bytes.

    Of `fault` the empty lines are left out.
    """
    converted: dict[str, Any] = {**batch, "fault": [line for line in batch["fault"] if line]}
    for key in _IMAGES:
        if key in converted:
            image = cast("Tensor", converted[key])
            converted[key] = unit_range(image if device is None else image.to(device, non_blocking=True))
    return cast("Batch", converted)


def _same_depth(images: list[Tensor]) -> list[Tensor]:
    """All of the deepest type among them; exact, as 257 * v / 65535 is v / 255."""
    types = {image.dtype for image in images}
    if len(types) == 1:
        return images
    if torch.float32 in types:
        return [unit_range(image) for image in images]
    return [
        image if image.dtype == torch.uint16 else (image.to(torch.int32) * 257).to(torch.uint16) for image in images
    ]
