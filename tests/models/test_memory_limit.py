"""The real thing: a step in a process whose address space ends in the middle of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_goes_on_where_memory_ends() -> None:
    """The limit is 70 % of the way from the peak of a step of half the images to that of all of them."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    }
    result = subprocess.run(
        [sys.executable, str(HERE / "memory_limit.py")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found.keys() == {"generator forward", "generator backward", "discriminator"}
    for phase, each in found.items():
        assert each["error"] is None, f"{phase}: {each}"
        network = "net_d" if phase == "discriminator" else "net_g"
        [(name, images, fitted, iteration)] = each["reports"]
        assert (name, images, iteration) == (network, each["images"], 1)
        assert fitted <= images // 2
        assert each["difference"] < 1e-5, f"{phase}: {each}"
