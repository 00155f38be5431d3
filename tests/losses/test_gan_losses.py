"""Adversarial losses and gradient penalties against the published definitions, written again in NumPy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from traiNNer.losses import build_loss, needs
from traiNNer.losses.adversarial import AdversarialLoss, Logits, gradient_penalty
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import LOSSES

Array = np.ndarray
R3GAN = (("ganloss", "r3gan"), ("multiscaleganloss", "r3gan"), ("r3ganloss", "r3gan"), ("multiscaler3ganloss", "r3gan"))
UNPAIRED = tuple(
    (name, gan_type)
    for name in ("ganloss", "multiscaleganloss")
    for gan_type in ("vanilla", "lsgan", "wgan", "wgan_softplus", "hinge")
)
LABELS = {"real_label_val": 0.9, "fake_label_val": 0.2}


@pytest.fixture(autouse=True)
def _the_same_weights_every_time() -> None:
    torch.manual_seed(0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def cross_entropy(x: Array, label: float) -> float:
    return float(np.mean(-label * np.log(sigmoid(x)) - (1 - label) * np.log(1 - sigmoid(x))))


def published(gan_type: str, real: Array, fake: Array, one: float, zero: float) -> tuple[float, dict[str, float]]:
    """What the generator minimizes, and the parts of what the discriminator minimizes."""
    log = np.log
    match gan_type:
        case "vanilla":
            parts = {"d_real": cross_entropy(real, one), "d_fake": cross_entropy(fake, zero)}
            return cross_entropy(fake, one), parts
        case "lsgan":
            parts = {"d_real": np.mean((real - one) ** 2), "d_fake": np.mean((fake - zero) ** 2)}
            return np.mean((fake - one) ** 2), parts
        case "wgan":
            return -np.mean(fake), {"d_real": -np.mean(real), "d_fake": np.mean(fake)}
        case "wgan_softplus":
            parts = {"d_real": np.mean(log(1 + np.exp(-real))), "d_fake": np.mean(log(1 + np.exp(fake)))}
            return np.mean(log(1 + np.exp(-fake))), parts
        case "hinge":
            parts = {"d_real": -np.mean(np.minimum(0, real - 1)), "d_fake": -np.mean(np.minimum(0, -fake - 1))}
            return -np.mean(fake), parts
        case _:
            return -np.mean(log(sigmoid(fake - real))), {"d": -np.mean(log(sigmoid(real - fake)))}


def logits(seed: int, side: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(4, 1, side, side, generator=generator, dtype=torch.float64)


def scales(seed: int) -> list[Tensor]:
    return [logits(seed), logits(seed + 100, 3), logits(seed + 200, 2)]


def adversarial(name: str, **options: Any) -> AdversarialLoss:
    loss = build_loss({"type": name, "loss_weight": 1.0, **options})
    assert isinstance(loss, AdversarialLoss)
    return loss


def generator_value(loss: AdversarialLoss, real: Logits, fake: Logits) -> Tensor:
    given = {"real_logits": real, "fake_logits": fake}
    return loss(**{name: given[name] for name in needs(loss)})


@pytest.mark.parametrize("make", [logits, scales], ids=["a map", "three scales"])
@pytest.mark.parametrize("labels", [{}, LABELS], ids=["labels 1 and 0", "other labels"])
@pytest.mark.parametrize(("name", "gan_type"), UNPAIRED + R3GAN)
def test_values_are_those_published(
    name: str, gan_type: str, labels: dict[str, float], make: Callable[[int], Logits]
) -> None:
    loss = adversarial(name, gan_type=gan_type, **labels)
    real, fake = make(1), make(2)
    pairs = [(real, fake)] if isinstance(real, Tensor) else list(zip(real, fake, strict=True))
    one, zero = (labels or {"real_label_val": 1.0, "fake_label_val": 0.0}).values()
    expected = [published(gan_type, each[0].numpy(), each[1].numpy(), one, zero) for each in pairs]
    value = generator_value(loss, real, fake)
    assert value.item() == pytest.approx(np.mean([each[0] for each in expected]), abs=1e-6, rel=0)
    found = loss.discriminator_loss(real, fake)
    assert found.keys() == expected[0][1].keys()
    for part, number in found.items():
        assert number.shape == ()
        assert number.item() == pytest.approx(np.mean([each[1][part] for each in expected]), abs=1e-6, rel=0)


@pytest.mark.parametrize(("name", "gan_type"), UNPAIRED + R3GAN)
def test_the_players_pull_in_opposite_directions(name: str, gan_type: str) -> None:
    loss = adversarial(name, gan_type=gan_type)
    real, fake = logits(1).requires_grad_(), logits(2).requires_grad_()
    (up,) = torch.autograd.grad(generator_value(loss, real, fake), fake)
    parts = loss.discriminator_loss(real, fake)
    d_real, d_fake = torch.autograd.grad(torch.stack(list(parts.values())).sum(), (real, fake))
    near_labels = gan_type == "lsgan"  # a parabola rises on both sides of its label
    assert near_labels or (up <= 0).all()
    assert near_labels or ((d_real <= 0).all() and (d_fake >= 0).all())
    assert all(each.abs().sum() > 0 for each in (up, d_real, d_fake))


def test_only_pairing_asks_for_real_logits() -> None:
    for name, gan_type in UNPAIRED:
        assert needs(adversarial(name, gan_type=gan_type)) == {"fake_logits"}
    for name, gan_type in R3GAN:
        loss = adversarial(name, gan_type=gan_type)
        assert needs(loss) == {"fake_logits", "real_logits"}
        with pytest.raises(TypeError, match="real_logits"):
            loss(fake_logits=logits(1))


def test_huge_logits_stay_finite() -> None:
    huge = torch.tensor([[-1e4, 1e4]])
    for name, gan_type in UNPAIRED + R3GAN:
        loss = adversarial(name, gan_type=gan_type)
        values = [generator_value(loss, huge, -huge), *loss.discriminator_loss(huge, -huge).values()]
        assert torch.isfinite(torch.stack(values)).all(), gan_type


# gradient penalties ---------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """D(x) = w . x + b, whose gradient is w everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(48, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1)).reshape(-1, 1, 1, 1)


class Curved(nn.Module):
    """A small convolutional D with second derivatives; a map of logits, or two of them."""

    def __init__(self, *, several: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 1, 3)
        self.several = several

    def forward(self, x: Tensor) -> Logits:
        hidden = nn.functional.softplus(self.first(x))
        fine = self.last(hidden)
        return [fine, self.last(hidden.square())[..., ::2, ::2]] if self.several else fine


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def opinion(net: nn.Module, x: Tensor) -> Array:
    """D(x) of each image: the mean of its logits over the map, then over the scales."""
    with torch.no_grad():
        answer = net(x)
    maps = [answer] if isinstance(answer, Tensor) else answer
    return np.mean([each.numpy().reshape(len(x), -1).mean(1) for each in maps], axis=0)


def numerical_penalty(net: nn.Module, x: Tensor, step: float = 1e-3) -> float:
    """The mean over images of the squared length of D's gradient, by differences of D alone, in float64."""
    squared = []
    for image in x.double():
        offsets = step * torch.eye(image.numel(), dtype=torch.float64).reshape(-1, *image.shape)
        slopes = (opinion(net, image + offsets) - opinion(net, image - offsets)) / (2 * step)
        squared.append(float((slopes**2).sum()))
    return float(np.mean(squared))


def numerical_derivative(net: nn.Module, x: Tensor, weight: Tensor, step: float = 1e-3) -> Tensor:
    """How the penalty changes with each element of one of the weights of a float64 net."""
    slopes = torch.zeros(weight.numel(), dtype=torch.float64)
    flat = weight.data.view(-1)
    for index in range(len(flat)):
        value = flat[index].item()
        around = []
        for at in (value + step, value - step):
            flat[index] = at
            around.append(numerical_penalty(net, x))
        flat[index] = value
        slopes[index] = (around[0] - around[1]) / (2 * step)
    return slopes.reshape(weight.shape)


def test_the_penalty_of_a_linear_discriminator_is_its_squared_weight() -> None:
    net = Linear()
    value = gradient_penalty(net, images())
    expected = float((net.inner.weight.detach().double().numpy() ** 2).sum())
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    torch.testing.assert_close(net.inner.weight.grad, 2 * net.inner.weight.detach())


@pytest.mark.parametrize("several", [False, True], ids=["a map", "two scales"])
def test_the_penalty_and_its_gradient_equal_numerical_ones(several: bool) -> None:
    """It is computed in float32, the numbers it is compared with in float64."""
    net = Curved(several=several)
    value = gradient_penalty(net, images())
    value.backward()
    reference = copy.deepcopy(net).double()
    assert value.item() == pytest.approx(numerical_penalty(reference, images()), rel=1e-5)
    for name, weight in reference.named_parameters():
        found = net.get_parameter(name).grad
        expected = numerical_derivative(reference, images(), weight)
        if name == "last.bias":  # it moves D by a constant: no gradient of an image depends on it
            assert found is None or not found.any()
            continue
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6, msg=name)


def test_the_penalty_leaves_the_images_alone() -> None:
    real = images()
    source = nn.Conv2d(3, 3, 1)
    fake = source(real)
    for each in (real, fake):
        gradient_penalty(Curved(), each).backward()
    assert not real.requires_grad
    assert source.weight.grad is None


def test_the_penalty_is_float32_within_autocast() -> None:
    net = Curved()
    seen: set[torch.dtype] = set()
    net.first.register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    plain = gradient_penalty(net, images())
    with torch.autocast("cpu", torch.bfloat16):
        within = gradient_penalty(net, images())
    assert within.dtype == torch.float32
    assert torch.equal(within, plain)
    assert gradient_penalty(net, images().bfloat16()).dtype == torch.float32
    assert seen == {torch.float32}


@pytest.mark.parametrize(("name", "gan_type"), [*UNPAIRED[:2], *R3GAN])
def test_penalties_count_half_gamma_at_the_iterations_that_the_interval_divides(name: str, gan_type: str) -> None:
    net, real, fake = Curved(), images(1), 3 * images(2) - 1
    loss = adversarial(name, gan_type=gan_type, r1_weight=0.8, r2_weight=0.5, penalty_interval=3)
    at = {iteration: loss.penalties(net, real, fake, iteration) for iteration in range(1, 13)}
    assert [iteration for iteration, found in at.items() if found] == [3, 6, 9, 12]
    reference = copy.deepcopy(net).double()
    expected = {
        "r1": 3 * 0.8 / 2 * numerical_penalty(reference, real),
        "r2": 3 * 0.5 / 2 * numerical_penalty(reference, fake),
    }
    assert expected["r1"] != pytest.approx(expected["r2"] * 0.8 / 0.5, rel=1e-3)
    for iteration in (3, 12):
        assert {part: value.item() for part, value in at[iteration].items()} == pytest.approx(expected, rel=1e-5)


def test_penalties_that_weigh_nothing_are_not_computed() -> None:
    net = Curved()
    passes: list[int] = []
    net.register_forward_hook(lambda *_: passes.append(1))
    assert adversarial("ganloss").penalties(net, images(1), images(2), 1) == {}
    assert not passes
    one_sided = adversarial("ganloss", r2_weight=1.0).penalties(net, images(1), images(2), 1)
    assert (list(one_sided), len(passes)) == (["r2"], 1)
    assert adversarial("r3ganloss", r1_weight=0, r2_weight=0).penalties(net, images(1), images(2), 1) == {}
    assert list(adversarial("r3ganloss").penalties(net, images(1), images(2), 1)) == ["r1", "r2"]


@pytest.mark.parametrize("options", [{}, {"r1_weight": 0.7, "penalty_interval": 2}], ids=["defaults", "options"])
@pytest.mark.parametrize(("name", "gan_type"), R3GAN)
def test_every_spelling_of_r3gan_is_the_same(name: str, gan_type: str, options: dict[str, Any]) -> None:
    one, other = adversarial("r3ganloss", **options), adversarial(name, gan_type=gan_type, **options)
    real, fake, net = scales(1), scales(2), Curved()
    assert torch.equal(generator_value(one, real, fake), generator_value(other, real, fake))
    assert one.discriminator_loss(real, fake) == other.discriminator_loss(real, fake)
    for iteration in (1, 2):
        found = [loss.penalties(net, images(1), images(2), iteration) for loss in (one, other)]
        assert found[0] == found[1]
        assert bool(found[0]) == (iteration % options.get("penalty_interval", 1) == 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "ganloss", "gan_type": "vanila"}, "gan_type.*vanila.*vanilla"),
        ({"type": "multiscaleganloss", "gan_type": "softplus"}, "gan_type.*softplus"),
        ({"type": "r3ganloss", "gan_type": "vanilla"}, "gan_type.*vanilla.*r3gan"),
        ({"type": "ganloss", "r1_weight": -1.0}, "r1_weight.*-1"),
        ({"type": "r3ganloss", "r2_weight": -0.1}, "r2_weight.*-0.1"),
        ({"type": "ganloss", "r1_weight": float("nan")}, "r1_weight.*nan"),
        ({"type": "ganloss", "penalty_interval": 0}, "penalty_interval.*0"),
        ({"type": "r3ganloss", "penalty_interval": 2.5}, "penalty_interval.*2.5"),
        ({"type": "ganloss", "penalty_interval": True}, "penalty_interval.*true"),
        ({"type": "ganloss", "real_label_val": float("inf")}, "real_label_val.*inf"),
        ({"type": "r3ganloss", "use_relu": True}, "use_relu.*true"),
        ({"type": "ganloss", "penalty_intervall": 2}, "penalty_intervall.*did you mean penalty_interval"),
    ],
)
def test_bad_options_are_refused_with_what_is_accepted(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){message}") as caught:
        build_loss({"loss_weight": 1.0, **options})
    assert "accepted" in str(caught.value) or "did you mean" in str(caught.value)


def test_every_adversarial_loss_is_tested_here() -> None:
    registered = {name for name in LOSSES.names() if issubclass(LOSSES.get(name), AdversarialLoss)}  # type: ignore[arg-type]
    assert registered == {name for name, _ in UNPAIRED + R3GAN}
