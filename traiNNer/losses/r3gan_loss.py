"""R3GAN: relativistic pairing with both zero-centred gradient penalties."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from traiNNer.losses.gan_loss import R3GAN_GAMMA, Gamma, Interval, _Gan
from traiNNer.utils.registry import LOSSES


@LOSSES.register("r3ganloss", "multiscaler3ganloss")
class R3GANLoss(_Gan):
    """Generator: mean f(D(target) - D(output)); net_d: mean f(D(output) - D(target)) + r1/2 R1 + r2/2 R2; f = softplus.

    R1 and R2 are mean |dD/dx|^2 at the targets and at the outputs, computed in float32 at iterations that
    `penalty_interval` divides, there `penalty_interval` times as strong. Pairs are pixels of the same place for a
    discriminator that returns a map.

    Shapes: logits (B, 1, h, w), or a list of them, one a scale: then the mean over the scales.
    Range: [0, inf); log 2 where net_d cannot tell.
    Reference: Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", NeurIPS 2024.
    traiNNer-redux: only in the fork, with an averaged relativistic hinge instead of paired softplus, penalties on
    random crops, and an interval that it counts itself.

    ```yaml
    - type: r3ganloss
      loss_weight: 0.1
      r1_weight: 3.0
      r2_weight: 3.0
      penalty_interval: 4
    ```
    """

    def __init__(
        self,
        *,
        gan_type: Annotated[Literal["r3gan"], Field(description="only this one")] = "r3gan",
        r1_weight: Gamma = R3GAN_GAMMA,
        r2_weight: Gamma = R3GAN_GAMMA,
        penalty_interval: Interval = 1,
        use_relu: Annotated[Literal[False], Field(description="kept for files of the fork; no effect")] = False,
        real_label_val: Annotated[float, Field(description="kept for files of the fork; no effect")] = 1.0,
        fake_label_val: Annotated[float, Field(description="kept for files of the fork; no effect")] = 0.0,
    ) -> None:
        super().__init__(
            gan_type,
            real_label_val=real_label_val,
            fake_label_val=fake_label_val,
            r1_weight=r1_weight,
            r2_weight=r2_weight,
            penalty_interval=penalty_interval,
        )
