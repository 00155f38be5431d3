"""The global random generators: seeding them, and their state as something a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

_BACKENDS = ("cuda", "xpu")
"""Backends of torch with a generator for each of several devices (ROCm goes by the name of CUDA)."""


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python's, NumPy's and torch's global generators (CPU and every accelerator).

    Ranks get numbers of their own; rank 0 gets those of the seed itself.
    """
    seed += 100_003 * rank
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]


class RandomState:
    """State of this process's global generators, to be tracked by the checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Dicts, numbers and tensors."""
        return capture()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the generators back."""
        restore(state_dict)


def capture() -> dict[str, Any]:
    """The global generators' states as dicts, numbers and tensors; draws nothing and wakes no device."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "key": torch.tensor(numpy_state["state"]["key"].tolist()),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        **capture_torch(),
    }


def capture_torch() -> dict[str, Any]:
    """The states of torch's generators alone, which is what networks and losses draw from; takes microseconds."""
    return {"torch": torch.get_rng_state(), "devices": _capture_devices()}


def restore(state: dict[str, Any]) -> None:
    """Put the global generators into a state that `capture` returned; devices that are not there are left out."""
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    key = numpy_state["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"]))
    restore_torch(state)


def restore_torch(state: dict[str, Any]) -> None:
    """Put torch's generators into a state that `capture` or `capture_torch` returned."""
    torch.set_rng_state(state["torch"])
    _restore_devices(state["devices"])


def _capture_devices() -> dict[str, Any]:
    """Generators of the accelerators; a backend that this process has not used has drawn nothing yet."""
    states: dict[str, Any] = {}
    for backend in _BACKENDS:
        module = getattr(torch, backend)
        if module.is_available() and module.is_initialized():
            states[backend] = module.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = [torch.mps.get_rng_state()]
    return states


def _restore_devices(states: dict[str, Any]) -> None:
    for backend in _BACKENDS:
        module = getattr(torch, backend)
        if backend in states and module.is_available():
            for device, state in enumerate(states[backend][: module.device_count()]):
                module.set_rng_state(state, device)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"][0])
