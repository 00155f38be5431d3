"""Two processes of which one runs out of memory; run by torchrun for `test_processes_out_of_memory.py`.

Each rank writes `<folder>/<rank>.pt`: by place, the state after two steps, what was tried and what was reported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from gan_model import GAN, L1, R1_R2, batch, gan_model, state, step
from memory_faults import PLACES, Reports, memory_for
from torch.nn.parallel import DistributedDataParallel

from traiNNer.models.sr_model import SRModel
from traiNNer.utils import dist
from traiNNer.utils.errors import RunError


def wrapped(net: torch.nn.Module) -> torch.nn.Module:
    """As for a run of several processes."""
    return DistributedDataParallel(net, broadcast_buffers=False)


def made(**keywords: Any) -> SRModel:
    """A model in float64, the same on each rank."""
    options = {"float64": True, "forward_net": wrapped, "forward_net_g": wrapped}
    return gan_model(L1, GAN | R1_R2, **options, **keywords)


def two_steps(model: SRModel, place: str, images: int) -> list[int]:
    """Two steps of two micro-batches in which so many images fit; what was tried."""
    tried: list[int] = []
    for iteration in (1, 2):
        batches = [batch(100 * iteration + 10 * number + dist.rank(), 4, torch.float64) for number in (0, 1)]
        with memory_for(images, model, place) as sizes:
            step(model, iteration, *batches)
        tried += sizes
    return tried


def main() -> None:
    """Without and with recovery, nothing failing; then rank 1 fails at each place; then for good."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    dist.start(dist.read_environment("pytorch"), torch.device("cpu"))
    found: dict[str, Any] = {}
    for name, recovers in (("plain", False), ("nothing failing", True)):
        model = made(recovers=recovers)
        two_steps(model, PLACES[0], 4)
        found[name] = {"state": state(model), "record": model.record}
    for place in PLACES:
        reports = Reports()
        model = made(recovers=True, observer=reports)
        tried = two_steps(model, place, 2 if dist.rank() == 1 else 4)
        found[place] = {"state": state(model), "record": model.record, "tried": tried, "reports": reports.seen}
    try:
        two_steps(made(recovers=True), PLACES[1], 0 if dist.rank() == 1 else 4)
    except RunError as error:
        found["message"] = str(error)
    torch.save(found, folder / f"{dist.rank()}.pt")
    dist.barrier()
    dist.stop()


if __name__ == "__main__":
    main()
