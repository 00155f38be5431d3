"""A step that runs out of memory: run again in pieces, it is the same step; where it cannot, one message."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gan_model import GAN, L1, R1_R2, Upscaler, batch, gan_model, net_d, player, registered_loss, same, state, step
from memory_faults import ERROR, PLACES, Reports, memory_for
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from traiNNer.archs import build_network
from traiNNer.losses import build_losses
from traiNNer.losses.base import Loss
from traiNNer.models import transaction
from traiNNer.models.loss_scale import LossScale
from traiNNer.models.sr_model import SRModel
from traiNNer.types import NetworkInfo
from traiNNer.utils.balanced import balanced
from traiNNer.utils.errors import RunError
from traiNNer.utils.out_of_memory import MESSAGES, figures, is_out_of_memory

SGD = {"type": "SGD", "lr": 0.05, "momentum": 0.9}
every_place = pytest.mark.parametrize("place", PLACES)


def double(seed: int, size: int) -> dict[str, Any]:
    return batch(seed, size, torch.float64)


def assert_near(found: Any, expected: Any, tolerance: float = 1e-9, name: str = "") -> None:
    """Equal to a part of the largest entry, or of 1e-6 where that is 0 but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_near(found[key], value, tolerance, f"{name}/{key}")
    elif isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        largest = expected.double().abs().max().item()
        assert (found.double() - expected.double()).abs().max().item() <= tolerance * max(largest, 1e-6), name


def model_of(net: nn.Module, **keywords: Any) -> SRModel:
    """A generator alone."""
    return SRModel(generator=player(net, SGD), losses=build_losses([L1]), **keywords)


# pieces are the whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "memory"), [*((place, 2) for place in PLACES), ("generator backward", 1)])
def test_a_step_run_again_in_pieces_is_the_step_in_float64(place: str, memory: int) -> None:
    reports = Reports()
    gan = GAN | R1_R2
    limited = gan_model(L1, gan, float64=True, observer=reports, recovers=True)
    unlimited = gan_model(L1, gan, float64=True)
    start = state(unlimited)
    network = "net_d" if place.startswith("discriminator") else "net_g"
    for iteration in (1, 2):
        batches = double(10 * iteration, 2), double(10 * iteration + 1, 3)  # where 2 fit, the second one fails
        with memory_for(memory, limited, place) as tried:
            step(limited, iteration, *batches)
        step(unlimited, iteration, *batches)
        assert_near(limited.record, unlimited.record)
        assert_near(state(limited), state(unlimited))
        assert tried == ([2, 3, 2, 2, 1] if memory == 2 else [2, 2, 1, 1, 1, 1, 1])
    assert reports.seen == [(network, 3, memory, 1), (network, 3, memory, 2)]
    assert not any(same(state(unlimited)[name], start[name]) for name in start)


@pytest.mark.parametrize("gan_type", ["hinge", "r3gan", "wgan"])
def test_micro_batches_count_by_their_images(gan_type: str) -> None:
    gan = GAN | {"gan_type": gan_type} | ({} if gan_type == "r3gan" else R1_R2)
    pieced, whole = (gan_model(L1, gan, float64=True) for _ in range(2))
    for iteration in (1, 2):
        images = double(iteration, 8)
        step(
            pieced,
            iteration,
            *[{key: value[a:b] for key, value in images.items()} for a, b in ((0, 3), (3, 6), (6, 8))],
        )
        step(whole, iteration, images)
    assert_near(pieced.record, whole.record)
    assert_near(state(pieced), state(whole))


def test_equal_micro_batches_are_divided_by_their_number_to_the_bit() -> None:
    model = model_of(Upscaler(batch_norm=True))
    net = Upscaler(batch_norm=True)
    net.load_state_dict(model.net_g.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for iteration in (1, 2):
        batches = [batch(10 * iteration + number) for number in range(3)]
        step(model, iteration, *batches)
        optimizer.zero_grad()
        losses = []
        for each in batches:
            losses.append((net(each["lq"]) - each["gt"]).abs().mean())
            (losses[-1] / 3).backward()
        optimizer.step()
        assert torch.equal(model.record["l1loss"], torch.stack(losses).mean())
    assert same(model.net_g.state_dict(), dict(net.state_dict()))


@pytest.mark.parametrize("options", [{"channels_last": True}, {"loss_scale": True}], ids=str)
def test_a_step_in_float32_too(options: dict[str, Any]) -> None:
    def made(**keywords: Any) -> SRModel:
        model = gan_model(L1, GAN, channels_last=options.get("channels_last", False), **keywords)
        for each in model.players.values() if "loss_scale" in options else ():
            each.loss_scale = LossScale(torch.device("cpu"), initial=1024.0)
        return model

    limited, unlimited = made(recovers=True), made()
    for iteration in (1, 2):
        with memory_for(2, limited, "generator backward"), memory_for(2, limited, "discriminator backward"):
            step(limited, iteration, batch(iteration, 4))
        step(unlimited, iteration, batch(iteration, 4))
    assert_near(state(limited, "net_g", "net_d", "ema"), state(unlimited, "net_g", "net_d", "ema"), 1e-5)
    assert_near(limited.record, unlimited.record, 1e-5)


def test_a_step_that_only_net_d_learns_from() -> None:
    gan = GAN | {"start_iter": 3, "discriminator_start_iter": 1}
    limited, unlimited = (gan_model(gan, float64=True, recovers=recovers) for recovers in (True, False))
    start = state(limited, "net_g")
    with memory_for(2, limited, "generator forward") as tried:
        step(limited, 1, double(1, 3), double(2, 2))
    step(unlimited, 1, double(1, 3), double(2, 2))
    assert tried == [3, 2, 1, 2]
    assert_near(state(limited), state(unlimited))
    assert same(state(limited, "net_g"), start)
    assert not same(state(limited, "net_d"), state(gan_model(gan, float64=True), "net_d"))


@pytest.mark.parametrize("name", ["l1loss", "charbonnierloss", "fftloss"])
def test_a_loss_that_adds_up_images_does_so_over_pieces(name: str) -> None:
    options = {"type": name, "loss_weight": 1e-3, "reduction": "sum"}
    limited, unlimited = (gan_model(options, float64=True, recovers=recovers) for recovers in (True, False))
    for model in (limited, unlimited):
        with memory_for(2 if model is limited else 9, model, "generator forward"):
            step(model, 1, double(1, 5), double(2, 5))
    assert_near(limited.record, unlimited.record)
    assert_near(state(limited, "net_g"), state(unlimited, "net_g"))


def test_a_step_that_is_not_finite_changes_nothing_in_pieces_either() -> None:
    model = gan_model(L1, GAN, batch_norm=True, recovers=True)
    step(model, 1)
    before = state(model)
    poisoned = batch(2, 4)
    poisoned["gt"][3, 0, 0, 0] = math.nan
    with memory_for(2, model, "generator backward"), memory_for(1, model, "discriminator forward"):
        step(model, 2, poisoned)
    assert model.record["finite"].item() == 0
    assert same(state(model), before)


# buffers and random numbers ------------------------------------------------------------------------------------------


def test_tracked_kernels_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    limited = model_of(build_network({"type": "paragonsr2_nano", "scale": 2}).double(), recovers=True)
    unlimited = model_of(build_network({"type": "paragonsr2_nano", "scale": 2}).double())
    unlimited.net_g.load_state_dict(limited.net_g.state_dict())
    for iteration in (1, 2):
        batches = double(10 * iteration, 3), double(10 * iteration + 1, 3)
        with memory_for(2, limited, "generator backward") as tried:
            step(limited, iteration, *batches)
        step(unlimited, iteration, *batches)
        assert tried == [3, 2, 1, 2, 1]
    assert_near(limited.net_g.state_dict(), unlimited.net_g.state_dict())


class Iterating(nn.Module):
    """A spectral norm that iterates in every forward pass, and a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.spectral_norm(nn.Conv2d(3, 12, 3, padding=1))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.first(self.norm(x)), 2)


@pytest.mark.parametrize("sizes", [(4,), (4, 4)], ids=str)
def test_buffers_are_as_after_one_pass_of_each_micro_batch(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    limited, unlimited = model_of(Iterating().double(), recovers=True), model_of(Iterating().double())
    unlimited.net_g.load_state_dict(limited.net_g.state_dict())
    batches = [double(number, size) for number, size in enumerate(sizes)]
    with memory_for(1, limited, "generator backward"):
        step(limited, 1, *batches)
    step(unlimited, 1, *batches)
    found, expected = (dict(model.net_g.named_buffers()) for model in (limited, unlimited))
    vectors = [name for name in expected if name.endswith(("_u", "_v"))]
    assert len(vectors) == 2
    assert all(torch.equal(found[name], expected[name]) for name in vectors)
    assert torch.equal(found["norm.num_batches_tracked"], torch.tensor(len(sizes)))
    assert_near(found["norm.running_mean"], expected["norm.running_mean"])


class Learning(Loss):
    """The L1 distance, which keeps a running mean of it; its rule is linear in the batch."""

    learns = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running", torch.zeros((), dtype=torch.float64))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        distance = (output - target).abs().mean()
        self.running.lerp_(distance.detach(), 0.1)
        return distance


def test_what_a_loss_learns_is_learned_once() -> None:
    values: list[Tensor] = []
    with registered_loss("learningloss", Learning):
        for recovers in (True, False):
            model = gan_model({"type": "learningloss", "loss_weight": 1.0}, float64=True, recovers=recovers)
            with memory_for(2 if recovers else 9, model, "generator backward"):
                step(model, 1, double(1, 5), double(2, 5))
            values.append(model.losses["learningloss"].running)  # type: ignore[arg-type]
    assert_near(*values)


@pytest.mark.parametrize("recovers", [True, False])
def test_memory_that_ends_outside_the_passes_ends_the_run(recovers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gan_model(L1, recovers=recovers)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError(ERROR)

    monkeypatch.setattr(model.ema, "update", fail)
    with pytest.raises(RunError, match=r"^iteration 3 ran out of memory \(.*1.50 GiB is free\).*half changed"):
        step(model, 3)


def test_random_numbers_begin_again_once() -> None:
    """Pieces of a micro-batch draw what micro-batches of their size would."""
    net = nn.Sequential(nn.Dropout(0.5), Upscaler(batch_norm=False))
    limited, pieces = model_of(net, recovers=True), model_of(nn.Sequential(nn.Dropout(0.5), Upscaler(batch_norm=False)))
    pieces.net_g.load_state_dict(net.state_dict())
    images = batch(1, 4)
    torch.manual_seed(5)
    with memory_for(2, limited, "generator backward"):
        step(limited, 1, images)
    after = torch.rand(1)
    torch.manual_seed(5)
    step(pieces, 1, *[{key: value[a : a + 2] for key, value in images.items()} for a in (0, 2)])
    assert torch.equal(after, torch.rand(1))
    assert same(dict(net.state_dict()), dict(pieces.net_g.state_dict()))


# memory --------------------------------------------------------------------------------------------------------------


@every_place
def test_nothing_of_the_failed_try_is_alive_when_memory_is_freed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gan_model(L1, GAN | R1_R2, recovers=True)
    outputs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    net = model.net_g if place.startswith("generator") else net_d(model)
    hook = net.register_forward_hook(lambda module, inputs, output: outputs.append(weakref.ref(output)))

    def free(device: torch.device) -> None:
        alive.append(sum(output() is not None for output in outputs))
        assert all(weight.grad is None for weight in net.parameters())

    monkeypatch.setattr(transaction, "free_memory", free)
    with memory_for(2, model, place):
        step(model, 1, batch(1, 2), batch(2, 4))
    hook.remove()
    assert alive == [0]
    assert len(outputs) > 2


def test_optimizers_of_adams_kind_have_their_memory_before_the_first_step() -> None:
    early, late = (gan_model(L1, GAN, optimizer={"type": "AdamW", "lr": 1e-3}, recovers=each) for each in (True, False))
    for name, each in early.players.items():
        assert len(each.optimizer.state) == len(list(each.net.parameters()))
        assert not any(value.any() for entry in each.optimizer.state.values() for value in entry.values())
        assert all(weight.grad is None for weight in each.net.parameters())
        assert not late.players[name].optimizer.state
    for iteration in (1, 2):
        for model in (early, late):
            step(model, iteration)
    assert same(state(early), state(late))


# messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "network", "size"), [("generator backward", "net_g", "8x8"), ("discriminator forward", "net_d", "16x16")]
)
def test_what_does_not_fit_image_by_image_ends_the_run(place: str, network: str, size: str) -> None:
    model = gan_model(L1, GAN, recovers=True)
    with memory_for(0, model, place) as tried, pytest.raises(RunError) as caught:
        step(model, 7, batch(1, 4))
    assert tried == [4, 2, 1]
    assert str(caught.value) == (
        f"out of memory at iteration 7: the passes of {network} do not fit with 4 images of {size} px, "
        "nor with 1 at a time (Tried to allocate 2.00 GiB, total capacity of 8.00 GiB of which 1.50 GiB is free); "
        "lower lq_size (gt_size), or set use_amp"
    )


@every_place
def test_without_recovery_it_ends_the_run_at_once(place: str) -> None:
    model = gan_model(L1, GAN)
    with memory_for(2, model, place) as tried, pytest.raises(RunError) as caught:
        step(model, 7, batch(1, 4))
    assert tried == [4]
    assert "do not fit with 4 images" in str(caught.value)
    assert "lower batch_size_per_gpu or lq_size (gt_size), or set use_amp" in str(caught.value)
    assert "turn on the automation DynamicBatchSizeOptimizer" in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("name", ["net_g", "net_d"])
def test_an_optimizers_step_is_not_run_again(name: str) -> None:
    model = gan_model(L1, GAN, recovers=True)
    optimizer = model.players[name].optimizer
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        raise torch.OutOfMemoryError(ERROR)

    optimizer.register_step_pre_hook(fail)
    with pytest.raises(
        RunError, match=rf"the optimizer's step of {name} ran out of memory .*half changed and is not saved$"
    ):
        step(model, 1)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "message", ["CUDA error: device-side assert triggered", "mat1 and mat2 shapes cannot be multiplied"]
)
def test_other_errors_keep_their_traceback(message: str) -> None:
    model = gan_model(L1, recovers=True)

    def fail(*_: Any) -> None:
        raise RuntimeError(message)

    model.net_g.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match=re.escape(message)):
        step(model, 1)


@pytest.mark.parametrize("words", MESSAGES)
def test_messages_are_known(words: str) -> None:
    assert is_out_of_memory(RuntimeError(f"{words}. And more"))
    assert not is_out_of_memory(ValueError(words))


@pytest.mark.parametrize(
    "message",
    ["CUDA error: an illegal memory access was encountered", "CUDA", "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"],
)
def test_other_messages_are_not(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**57), lambda: bytearray(2**62)], ids=["torch", "Python"])
def test_real_errors_are_known(ask: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        ask()
    assert is_out_of_memory(caught.value)
    assert figures(caught.value)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ERROR, "Tried to allocate 2.00 GiB, total capacity of 8.00 GiB of which 1.50 GiB is free"),
        (
            "MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB). Tried to allocate 256.00 MB",
            "Tried to allocate 256.00 MB, max allowed: 9.07 GB",
        ),
        (
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes. Error code 12",
            "tried to allocate 123 bytes",
        ),
        ("could not create a primitive\nmore", "could not create a primitive"),
        ("", "RuntimeError"),
    ],
)
def test_figures_are_what_the_error_reports(message: str, expected: str) -> None:
    assert figures(RuntimeError(message)) == expected


# facts ---------------------------------------------------------------------------------------------------------------


def test_pieces_are_balanced() -> None:
    for images in range(1, 30):
        for largest in range(1, images + 1):
            sizes = balanced(images, largest)
            assert sum(sizes) == images
            assert max(sizes) <= largest
            assert max(sizes) - min(sizes) <= 1
            assert len(sizes) == math.ceil(images / largest)


def test_what_couples_images_is_named() -> None:
    chc = {"type": "chcloss", "loss_weight": 1.0, "loss_lambda": 0.1, "name": "coupled"}
    model = gan_model(L1, chc, GAN)
    model.net_g.network_info = NetworkInfo(type="noisy", batch_coupled=True)  # type: ignore[assignment]
    assert model.batch_coupled == ["net_g", "coupled"]
    assert gan_model(L1, GAN).batch_coupled == []
