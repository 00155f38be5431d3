"""The state of the global random generators."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from traiNNer.utils.rng import RandomState, capture, restore, seed_everything


def draw() -> list[float]:
    """Something of every generator; `gauss` and `standard_normal` keep the second of two numbers for later."""
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.standard_normal(), torch.rand(()).item()]


def through_a_file(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_goes_on_after_a_file_as_without_one(drawn: int) -> None:
    seed_everything(5)
    for _ in range(drawn):
        draw()
    state = through_a_file(RandomState().state_dict())
    expected = [draw() for _ in range(400)]  # NumPy and Python refill their 624 words meanwhile
    seed_everything(6)
    RandomState().load_state_dict(state)
    assert [draw() for _ in range(400)] == expected


def test_capturing_draws_nothing() -> None:
    seed_everything(1)
    expected = draw()
    seed_everything(1)
    capture()
    assert draw() == expected


def test_seeds_repeat_and_ranks_differ() -> None:
    drawn = []
    for seed, rank in ((1, 0), (1, 0), (1, 1), (2, 0), (2**32 - 1, 3)):
        seed_everything(seed, rank)
        drawn.append(tuple(draw()))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
def test_goes_on_on_every_gpu() -> None:
    def draw_there() -> list[float]:
        return [torch.rand((), device=f"cuda:{index}").item() for index in range(torch.cuda.device_count())]

    draw_there()
    state = through_a_file(capture())
    expected = draw_there()
    restore(state)
    assert draw_there() == expected
