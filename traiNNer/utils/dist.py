"""One process or several: ranks, start and the few collectives that are used.

Processes are started by `torchrun` (or by Slurm's `srun`); nothing here replaces torch.distributed. Every function
also works in a single process, where it returns at once.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from traiNNer.types import Stateful
from traiNNer.utils.errors import ConfigError, Problem

Launcher = Literal["none", "pytorch", "slurm"]


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of the run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def read_environment(launcher: Launcher) -> ProcessGroup:
    """Ranks from the launcher's environment variables; starts nothing.

    Raises:
        ConfigError: the process was not started by that launcher.
    """
    if launcher == "none":
        return ProcessGroup()
    names = _NAMES[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing:
        command = (
            "torchrun --nproc_per_node=2 train.py -opt FILE --launcher pytorch" if launcher == "pytorch" else "srun"
        )
        raise ConfigError(
            Problem(
                key="--launcher",
                message=f"found {launcher}, but the environment lacks {', '.join(missing)}; start with: {command}",
            )
        )
    rank, world_size, local_rank = (int(os.environ[name]) for name in names)
    if launcher == "slurm" and "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_slurm_host()
    return ProcessGroup(rank, world_size, local_rank)


def _first_slurm_host() -> str:
    """Where rank 0 of a Slurm job is: on the first of its nodes, whose names only Slurm can spell out.

    Raises:
        ConfigError: there are several nodes, and Slurm does not name them.
    """
    nodes = next((os.environ[name] for name in ("SLURM_JOB_NODELIST", "SLURM_NODELIST") if name in os.environ), "")
    several = int(os.environ.get("SLURM_NNODES", "1")) > 1 or any(sign in nodes for sign in ",[")
    if not several:
        return "127.0.0.1"
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        message = f"found slurm on the nodes {nodes!r}, which scontrol did not list; accepted: with MASTER_ADDR set"
        raise ConfigError(Problem(key="--launcher", message=f"{message} to the first node's address")) from None


_NAMES = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


def started_by_torchrun() -> bool:
    """Whether torchrun (or something that speaks like it) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ or all(
        name in os.environ for name in (*_NAMES["pytorch"], "MASTER_ADDR")
    )


def start(group: ProcessGroup, device: torch.device) -> None:
    """Join the other processes: NCCL where it is built for the device, else gloo (CPU, Windows)."""
    if group.world_size == 1:
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    # each Slurm job a port of its own, so that two of them can share a node
    os.environ.setdefault("MASTER_PORT", str(29500 + int(os.environ.get("SLURM_JOB_ID", "0")) % 2000))
    if device.type != "cpu":
        torch.accelerator.set_device_index(group.local_rank)
    # its functions take the running group as a default value when it is imported, which DistributedDataParallel does:
    # they would keep the group and its threads beyond `stop`, until gloo aborts the interpreter that is taken down
    importlib.import_module("torch.distributed.nn.functional")
    nccl = device.type == "cuda" and sys.platform != "win32"
    torch.distributed.init_process_group("nccl" if nccl else "gloo", rank=group.rank, world_size=group.world_size)


def stop() -> None:
    """Leave the process group, if there is one."""
    if is_running():
        # what refers to itself, as a model that its automations observe, would keep the group and its threads longer
        gc.collect()
        torch.distributed.destroy_process_group()


def is_running() -> bool:
    """Whether a process group has been joined."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """This process's number, 0 in a single process."""
    return torch.distributed.get_rank() if is_running() else 0


def world_size() -> int:
    """How many processes the run has."""
    return torch.distributed.get_world_size() if is_running() else 1


def is_main() -> bool:
    """Whether this process writes the files and the log."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if is_running():
        torch.distributed.barrier()


def all_gather_objects(value: Any) -> list[Any]:
    """The picklable `value` of every rank, by rank."""
    if not is_running():
        return [value]
    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value` on every rank."""
    if not is_running():
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


class PerRank:
    """State that differs between the ranks, saved by rank 0 for all of them.

    `collect` must be called by every rank before rank 0 asks for `state_dict`.
    """

    def __init__(self, stateful: Stateful) -> None:
        self._stateful = stateful
        self._collected: list[Any] = []

    def collect(self) -> None:
        """Gather the ranks' states."""
        self._collected = all_gather_objects(self._stateful.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The states by rank."""
        return {"ranks": self._collected if is_running() else [self._stateful.state_dict()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this rank's state; a rank that the saved run did not have keeps its own."""
        if rank() < len(state_dict["ranks"]):
            self._stateful.load_state_dict(state_dict["ranks"][rank()])


def all_reduce_min_(value: Tensor) -> Tensor:
    """The smallest `value` over all ranks, in place; stays on the device."""
    if is_running():
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MIN)
    return value


def host_group() -> Any:
    """A group in which processes agree on numbers of the host, None in a single process; to be made by every rank.

    It is the default one if that is gloo: a process that failed on its device can still answer there.
    """
    if not is_running():
        return None
    if torch.distributed.get_backend() == "gloo":
        return torch.distributed.group.WORLD
    return torch.distributed.new_group(backend="gloo")


def smallest_of(values: Sequence[int], group: Any) -> list[int]:
    """The smallest of each value over all ranks of a `host_group`."""
    if group is None:
        return list(values)
    tensor = torch.tensor(values)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN, group=group)
    return [int(value) for value in tensor]


def average_(value: Tensor) -> Tensor:
    """The mean of `value` over all ranks, in place; stays on the device. Divided first, as float16 gradients need."""
    if is_running():
        value.div_(world_size())
        torch.distributed.all_reduce(value)
    return value


def average_buffers_(net: nn.Module) -> None:
    """Replace every floating-point buffer by its mean over the ranks, in place.

    Right for buffers whose update rule is linear in the batch (running means): the mean of the ranks' buffers is then
    the buffer of the whole batch.
    """
    if not is_running():
        return
    for buffer in net.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer.div_(world_size())


def mean(value: Tensor) -> Tensor:
    """The mean of a scalar over all ranks; stays on the device."""
    if not is_running():
        return value
    value = value.clone()
    torch.distributed.all_reduce(value)
    return value / world_size()
