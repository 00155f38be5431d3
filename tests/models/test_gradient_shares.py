"""Norms of each loss's gradient at the last convolution of net_g: what they are, and that a step does not feel them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gan_model import GAN, L1, batch, gan_model, registered_loss, same, state, step
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from traiNNer.archs import build_network
from traiNNer.losses.base import Loss
from traiNNer.models.gradient_shares import last_convolution
from traiNNer.models.loss_scale import LossScale
from traiNNer.models.sr_model import SRModel
from traiNNer.monitor import StepMonitor
from traiNNer.utils.device import Precision

LOSSES = ({**L1, "loss_weight": 3.0}, {"type": "charbonnierloss", "loss_weight": 0.5, "name": "soft"}, GAN)
BLOCKS = {"num_feat": 8, "num_groups": 1, "num_blocks": 1, "ffn_expansion": 1.0}


def always(iteration: int) -> bool:
    return True


def sampled(model: SRModel, wanted: Callable[[int], bool] = always) -> SRModel:
    model.gradient_shares.request(wanted)
    return model


def norms(model: SRModel) -> dict[str, float]:
    return {
        label.removeprefix("gradient/"): value.item()
        for label, value in model.record.items()
        if label.startswith("gradient/")
    }


def by_hand(model: SRModel, label: str, weight: nn.Parameter, images: dict[str, Any]) -> float:
    """The norm of one loss's gradient, by a backward pass of it alone."""
    loss, output = model.losses[label], model.net_g(images["lq"])
    inputs = {"output": output, "target": images["gt"]}
    if label == "gan":
        inputs = {"fake_logits": model.players["net_d"].net(output)}
    value = loss(**inputs)
    value = value if isinstance(value, Tensor) else sum(value.values())
    (gradient,) = torch.autograd.grad(value, weight)
    return gradient.norm().item()


def test_the_norms_are_those_of_the_unweighted_losses() -> None:
    model = sampled(gan_model(*LOSSES, {"type": "ldlloss", "loss_weight": 0.2}))
    first, second = batch(1), batch(2)
    expected = {label: by_hand(model, label, model.net_g.last.weight, first) for label in ("l1loss", "soft", "gan")}
    step(model, 1, first, second)  # of several micro-batches the first
    assert norms(model).keys() == {*expected, "ldlloss"}
    assert {label: norms(model)[label] for label in expected} == pytest.approx(expected, rel=1e-5)
    assert norms(model)["ldlloss"] > 0


def test_a_loss_of_components_counts_once() -> None:
    class TwoParts(Loss):
        def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
            return {"one": (output - target).abs().mean(), "two": (output - target).square().mean()}

    with registered_loss("twopartsloss", TwoParts):
        model = sampled(gan_model({"type": "twopartsloss", "loss_weight": 0.1}))
        images = batch(1)
        expected = by_hand(model, "twopartsloss", model.net_g.last.weight, images)
        step(model, 1, images)
    assert norms(model) == {"twopartsloss": pytest.approx(expected, rel=1e-5)}


def dropping(net: nn.Module) -> nn.Module:
    """The network as training calls it, with random numbers of its own."""
    net.norm.register_forward_hook(lambda module, args, output: nn.functional.dropout(output, 0.2))
    return net


@pytest.mark.parametrize("scale", [None, 1024.0], ids=["float32", "float16"])
def test_a_step_is_the_same_to_the_bit(scale: float | None) -> None:
    found, random = [], []
    for wanted in (None, lambda iteration: iteration in (1, 3)):
        torch.manual_seed(5)
        precision = Precision(torch.float16 if scale else None)
        model = gan_model(*LOSSES, batch_norm=True, optimizer={"type": "AdamW", "lr": 1e-2}, precision=precision)
        dropping(model.net_g)
        for each in model.players.values():
            each.loss_scale = LossScale(torch.device("cpu"), initial=scale) if scale else None
        seen = []
        if wanted is not None:
            sampled(model, wanted)
        for iteration in range(1, 5):
            step(model, iteration, batch(iteration), batch(10 + iteration))
            seen.append(bool(norms(model)))
        found.append(state(model))
        random.append(torch.get_rng_state())
        assert seen == ([False] * 4 if wanted is None else [True, False, True, False])
    assert same(*found)
    assert torch.equal(*random)


def test_norms_in_float16_are_those_of_float32() -> None:
    found = []
    for scale in (None, 4096.0):
        model = sampled(gan_model(*LOSSES, precision=Precision(torch.float16 if scale else None)))
        for each in model.players.values():
            each.loss_scale = LossScale(torch.device("cpu"), initial=scale) if scale else None
        step(model, 1)
        found.append(norms(model))
    assert found[1] == pytest.approx(found[0], rel=0.02)


class Compiled(nn.Module):
    """Stands for a network that torch.compile has wrapped: it is not the network itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


WRAPS = [(Compiled, False), (Compiled, True), pytest.param(torch.compile, False, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("wrap", "drops"), WRAPS)
def test_a_compiled_network_is_sampled_by_its_plain_one(wrap: Callable[[nn.Module], Any], drops: bool) -> None:
    found, shares, random = [], [], []
    for wanted, forward_net in ((never_asked, wrap), (always, wrap), (always, lambda net: net)):
        torch.compiler.reset()  # kernels for shapes that other tests have left general round differently
        torch.manual_seed(5)
        model = gan_model(*LOSSES, batch_norm=True, forward_net=wrap)
        if drops:
            dropping(model.net_g)
        model.players["net_g"].forward_net = forward_net(model.net_g)
        sampled(model, wanted)
        for iteration in range(1, 4):
            step(model, iteration)
        found.append(state(model))
        shares.append(norms(model))
        random.append(torch.get_rng_state())
    assert same(found[0], found[1])
    assert torch.equal(random[0], random[1])
    assert shares[1].keys() == shares[2].keys()
    if not drops:
        assert shares[1] == pytest.approx(shares[2], rel=1e-3)
    assert shares[0] == {}


def never_asked(iteration: int) -> bool:
    return False


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def counted(count: list[int], bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
    count.append(1)
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


counted.__annotations__.update({"bucket": torch.distributed.GradBucket, "return": torch.futures.Future[Tensor]})


@pytest.mark.usefixtures("group")
def test_several_processes_exchange_the_step_s_gradients_alone() -> None:
    found, shares, exchanged = [], [], []
    for wanted in (never_asked, always):
        model = sampled(gan_model(*LOSSES, forward_net=DistributedDataParallel), wanted)
        wrapped = DistributedDataParallel(model.net_g)
        model.players["net_g"].forward_net = wrapped
        count: list[int] = []

        wrapped.register_comm_hook(count, counted)
        for iteration in range(1, 4):
            step(model, iteration, batch(iteration), batch(10 + iteration))
        found.append(state(model))
        shares.append(norms(model))
        exchanged.append(len(count))
    assert same(*found)
    assert exchanged[0] == exchanged[1] == 3
    assert shares[1].keys() == {"l1loss", "soft", "gan"}


def test_a_sample_that_is_not_finite_skips_no_step_and_is_not_logged() -> None:
    class Steep(Loss):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return (output * 0).sqrt().mean()  # finite, its gradient is not

    with registered_loss("steeploss", Steep):
        model = sampled(gan_model(L1, {"type": "steeploss", "loss_weight": 1.0}))
        model._terms[1].weighted = lambda value, current_iter: value.detach() * 0  # the step does not learn from it
        with torch.autograd.set_detect_anomaly(True):
            step(model, 1)
    assert not math.isfinite(norms(model)["steeploss"])
    assert model.record["finite"].item() == model.record["losses_finite"].item() == 1
    monitor = StepMonitor()
    monitor.add(1, model.record, [], {})
    assert not [label for label in monitor.means() if "gradient" in label]
    assert monitor.skipped == 0


def test_an_iteration_is_sampled_once_even_if_it_is_run_again() -> None:
    asked: list[int] = []
    model = sampled(gan_model(L1), lambda iteration: asked.append(iteration) is None)
    images, shares = batch(1), model.gradient_shares
    terms = model._terms
    for _ in range(2):  # a step that did not fit is run again in pieces
        output = model._generate(model.net_g, images["lq"], graph=True)
        values = {"l1loss": terms[0].loss(output, images["gt"])}
        shares.sample(7, terms, values, output, images["lq"])
    assert asked == [7]
    assert shares.taken().keys() == {"gradient/l1loss"}
    assert shares.taken() == {}


NETWORKS = {
    "paragonsr2": ({"type": "paragonsr2", "scale": 2, **BLOCKS}, "conv_out"),
    "span": ({"type": "span", "scale": 2, "feature_channels": 8}, "upsampler"),
    "compact": ({"type": "compact", "scale": 2, "num_feat": 8, "num_conv": 2}, "body"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_convolution_is_the_one_executed_last(name: str) -> None:
    options, expected = NETWORKS[name]
    net = build_network(options).train()
    output = net(torch.rand(1, 3, 16, 16))
    found = last_convolution(output, net)
    named = {id(parameter): label for label, parameter in net.named_parameters()}
    assert expected in named[id(found)]
    assert found.ndim == 4
    (gradient,) = torch.autograd.grad(output.square().mean(), found)
    assert gradient.norm() > 0


def test_networks_that_end_otherwise() -> None:
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(3, 3, 1)
            self.first = nn.Conv2d(3, 3, 1)
            self.mix = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(self.last(torch.relu(self.first(x))).movedim(1, -1)).movedim(-1, 1)

    net, x = Ends(), torch.rand(1, 3, 4, 4)
    assert last_convolution(net(x), net) is net.last.weight
    net.last.requires_grad_(False)
    assert last_convolution(net(x), net) is net.first.weight
    normalized = nn.Sequential(nn.Conv2d(3, 3, 1), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)))
    assert last_convolution(normalized(x), normalized) in set(normalized[1].parameters())
    linear = nn.Linear(4, 4)
    assert last_convolution(linear(x), linear) is linear.bias
