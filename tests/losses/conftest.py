"""Weights files for the losses that need a pretrained network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from backbones import state


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Path of a file with the weights of a network's `features`, written when it is first asked for."""
    folder = tmp_path_factory.mktemp("weights")

    @cache
    def path(network: str) -> str:
        torch.save(state(network), folder / f"{network}.pth")
        return str(folder / f"{network}.pth")

    return path
