"""Running a network on images of any size: padding, tiles, and what happens when memory is short."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import RunError
from traiNNer.utils.logging import get_logger

SMALLEST_TILE = 16
"""Automatic tiles are not halved below this side, px of LQ."""

PROBE_SIZES = (32, 64, 128, 256)
"""How far the reach of a network is searched for, px of LQ."""

FALLBACK_OVERLAP = 32
"""Automatic overlap for a network that reaches farther than that, px of LQ."""

_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|std::bad_alloc"
    r"|could not (create|execute) a primitive$"  # oneDNN: no memory for its code or scratch space
    r"|MPS backend out of memory"
    r"|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the device or of the host, was short."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def device_of(net: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU if it has none."""
    return next((parameter.device for parameter in net.parameters()), torch.device("cpu"))


def network_info(net: nn.Module) -> NetworkInfo:
    """The facts that `build_network` put on a network, also through wrappers (EMA, DistributedDataParallel).

    Raises:
        TypeError: the network has none: a programming error.
    """
    inner: object = net
    while not hasattr(inner, "network_info") and hasattr(inner, "module"):
        inner = getattr(inner, "module")  # noqa: B009 - the type checker takes it for a tensor
    info = getattr(inner, "network_info", None)
    if not isinstance(info, NetworkInfo):
        raise TypeError(f"{type(net).__name__} has no network_info; build networks with traiNNer.archs.build_network")
    return info


@contextmanager
def evaluation(net: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has its mode, and torch its random state, back."""
    modes = [(module, module.training) for module in net.modules()]
    device = device_of(net)
    accelerators = [device] if device.type in ("cuda", "xpu") else []
    with torch.no_grad(), torch.random.fork_rng(accelerators, device_type=device.type if accelerators else "cuda"):
        try:
            net.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


def pad_by_reflection(image: Tensor, multiple_of: int, minimum: int) -> Tensor:
    """Enlarge (B, C, H, W) at the bottom and right to a size that the network takes; any H and W, even 1."""
    for axis in (-2, -1):
        size = image.shape[axis]
        padded = round_up(max(size, minimum), multiple_of)
        if padded != size:
            period = max(1, 2 * (size - 1))  # there and back again, the ends once
            steps = torch.arange(padded, device=image.device) % period
            image = image.index_select(axis, torch.minimum(steps, period - steps))
    return image


def round_up(value: int, multiple_of: int) -> int:
    """The smallest multiple that is not below `value`."""
    return math.ceil(value / multiple_of) * multiple_of


def measure_reach(net: nn.Module) -> int | None:
    """How far away an input pixel changes the output by more than a millionth of white, px of LQ.

    Half of a strip of noise is inverted, along it and across; where the other half's output starts to change is the
    reach. Unlike the radius of the receptive field on paper it follows the weights, and it needs no gradient.

    Returns:
        The reach, or None if it is 256 px or more, as in a network with global pooling.
    """
    info = network_info(net)
    with evaluation(net):
        for size in PROBE_SIZES:
            half = round_up(size, info.multiple_of)
            short = round_up(max(16, info.minimum), info.multiple_of)
            noise = torch.rand(1, info.in_channels, short, 2 * half, generator=torch.Generator().manual_seed(0))
            inverted = torch.cat((noise[..., :half], 1 - noise[..., half:]), dim=-1)
            edge = half * info.scale
            along = _spread(_run(net, noise), _run(net, inverted), edge, axis=-1)
            across = _spread(_run(net, noise.mT), _run(net, inverted.mT), edge, axis=-2)
            reach = max(along, across)
            if reach < edge:
                return math.ceil(reach / info.scale)
    return None


def _spread(first: Tensor, second: Tensor, edge: int, axis: int) -> int:
    """Distance from `edge` of the farthest place before it where the two differ, px of output."""
    tolerance = 1e-6 * max(1.0, first.abs().max().item())
    differs = ((first - second).abs() > tolerance).transpose(axis, -1)[..., :edge].flatten(0, -2).any(0)
    return edge - int(differs.nonzero()[0]) if differs.any() else 0


def _run(net: nn.Module, lq: Tensor) -> Tensor:
    """One pass on the network's device and in its precision; float32 there."""
    parameter = next(net.parameters(), lq)
    return net(lq.to(parameter.device, parameter.dtype)).float()


@dataclass(frozen=True)
class _Axis:
    """How tiles lie along one side of an image, px of LQ."""

    size: int
    """The image."""
    padded: int
    """The image with its padding."""
    window: int
    """What one pass sees."""
    step: int
    """What one pass contributes."""

    def places(self) -> Iterator[tuple[int, int, int]]:
        """(begin, end, start of the window) of each tile; a window never leaves the padded image."""
        margin = (self.window - self.step) // 2
        for begin in range(0, self.size, self.step):
            start = min(max(begin - margin, 0), self.padded - self.window)
            yield begin, min(begin + self.step, self.size), start


class Upscaler:
    """`upscale` for many images: the reach is measured once, and a tile size that was found to fit is kept."""

    def __init__(self, net: nn.Module, *, tile_size: int = 0, tile_overlap: int = 0) -> None:
        self._net, self._info = net, network_info(net)
        self._tile, self._overlap = tile_size, tile_overlap
        self._tiled_from = 0.0 if tile_size else math.inf
        """Images of so many pixels come in tiles."""

    @property
    def info(self) -> NetworkInfo:
        """Facts about the network."""
        return self._info

    def __call__(self, lq: Tensor) -> Tensor:
        """See `upscale`."""
        height, width = lq.shape[-2:]
        padded = pad_by_reflection(lq, self._info.multiple_of, self._info.minimum)
        tile = self._tile if height * width >= self._tiled_from else 0
        axes = self._axes(lq, padded, tile)
        with evaluation(self._net):
            while (result := self._attempt(padded, axes)) is None:
                _release_memory(padded.device, device_of(self._net))
                tile, axes = self._smaller(lq, padded, tile, axes)
                self._tile, self._tiled_from = tile, min(self._tiled_from, height * width)
                get_logger().warning(
                    "out of memory on an image of %dx%d px: going on with tiles of %d px", width, height, tile
                )
        return result

    def _attempt(self, padded: Tensor, axes: tuple[_Axis, _Axis]) -> Tensor | None:
        """The result, or None if memory was short; by then the exception and what its frames held are gone."""
        try:
            return self._run_tiles(padded, *axes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _run_tiles(self, padded: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
        scale = self._info.scale
        if rows.window == rows.padded and columns.window == columns.padded:
            return _run(self._net, padded)[..., : rows.size * scale, : columns.size * scale]
        shape = (len(padded), self._info.out_channels, rows.size * scale, columns.size * scale)
        result = torch.empty(shape)  # in main memory: the device's may be what tiles are there to save
        for (top, bottom, y), (left, right, x) in product(rows.places(), columns.places()):
            tile = _run(self._net, padded[..., y : y + rows.window, x : x + columns.window])
            core = tile[..., (top - y) * scale : (bottom - y) * scale, (left - x) * scale : (right - x) * scale]
            # Synchronizes host and device, once for each tile.
            result[..., top * scale : bottom * scale, left * scale : right * scale] = core
        return result

    def _axes(self, lq: Tensor, padded: Tensor, tile: int) -> tuple[_Axis, _Axis]:
        rows, columns = (self._axis(lq.shape[axis], padded.shape[axis], tile) for axis in (-2, -1))
        return rows, columns

    def _axis(self, size: int, padded: int, tile: int) -> _Axis:
        """Window and step are multiples of what the network asks for, so that tiles meet its grid as the image does."""
        if tile == 0 or tile >= padded:
            return _Axis(size, padded, padded, padded)
        multiple = self._info.multiple_of
        step = max(multiple, tile // multiple * multiple)
        margin = round_up(max(self._measured_overlap(), (self._info.minimum - step + 1) // 2), multiple)
        window = step + 2 * margin
        return _Axis(size, padded, padded, padded) if window >= padded else _Axis(size, padded, window, step)

    def _measured_overlap(self) -> int:
        if self._overlap == 0:
            reach = self._reach()
            if reach is None:
                text = "the network looks %d px far or more: tiles overlapping by %d px differ a little from the whole"
                get_logger().warning(text, PROBE_SIZES[-1], FALLBACK_OVERLAP)
            self._overlap = FALLBACK_OVERLAP if reach is None else max(1, reach)
        return self._overlap

    def _reach(self) -> int | None:
        try:
            return measure_reach(self._net)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise RunError(f"out of memory, even on a strip of {PROBE_SIZES[0] * 2} px")

    def _smaller(
        self, lq: Tensor, padded: Tensor, tile: int, axes: tuple[_Axis, _Axis]
    ) -> tuple[int, tuple[_Axis, _Axis]]:
        """Halve the tile until one pass sees fewer pixels than before.

        Raises:
            RunError: the smallest tile did not fit.
        """
        tile = tile or max(padded.shape[-2:])
        while tile > max(SMALLEST_TILE, self._info.multiple_of):
            tile = max(SMALLEST_TILE, self._info.multiple_of, math.ceil(tile / 2))
            smaller = self._axes(lq, padded, tile)
            if math.prod(axis.window for axis in smaller) < math.prod(axis.window for axis in axes):
                return tile, smaller
        tiles = f"tiles of {tile} px that overlap by {self._overlap} px"
        raise RunError(f"out of memory on an image of {lq.shape[-1]}x{lq.shape[-2]} px, even in {tiles}")


def _release_memory(*devices: torch.device) -> None:
    gc.collect()
    if any(device.type != "cpu" for device in devices):
        torch.accelerator.empty_cache()


def upscale(net: nn.Module, lq: Tensor, *, tile_size: int = 0, tile_overlap: int = 0) -> Tensor:
    """Run a network on one image of any size, in evaluation mode and without gradients; changes nothing about it.

    When memory is short, the image is tried again in tiles, halved until they fit, and the log says so.

    Args:
        net: network with `network_info`.
        lq: (1, C, H, W) float32 in [0, 1] on any device.
        tile_size: side of the part of LQ that one pass contributes, px; 0 for the whole image.
        tile_overlap: how much more of the image a tile sees on each side, px. Tiles equal the whole image where this is
            the network's reach (the radius of its receptive field) or more. 0: measured (`measure_reach`).

    Returns:
        (1, C', scale H, scale W) float32, not clamped; on the network's device, or in main memory if it came in tiles.

    Raises:
        RunError: out of memory even with the smallest tiles.
    """
    return Upscaler(net, tile_size=tile_size, tile_overlap=tile_overlap)(lq)
