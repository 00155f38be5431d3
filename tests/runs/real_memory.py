"""Runs of train.py's program whose memory is real; run by `test_real_memory.py`.

python real_memory.py hand SIZES -opt FILE ...       # the most that the process holds at each of these sizes, bytes
python real_memory.py group MIB TAKEN LARGEST FOLDER -opt FILE ...       # the automation in a group with so much memory
python real_memory.py limit ITERATION -opt FILE ...  # an address space that ends a little above what there is then
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.automations.memory_hog import memory_taken
from traiNNer import automation_setup
from traiNNer.cli import ending_with_message, parse_train
from traiNNer.run import train
from traiNNer.trainer import Trainer
from traiNNer.utils.memory import LinuxMemory, MemoryReading
from traiNNer.utils.registry import NETWORKS

MIB = 2**20
OVERHEAD = 0.03
"""Seconds that a pass takes whatever its size, as on a device that waits for its host: larger batches are faster."""


@NETWORKS.register("Wide")
class Wide(nn.Module):
    """Many channels: some 12 MiB for each image of 32 x 32 px, and little work."""

    def __init__(self, *, scale: int = 2, width: int = 512) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Conv2d(width, 3 * scale**2, 1)
        self.layers = nn.Sequential(*[layer() for _ in range(3) for layer in (nn.Tanh, nn.Sigmoid)])
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """LQ to HQ."""
        if self.training:
            time.sleep(OVERHEAD)
        return self.shuffle(self.last(self.layers(self.first(x))))


SETTLED = 12
"""Iterations at a size before something is done to it."""


class OwnGroup(LinuxMemory):
    """The shipped reader, in a control group of this process and one other: a limit, and what the kernel says they use.

    Groups cannot be made everywhere; this one's files are in a folder, and are written before they are read.
    """

    others: int | None = None
    """Number of the other process."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n", encoding="ascii")
        (folder / "memory.stat").write_text("inactive_file 0\n", encoding="ascii")
        self._use()
        super().__init__(groups=folder)
        if not self._groups:
            raise RuntimeError("/proc/self/cgroup has no line of version 2")

    def _use(self) -> None:
        processes = ["self", *([str(self.others)] if self.others is not None else [])]
        pages = sum(int(Path(f"/proc/{each}/statm").read_text(encoding="ascii").split()[1]) for each in processes)
        (self.folder / "memory.current").write_text(f"{pages * resource.getpagesize()}\n", encoding="ascii")

    def read(self) -> MemoryReading:
        """As it is now."""
        self._use()
        return super().read()


def hooked(name: str, then: Any) -> None:
    """Call `then(trainer)` after a method of the trainer."""
    usual = getattr(Trainer, name)

    def method(self: Trainer, *arguments: Any) -> Any:
        result = usual(self, *arguments)
        then(self)
        return result

    setattr(Trainer, name, method)


def by_hand(sizes: list[int]) -> dict[str, Any]:
    """Four iterations of each size, and what they took at most."""
    reader, found = LinuxMemory(), dict[str, int]()

    def note(trainer: Trainer) -> None:
        done, at = divmod(trainer.iteration, 4)
        if at == 0 and done:
            found[str(sizes[done - 1])] = reader.read().reserved
        if at == 0 and done < len(sizes):
            trainer.loader.set_micro_batches([sizes[done]])
            reader.restart()

    hooked("_agreed", note)  # between iterations
    return found


def in_a_group(limit: int, taken: int, largest: int, folder: Path) -> dict[str, Any]:
    """Another process takes memory when the batch is within 10 % of the largest, until it has shrunk."""
    found: dict[str, Any] = {"sizes": []}
    stack = ExitStack()
    automation_setup.memory_reader = lambda device: OwnGroup(folder, limit)

    def drive(trainer: Trainer) -> None:
        size = max(trainer.loader.micro_batches)
        found["sizes"].append(size)
        near = size >= 0.9 * largest
        if "taken" not in found and near and settled():
            OwnGroup.others = stack.enter_context(memory_taken(taken))
            found["taken"] = trainer.iteration
        elif "taken" in found and "shrunk" not in found and size < found["sizes"][-2]:
            found["shrunk"] = trainer.iteration
        elif "shrunk" in found and "given back" not in found and trainer.iteration >= found["shrunk"] + SETTLED:
            stack.close()
            OwnGroup.others = None
            found["given back"] = trainer.iteration
        elif "given back" in found and near and "grown back" not in found:
            found["grown back"] = trainer.iteration

    def settled() -> bool:
        return len(found["sizes"]) > SETTLED and len(set(found["sizes"][-SETTLED:])) == 1

    hooked("_agreed", drive)
    usual = Trainer._agreed  # where the loop asks whether to go on
    Trainer._agreed = lambda self, stop: usual(self, stop) or "grown back" in found
    return found


def limited(at: int) -> dict[str, Any]:
    """From an iteration on, this process may map no more than what it has mapped and half of what a batch takes."""
    found: dict[str, Any] = {}

    def limit(trainer: Trainer) -> None:
        if trainer.iteration == at and not found:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            mapped = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
            found["room"] = (mapped["VmPeak"] - mapped["VmSize"]) // 3
            resource.setrlimit(resource.RLIMIT_AS, (mapped["VmSize"] + found["room"], resource.RLIM_INFINITY))

    hooked("_agreed", limit)
    return found


def main() -> int:
    """Train as told; what was found is the last line."""
    torch.set_num_threads(1)
    mode, *rest = sys.argv[1:]
    cut = rest.index("-opt")
    own, arguments = rest[:cut], rest[cut:]
    if mode == "hand":
        found = by_hand([int(each) for each in own])
    elif mode == "group":
        found = in_a_group(int(own[0]) * MIB, int(own[1]), int(own[2]), Path(own[3]))
    else:
        found = limited(int(own[0]))
    code = ending_with_message(lambda: train(parse_train(arguments)))
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
