"""Errors that say that memory did not suffice: which they are, what they report, and what ends a run for them."""

from __future__ import annotations

import gc
import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

from traiNNer.utils.errors import RunError

ONEDNN = ("could not create a primitive", "could not execute a primitive", "could not create a memory object")
"""All that torch tells of oneDNN's status `out_of_memory` on a CPU, when a kernel or its scratchpad does not fit."""

MESSAGES = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "HIP out of memory",
    "HIP error: out of memory",
    "XPU out of memory",
    "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "HIPBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    # torch tries cuDNN's plans one by one and passes over those whose workspace it cannot allocate
    "unable to find an engine to execute this computation",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    *ONEDNN,
)
"""Words of a RuntimeError that mean it, for what is no `torch.OutOfMemoryError`; each is specific to memory."""

_FIGURES = (
    r"tried to allocate [\d.]+ ?\w+",
    r"total capacity of [\d.]+ \w+(?: of which [\d.]+ \w+ is free)?",
    r"max allowed: [\d.]+ \w+",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words.lower() in str(error).lower() for words in MESSAGES)


def figures(error: BaseException) -> str:
    """What an error reports of memory: the amounts where it gives some, else its first line."""
    text = str(error)
    found = [match.group() for pattern in _FIGURES for match in re.finditer(pattern, text, re.IGNORECASE)]
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return ", ".join(found) or first


def free_memory(device: torch.device) -> None:
    """Give back what nothing refers to any more, cycles included; never while an exception is handled.

    An exception keeps its frames, and those keep their tensors.
    """
    gc.collect()
    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()


@contextmanager
def ending_the_run(what: str) -> Generator[None]:
    """Turn an out-of-memory error within into the end of the run; for what cannot be done a second time.

    Args:
        what: subject of the message, such as `the optimizer's step of net_g`.

    Raises:
        RunError: memory did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = figures(error)
        message = f"{what} ran out of memory ({reason}); the state in memory may be half changed and is not saved"
        raise RunError(message) from None
