"""A step of two players in processes whose address space is limited; run by `test_out_of_real_memory.py`.

Each step runs in a fork of this process, so that torch is imported once. Prints a JSON line: by phase, what came of it.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gan_model import player
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from traiNNer.losses import build_losses
from traiNNer.models.sr_model import SRModel
from traiNNer.utils.errors import RunError

PHASES = ("generator forward", "generator backward", "discriminator")
IMAGES = 16


class Limit(torch.autograd.Function):
    """Nothing, until its gradient comes: then the limit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, set_limit: Callable[[], None]) -> Tensor:
        ctx.set_limit = set_limit
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.set_limit()
        return gradients[0], None


def conv(inputs: int, outputs: int, side: int = 1, stride: int = 1) -> nn.Conv2d:
    """Without a bias: oneDNN sums its gradient one by one, so that in float32 it depends on the pieces (up to 1e-3)."""
    return nn.Conv2d(inputs, outputs, side, stride, side // 2 if stride == 1 else 1, bias=False)


class Generator(nn.Module):
    """Many channels and few pixels: memory without rounding; with `recomputes`, backward needs more than forward."""

    def __init__(self, width: int, *, recomputes: bool) -> None:
        super().__init__()
        self.first, self.last = conv(3, width), conv(width, 12)
        self.layers = nn.Sequential(*[layer for _ in range(3) for layer in (nn.Tanh(), nn.SiLU())])
        self.at_forward = self.at_backward = lambda: None
        self.recomputes = recomputes

    def forward(self, x: Tensor) -> Tensor:
        self.at_forward()
        x = self.first(x)
        x = checkpoint(self.layers, x, use_reentrant=False) if self.recomputes else self.layers(x)
        return Limit.apply(nn.functional.pixel_shuffle(self.last(x), 2), self.at_backward)


class Discriminator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(3, width, 4, 2), nn.Tanh(), nn.SiLU(), conv(width, 1))
        self.at_forward = lambda: None

    def forward(self, x: Tensor) -> Tensor:
        if next(self.parameters()).requires_grad:  # its own step
            self.at_forward()
        return self.layers(x)


def address_space(name: str = "VmPeak") -> int:
    """Bytes of this process's address space."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def one_step(phase: str, images: int, limit: int | None) -> dict[str, Any]:
    """Weights after a step, the peak of the address space, and what was reported."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    heavy_d = phase == "discriminator"
    net_g = Generator(8 if heavy_d else 1024, recomputes=phase == "generator backward")
    net_d = Discriminator(1024 if heavy_d else 8)

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    hooks = {
        "generator forward": (net_g, "at_forward"),
        "generator backward": (net_g, "at_backward"),
        "discriminator": (net_d, "at_forward"),
    }
    setattr(*hooks[phase], set_limit)
    reports: list[tuple[str, int, int, int]] = []

    class Observer:
        def before_update(self, *_: Any) -> None: ...

        def after_step(self, *_: Any) -> None: ...

        def on_out_of_memory(self, *report: Any) -> None:
            reports.append(report)

    sgd = {"type": "SGD", "lr": 0.1}
    model = SRModel(
        generator=player(net_g, sgd),
        losses=build_losses([{"type": "l1loss", "loss_weight": 1.0}, {"type": "ganloss", "loss_weight": 0.1}]),
        discriminator=player(net_d, sgd),
        observer=Observer(),
        recovers=True,
    )
    lq, gt = torch.rand(IMAGES, 3, 32, 32)[:images], torch.rand(IMAGES, 3, 64, 64)[:images]
    model.feed_data([{"lq": lq, "gt": gt, "lq_path": [], "gt_path": [], "fault": []}])
    model.optimize_parameters(1)
    weights = {
        f"{name}/{key}": value for name, each in model.players.items() for key, value in each.net.state_dict().items()
    }
    return {"peak": address_space(), "reports": reports, "weights": weights}


def forked(phase: str, images: int, limit: int | None = None) -> dict[str, Any]:
    """`one_step` in a process of its own."""
    with tempfile.NamedTemporaryFile() as file:
        if (child := os.fork()) == 0:
            try:
                result = one_step(phase, images, limit)
            except (RuntimeError, MemoryError, RunError) as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            resource.setrlimit(resource.RLIMIT_AS, (limit or resource.RLIM_INFINITY,) * 2)
            Path(file.name).write_bytes(pickle.dumps(result))
            os._exit(0)
        os.waitpid(child, 0)
        return pickle.loads(Path(file.name).read_bytes())


def main() -> None:
    """Measure, limit, compare."""
    found: dict[str, Any] = {}
    for phase in PHASES:
        half, full = forked(phase, IMAGES // 2), forked(phase, IMAGES)
        limit = int(half["peak"] + 0.7 * (full["peak"] - half["peak"]))
        limited = forked(phase, IMAGES, limit)
        found[phase] = {"images": IMAGES, "half": half["peak"], "full": full["peak"], "error": limited.get("error")}
        if "weights" in limited:
            errors = [
                max((limited["weights"][key] - value).abs().max().item() for key, value in weights.items())
                / max(value.abs().max().item() for value in weights.values())
                for weights in (
                    {key: value for key, value in full["weights"].items() if key.startswith(name)}
                    for name in ("net_g", "net_d")
                )
            ]
            found[phase] |= {"reports": limited["reports"], "difference": max(errors)}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
