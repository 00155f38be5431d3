"""Two real gloo processes of which one runs out of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gan_model import same
from memory_faults import PLACES
from torch import Tensor

HERE = Path(__file__).parent


def near(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(near(found[key], value) for key, value in expected.items())
    if not isinstance(expected, Tensor):
        return found == expected
    largest = max(expected.double().abs().max().item(), 1e-6)
    return (found.double() - expected.double()).abs().max().item() <= 1e-9 * largest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_go_on_with_pieces_of_one_size(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    result = subprocess.run(
        [*torchrun, str(HERE / "failing_rank.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    plain = ranks[0]["plain"]
    for found in ranks:
        assert near(found["nothing failing"]["state"], plain["state"])
        for place in PLACES:
            network = "net_d" if place.startswith("discriminator") else "net_g"
            assert found[place]["reports"] == [(network, 4, 2, 1), (network, 4, 2, 2)], place
            assert found[place]["tried"][-4:] == [2, 2, 2, 2], place
            assert near(found[place]["state"], plain["state"]), place
            assert same(found[place]["state"]["net_g"], ranks[0][place]["state"]["net_g"]), place
            assert near(found[place]["record"], found["plain"]["record"]), place
    assert "do not fit with 4 images of 8x8 px" in ranks[0]["message"]
    assert "another process reports it" in ranks[0]["message"]
    assert "Tried to allocate" in ranks[1]["message"]
