"""Ranks and the meeting place of processes that Slurm started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from traiNNer.utils import dist
from traiNNer.utils.errors import ConfigError


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of rank 3 on the second node; no `scontrol`."""
    for name in ("SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_NNODES", "MASTER_ADDR"):
        monkeypatch.setenv(name, "")  # so that what a test leaves behind is undone
        monkeypatch.delenv(name)
    for name, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    return monkeypatch


def fake_scontrol(folder: Path, lines: str) -> None:
    path = folder / "scontrol"
    path.write_text(f"#!/bin/sh\n[ \"$*\" = 'show hostnames gpu[07-08]' ] || exit 1\n{lines}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="Slurm runs on POSIX systems")
@pytest.mark.parametrize("name", ["SLURM_JOB_NODELIST", "SLURM_NODELIST"])
def test_the_first_node_is_where_processes_meet(slurm: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    slurm.setenv(name, "gpu[07-08]")
    slurm.setenv("SLURM_NNODES", "2")
    fake_scontrol(tmp_path, "echo gpu07; echo gpu08")
    assert dist.read_environment("slurm") == dist.ProcessGroup(3, 4, 1)
    assert os.environ["MASTER_ADDR"] == "gpu07"


@pytest.mark.parametrize("nodes", ["gpu07", None])
def test_on_one_node_they_meet_there(slurm: pytest.MonkeyPatch, nodes: str | None) -> None:
    if nodes is not None:
        slurm.setenv("SLURM_JOB_NODELIST", nodes)
    dist.read_environment("slurm")
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("answer", [None, "exit 1", "true"])
def test_nodes_that_slurm_does_not_list_are_asked_for(
    slurm: pytest.MonkeyPatch, tmp_path: Path, answer: str | None
) -> None:
    slurm.setenv("SLURM_JOB_NODELIST", "gpu[07-08]")
    if answer is not None:
        fake_scontrol(tmp_path, answer)
    with pytest.raises(ConfigError, match=r"--launcher: found slurm on the nodes 'gpu\[07-08\]'.*MASTER_ADDR"):
        dist.read_environment("slurm")
    slurm.setenv("MASTER_ADDR", "gpu07.cluster")
    dist.read_environment("slurm")
    assert os.environ["MASTER_ADDR"] == "gpu07.cluster"
