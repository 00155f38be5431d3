"""GAN losses: vanilla, lsgan, wgan, wgan_softplus, hinge, and R3GAN's relativistic pairing, with R1 and R2."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from traiNNer.losses.adversarial import AdversarialLoss, Logits, gradient_penalty, over_scales
from traiNNer.utils.registry import LOSSES

GanType: TypeAlias = Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge", "r3gan"]
R3GAN_GAMMA = 3.0
"""Weight of R1 and R2 where a file asks for R3GAN without one."""

GanTypeOption = Annotated[GanType, Field(description="which GAN loss")]
Label = Annotated[float, Field(description="what net_d is to say, for vanilla and lsgan")]
Gamma = Annotated[
    float | None,
    Field(ge=0, description="weight gamma of the penalty gamma/2 |dD/dx|^2; default: 3 for r3gan, else 0"),
]
Interval = Annotated[int, Field(ge=1, description="iterations between penalties, each then this many times as strong")]


def gan_value(logits: Tensor, target: float, gan_type: GanType, *, real: bool, hinge_margin: bool) -> Tensor:
    """How far net_d's logits are from calling the images real, or generated; a scalar.

    vanilla: binary cross entropy of sigmoid(logits) and `target` (Goodfellow et al., NeurIPS 2014).
    lsgan: mean (logits - target)^2 (Mao et al., ICCV 2017).
    wgan: -mean(logits) for real, mean(logits) for generated (Arjovsky et al., ICML 2017).
    wgan_softplus: mean softplus(-logits) for real, softplus(logits) for generated (StyleGAN's logistic loss, Karras
    et al., CVPR 2019).
    hinge: mean max(0, 1 - logits) for real, max(0, 1 + logits) for generated; without margin as wgan (Lim and Ye 2017;
    Miyato et al., ICLR 2018).
    """
    sign = -1.0 if real else 1.0
    match gan_type:
        case "vanilla":
            return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
        case "lsgan":
            return (logits - target).square().mean()
        case "wgan_softplus":
            return F.softplus(sign * logits).mean()
        case "hinge" if hinge_margin:
            return F.relu(1 + sign * logits).mean()
        case _:
            return sign * logits.mean()


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """mean softplus(-(better - worse)): pairs whose first image net_d finds more real cost little; a scalar.

    Source: Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", NeurIPS 2024, after
    Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019.
    """
    return F.softplus(worse - better).mean()


class _Gan(AdversarialLoss):
    """Every type in one: `gan_type` says which."""

    def __init__(
        self,
        gan_type: GanType,
        *,
        real_label_val: float,
        fake_label_val: float,
        r1_weight: float | None,
        r2_weight: float | None,
        penalty_interval: int,
    ) -> None:
        super().__init__()
        self.gan_type: GanType = gan_type
        self.real_label_val, self.fake_label_val = real_label_val, fake_label_val
        default = R3GAN_GAMMA if gan_type == "r3gan" else 0.0
        self.r1_weight = default if r1_weight is None else r1_weight
        self.r2_weight = default if r2_weight is None else r2_weight
        self.penalty_interval = penalty_interval
        self.unused = frozenset() if gan_type == "r3gan" else frozenset({"real_logits"})

    def forward(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        """The generator's loss, a scalar: low where net_d finds its output real. Only r3gan looks at `real_logits`."""
        if self.gan_type == "r3gan":
            if real_logits is None:
                raise TypeError("r3gan pairs fake_logits with real_logits, which were not given")
            return over_scales(relativistic, fake_logits, real_logits)
        return over_scales(lambda logits: self._value(logits, real=True, margin=False), fake_logits)

    def discriminator_loss(self, real_logits: Logits, fake_logits: Logits) -> dict[str, Tensor]:
        """`d_real` and `d_fake`, or `d` of the pairs; scalars."""
        if self.gan_type == "r3gan":
            return {"d": over_scales(relativistic, real_logits, fake_logits)}
        return {
            "d_real": over_scales(lambda logits: self._value(logits, real=True, margin=True), real_logits),
            "d_fake": over_scales(lambda logits: self._value(logits, real=False, margin=True), fake_logits),
        }

    def penalties(self, net_d: nn.Module, real: Tensor, fake: Tensor, current_iter: int) -> dict[str, Tensor]:
        """`r1` and `r2` with their weights, at iterations that `penalty_interval` divides."""
        if current_iter % self.penalty_interval:
            return {}
        strength = self.penalty_interval / 2
        wanted = {"r1": (self.r1_weight, real), "r2": (self.r2_weight, fake)}
        return {
            name: strength * gamma * gradient_penalty(net_d, images)
            for name, (gamma, images) in wanted.items()
            if gamma > 0
        }

    def _value(self, logits: Tensor, *, real: bool, margin: bool) -> Tensor:
        target = self.real_label_val if real else self.fake_label_val
        return gan_value(logits, target, self.gan_type, real=real, hinge_margin=margin)


@LOSSES.register("ganloss")
class GANLoss(_Gan):
    """The generator's loss f(D(output)), and the discriminator's f(D(target)) + f(D(output)), by `gan_type`.

    With D for net_d's logits: vanilla -log sigmoid, lsgan squared distance to the label, wgan the logit, wgan_softplus
    softplus, hinge max(0, 1 -+ D), each turned so that lower is better for whom it belongs to; r3gan: see `r3ganloss`.
    `loss_weight` is the generator's; net_d's own loss always counts once. R1 and R2 can be added to any type.

    Shapes: logits (B, 1, h, w), or a list of them, one a scale: then the mean over the scales.
    Range: [0, inf) for vanilla, lsgan, wgan_softplus and r3gan; not bounded below for wgan and the generator's hinge.
    Reference: `gan_value` and `gradient_penalty` name each.
    traiNNer-redux: the same for its five types; r3gan is the fork's name, see `r3ganloss`.

    ```yaml
    - type: ganloss
      gan_type: vanilla
      loss_weight: 0.1
    ```
    """

    def __init__(
        self,
        *,
        gan_type: GanTypeOption = "vanilla",
        real_label_val: Label = 1.0,
        fake_label_val: Label = 0.0,
        r1_weight: Gamma = None,
        r2_weight: Gamma = None,
        penalty_interval: Interval = 1,
    ) -> None:
        super().__init__(
            gan_type,
            real_label_val=real_label_val,
            fake_label_val=fake_label_val,
            r1_weight=r1_weight,
            r2_weight=r2_weight,
            penalty_interval=penalty_interval,
        )
