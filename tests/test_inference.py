"""Tiles equal the whole image, whatever the sizes; short memory leads to tiles; nothing about a network changes."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from traiNNer.inference import Upscaler, evaluation, is_out_of_memory, measure_reach, network_info, upscale
from traiNNer.types import NetworkInfo
from traiNNer.utils.errors import RunError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _log_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("traiNNer"), "propagate", True)


class LocalNet(nn.Module):
    """Convolutions with zero padding on `multiple_of`-fold unshuffled pixels; random, but the same each time."""

    def __init__(self, scale: int = 2, multiple_of: int = 1, minimum: int = 1, layers: int = 3) -> None:
        super().__init__()
        self.down = nn.PixelUnshuffle(multiple_of)
        channels = 3 * multiple_of**2
        with torch.random.fork_rng():
            torch.manual_seed(0)
            body = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers)]
            self.body = nn.Sequential(*(module for conv in body for module in (conv, nn.SiLU())))
            self.up = nn.Sequential(nn.Conv2d(channels, channels * scale**2, 1), nn.PixelShuffle(scale * multiple_of))
        self.reach = layers * multiple_of + multiple_of - 1
        self.network_info = NetworkInfo(type="local", scale=scale, multiple_of=multiple_of, minimum=minimum)
        self.seen: list[tuple[int, int]] = []

    def forward(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        info = self.network_info
        assert height % info.multiple_of == width % info.multiple_of == 0
        assert min(height, width) >= info.minimum
        self.seen.append((height, width))
        return self.up(self.body(self.down(lq)))


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile_size=st.integers(1, 80),
    extra=st.integers(0, 5),
    scale=st.sampled_from([1, 2, 3]),
    multiple_of=st.sampled_from([1, 2, 4]),
    minimum=st.sampled_from([1, 12]),
)
@example(height=1, width=1, tile_size=1, extra=0, scale=2, multiple_of=4, minimum=12)
@example(height=70, width=5, tile_size=8, extra=0, scale=2, multiple_of=1, minimum=12)
def test_tiles_equal_the_whole_image(
    height: int, width: int, tile_size: int, extra: int, scale: int, multiple_of: int, minimum: int
) -> None:
    net = LocalNet(scale, multiple_of, minimum)
    lq = image(height, width)
    whole = upscale(net, lq)
    tiled = upscale(net, lq, tile_size=tile_size, tile_overlap=net.reach + extra)
    assert whole.shape == (1, 3, height * scale, width * scale)
    assert torch.allclose(tiled, whole, rtol=0, atol=1e-5)


def test_the_whole_image_is_one_pass_without_padding() -> None:
    net = LocalNet()
    lq = image(20, 31)
    assert torch.equal(upscale(net, lq), net(lq).detach())


def test_tiles_bound_what_one_pass_sees() -> None:
    net = LocalNet()
    upscale(net, image(100, 60), tile_size=16, tile_overlap=3)
    assert set(net.seen) == {(22, 22)}
    assert len(net.seen) == 7 * 4


def test_padding_is_a_reflection_and_is_cut_off() -> None:
    net = LocalNet(multiple_of=4)
    lq = image(6, 7)
    mirrored = torch.nn.functional.pad(lq, (0, 1, 0, 2), mode="reflect")
    assert torch.equal(upscale(net, lq), net(mirrored).detach()[..., :12, :14])


def test_a_tile_that_is_too_small_an_overlap_shows() -> None:
    """The test above can fail: without the overlap the tiles differ."""
    net, lq = LocalNet(), image(40, 40)
    difference = upscale(net, lq, tile_size=16, tile_overlap=1) - upscale(net, lq)
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("multiple_of", [1, 4])
def test_overlap_that_is_not_given_is_measured(multiple_of: int) -> None:
    net, lq = LocalNet(multiple_of=multiple_of), image(61, 90)
    assert 0 < measure_reach(net) <= net.reach
    assert torch.allclose(upscale(net, lq, tile_size=16), upscale(net, lq), rtol=0, atol=1e-4)


def test_reach_is_the_radius_of_the_receptive_field() -> None:
    net = nn.Conv2d(3, 3, 1)
    net.network_info = NetworkInfo(type="point")
    assert measure_reach(net) == 0
    wide = nn.Conv2d(3, 3, (1, 161), padding=(0, 80))
    nn.init.constant_(wide.weight, 0.1)
    wide.network_info = NetworkInfo(type="wide")
    assert measure_reach(wide) == 80
    high = nn.Conv2d(3, 3, (31, 1), padding=(15, 0))
    nn.init.constant_(high.weight, 0.1)
    high.network_info = NetworkInfo(type="high")
    assert measure_reach(high) == 15


def test_a_network_that_sees_everything_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Pooled(LocalNet):
        def forward(self, lq: Tensor) -> Tensor:
            return super().forward(lq) + lq.mean()

    net = Pooled()
    assert measure_reach(net) is None
    assert upscale(net, image(200, 200), tile_size=64).shape == (1, 3, 400, 400)
    assert "differ a little from the whole" in caplog.text


class ShortOfMemory(LocalNet):
    """Raises PyTorch's own out-of-memory error above a number of pixels, and counts what is still alive then."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, lq: Tensor) -> Tensor:
        if lq.shape[-1] * lq.shape[-2] > self.most:
            self.seen.append((-1, -1))
            torch.empty(2**60, dtype=torch.uint8)  # the allocator's real refusal
        return super().forward(lq)


def test_tiles_are_halved_until_they_fit_and_the_size_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    net = ShortOfMemory(most=70 * 70)
    lq = image(200, 150)
    upscaler = Upscaler(net)
    assert torch.allclose(upscaler(lq), upscale(LocalNet(), lq), rtol=0, atol=1e-4)
    refused = net.seen.count((-1, -1))
    assert refused == 2  # the whole image, and tiles of 100
    assert "out of memory on an image of 150x200 px: going on with tiles of 50 px" in caplog.text
    upscaler(lq)
    assert net.seen.count((-1, -1)) == refused
    net.seen.clear()
    upscaler(image(60, 60))
    assert net.seen == [(60, 60)]  # small images are not cut


def test_memory_that_is_short_even_for_the_smallest_tile_is_one_message() -> None:
    with pytest.raises(RunError, match=r"out of memory on an image of 90x80 px, even in tiles of 16 px"):
        upscale(ShortOfMemory(most=1), image(80, 90), tile_overlap=3)


def test_other_errors_keep_their_traceback() -> None:
    class Broken(LocalNet):
        def forward(self, lq: Tensor) -> Tensor:
            return lq @ torch.ones(2, 5)

    with pytest.raises(RuntimeError, match="shape"):
        upscale(Broken(), image(8, 8))


def test_what_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8")
    )
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(ValueError("std::bad_alloc"))


def test_nothing_about_the_network_or_the_random_state_changes() -> None:
    class Noisy(LocalNet):
        def forward(self, lq: Tensor) -> Tensor:
            return super().forward(lq) + torch.rand(1)

    net = Noisy().train()
    net.body.eval()
    modes = {name: module.training for name, module in net.named_modules()}
    state = torch.get_rng_state()
    upscale(net, image(40, 40), tile_size=16)
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)
    with evaluation(net):
        assert not net.training
        assert not torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), evaluation(net):
        math.floor(1 / 0)
    assert net.training


def test_half_precision_weights_take_float_images() -> None:
    net = LocalNet().to(torch.bfloat16)
    result = upscale(net, image(24, 24), tile_size=8)
    assert result.dtype == torch.float32
    assert torch.allclose(result, upscale(LocalNet(), image(24, 24)), atol=0.05)


def test_facts_are_found_through_wrappers() -> None:
    net = torch.optim.swa_utils.AveragedModel(LocalNet())
    assert network_info(net).type == "local"
    with pytest.raises(TypeError, match="build_network"):
        network_info(nn.Linear(1, 1))


@pytest.mark.parametrize("scale", [2, 4])
def test_paragonsr2_in_tiles_equals_the_whole_image(scale: int) -> None:
    """With factors and tracked kernels as training leaves them, so that every layer counts."""
    from traiNNer.archs import build_network

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_network({"type": "paragonsr2_nano", "scale": scale})
        for name, parameter in net.named_parameters():
            if name.endswith("gamma"):
                nn.init.constant_(parameter, 0.5)
        net.train()(torch.rand(2, 3, 24, 24))
    lq = image(91, 123)
    whole = upscale(net, lq)
    assert torch.allclose(upscale(net, lq, tile_size=24), whole, rtol=0, atol=1e-5)
    assert torch.allclose(upscale(net, lq, tile_size=17, tile_overlap=48), whole, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_memory_that_is_short_leads_to_tiles(caplog: pytest.LogCaptureFixture) -> None:
    net, lq = LocalNet().cuda(), image(3000, 4000)
    whole = upscale(net, lq).cpu()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 200 * 2**20) / total)
    try:
        limited = upscale(net, lq)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory" in caplog.text
    assert torch.allclose(limited, whole, rtol=0, atol=1e-4)


UNDER_A_LIMIT = """
    import resource, sys, torch
    sys.path.insert(0, "tests")
    torch.set_num_threads(1)
    from test_inference import LocalNet, image
    from traiNNer.inference import upscale
    import logging
    logging.basicConfig(level=logging.INFO, format="LOG %(message)s", stream=sys.stdout)
    net, lq = LocalNet(), image(800, 700)
    net.body.append(torch.nn.Conv2d(3, 96, 3, padding=1)).append(torch.nn.Conv2d(96, 3, 3, padding=1))
    whole = upscale(net, lq)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))
    limited = upscale(net, lq)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("DIFFERENCE", float((limited - whole).abs().max()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an address-space limit and /proc are Linux's")
def test_a_run_under_an_address_space_limit_equals_the_whole_image() -> None:
    code = textwrap.dedent(UNDER_A_LIMIT)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "LOG out of memory on an image of 700x800 px: going on with tiles of" in done.stdout
    difference = float(done.stdout.split("DIFFERENCE")[1])
    assert difference <= 1e-4
