"""`klloss`: the closed form for Gaussians, free bits, reductions, and the names that the KL options have elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from traiNNer.losses import IterativeLossWrapper, build_loss, needs
from traiNNer.losses.kl_loss import kl_to_standard_normal
from traiNNer.utils.errors import ConfigError

SHAPES = [(3, 5, 4, 6), (3, 7)]


def latents(shape: tuple[int, ...] = SHAPES[0], *, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(shape, generator=generator, dtype=torch.float64) * spread for _ in range(2))
    return mean, log_variance


def kl(**options: Any) -> Any:
    return build_loss({"type": "klloss", "loss_weight": 1.0, **options})


@pytest.mark.parametrize("shape", SHAPES)
def test_each_element_is_torchs_divergence(shape: tuple[int, ...]) -> None:
    mean, log_variance = latents(shape)
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), standard)
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected, rtol=1e-12, atol=1e-14)
    each = expected.flatten(1)
    torch.testing.assert_close(kl()(mean, log_variance), each.mean(1).mean())
    torch.testing.assert_close(kl(reduction="sum")(mean, log_variance), each.sum(1).mean())


def test_it_is_what_drawing_from_the_gaussian_says() -> None:
    """E[log q(z) - log p(z)] over a million draws, within five standard errors."""
    mean, log_variance = 0.7, -0.9
    generator = torch.Generator().manual_seed(1)
    q = Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(log_variance / 2, dtype=torch.float64).exp())
    drawn = q.loc + q.scale * torch.randn(1_000_000, generator=generator, dtype=torch.float64)
    standard = Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    ratios = q.log_prob(drawn) - standard.log_prob(drawn)
    found = kl_to_standard_normal(q.loc, torch.tensor(log_variance, dtype=torch.float64))
    assert abs(float(ratios.mean() - found)) < 5 * float(ratios.std()) / math.sqrt(len(ratios))


def test_the_standard_normal_costs_nothing() -> None:
    zeros = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = kl()(zeros, zeros)
    value.backward()
    assert value == 0
    assert zeros.grad is not None
    assert not zeros.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("free_bits", [0.0, 0.5])
def test_gradients_are_those_of_differences(reduction: str, free_bits: float) -> None:
    mean, log_variance = (each.requires_grad_() for each in latents((2, 3, 2, 2)))
    assert torch.autograd.gradcheck(kl(reduction=reduction, free_bits=free_bits), (mean, log_variance))


def test_free_bits_are_the_least_value_of_each_element_and_pull_no_further() -> None:
    mean = torch.tensor([[0.1, 2.0]], dtype=torch.float64, requires_grad=True)  # 0.005 and 2 nats
    value = kl(free_bits=0.5, reduction="sum")(mean, torch.zeros_like(mean))
    value.backward()
    assert float(value.detach()) == pytest.approx(0.5 + 2.0, rel=1e-12)
    assert mean.grad is not None
    assert mean.grad.tolist() == [[0.0, 2.0]]


def test_the_mean_does_not_depend_on_the_resolution_and_neither_on_the_batch() -> None:
    mean, log_variance = latents()
    large = [each.repeat(1, 1, 2, 3) for each in (mean, log_variance)]
    many = [each.repeat(4, 1, 1, 1) for each in (mean, log_variance)]
    torch.testing.assert_close(kl()(*large), kl()(mean, log_variance))
    torch.testing.assert_close(kl(reduction="sum")(*large), 6 * kl(reduction="sum")(mean, log_variance))
    torch.testing.assert_close(kl(reduction="sum")(*many), kl(reduction="sum")(mean, log_variance))


@pytest.mark.parametrize("log_variance", [29.9, 30.1, 100.0, 1e4, -100.0, -1e4])
def test_large_log_variances_are_finite_and_pull_back(log_variance: float) -> None:
    start = torch.full((2, 4, 8, 8), log_variance, requires_grad=True)
    value = kl(reduction="sum")(torch.zeros_like(start), start)
    value.backward()
    assert start.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(start.grad).all()
    assert (start.grad * start.detach() > 0).all()  # a step against the gradient leads towards 0


def test_the_continuation_has_value_and_slope_of_the_closed_form_where_it_begins() -> None:
    at = torch.tensor([30.0, 30.0 + 1e-6], dtype=torch.float64, requires_grad=True)
    value = kl_to_standard_normal(torch.zeros(2, dtype=torch.float64), at)
    [slope] = torch.autograd.grad(value.sum(), at)
    torch.testing.assert_close(value.detach(), (at.detach().exp() - 1 - at.detach()) / 2, rtol=1e-11, atol=0)
    torch.testing.assert_close(slope, (at.detach().exp() - 1) / 2, rtol=1e-5, atol=0)


def test_variances_near_1_keep_their_digits_in_float32() -> None:
    log_variance = torch.tensor([1e-2, -1e-2, 3e-3])
    exact = kl_to_standard_normal(torch.zeros(3, dtype=torch.float64), log_variance.double())
    found = kl_to_standard_normal(torch.zeros(3), log_variance)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=0)


def test_it_asks_for_an_encoders_latents() -> None:
    assert needs(kl()) == {"latent_mean", "latent_log_variance"}
    with pytest.raises(ConfigError, match="free_bits"):
        kl(free_bits=-0.1)


GENERAL = {"loss_weight": 0.0, "target_weight": 1e-4, "target_iter": 5000, "free_bits": 0.0}
"""What the names stand for, with their defaults."""


NAMED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kl_beta": 0.01}, GENERAL | {"target_weight": 0.01}),
    ({"kl_warmup_steps": 300}, GENERAL | {"target_iter": 300}),
    ({"kl_free_bits": 0.5}, GENERAL | {"free_bits": 0.5}),
    (
        {"kl_beta": 1.0, "kl_warmup_steps": "2k", "kl_free_bits": None},
        GENERAL | {"target_weight": 1, "target_iter": 2000},
    ),
    ({"kl_beta": 1.0, "kl_warmup_steps": "10%"}, GENERAL | {"target_weight": 1.0, "target_iter": 1000}),
    ({"kl_beta": 0.1, "loss_weight": 0.05}, GENERAL | {"loss_weight": 0.05, "target_weight": 0.1}),
    ({"kl_beta": 0.1, "target_iter": 7}, GENERAL | {"target_weight": 0.1, "target_iter": 7}),
    ({"kl_free_bits": 0.5, "loss_weight": 0.2}, {"free_bits": 0.5, "loss_weight": 0.2}),
]


@pytest.mark.parametrize(("names", "expected"), NAMED)
def test_the_names_are_the_general_spelling(names: dict[str, Any], expected: dict[str, Any]) -> None:
    by_name = build_loss({"type": "KLLoss", **names}, total_iter=10_000)
    general = build_loss({"type": "klloss", **expected}, total_iter=10_000)
    assert by_name.schedule == general.schedule
    inner = [each.loss if isinstance(each, IterativeLossWrapper) else each for each in (by_name, general)]
    assert inner[0].free_bits == inner[1].free_bits == expected["free_bits"]


def test_the_warm_up_is_linear_from_0_and_ends_at_beta() -> None:
    loss = build_loss({"type": "klloss", "kl_beta": 0.02, "kl_warmup_steps": 4000})
    weights = loss.schedule.values([1, 1000, 2000, 4000, 9000])
    assert weights.tolist() == pytest.approx([0.02 / 4000, 0.005, 0.01, 0.02, 0.02], rel=1e-12)


def test_names_that_are_written_twice_and_names_in_other_losses_are_refused() -> None:
    with pytest.raises(ConfigError, match="kl_beta: the same as target_weight; accepted: one of them"):
        build_loss({"type": "klloss", "kl_beta": 0.1, "target_weight": 0.1})
    with pytest.raises(ConfigError, match="kl_beta: unknown key"):
        build_loss({"type": "l1loss", "kl_beta": 0.1})
