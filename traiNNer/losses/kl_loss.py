"""Kullback-Leibler divergence of an encoder's Gaussians from the standard normal distribution."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from traiNNer.losses.base import Loss
from traiNNer.utils.registry import LOSSES

LARGEST_LOG_VARIANCE = 30.0
"""From here on the variance grows along its tangent: exp would be infinite in float32 from 89 on."""


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) = (mean^2 + exp(log_variance) - 1 - log_variance) / 2 per element.

    Source: Kingma, Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B.
    """
    capped = log_variance.clamp(max=LARGEST_LOG_VARIANCE)
    # expm1 keeps the digits that exp(x) - 1 loses where the variance is near 1
    variance_minus_1 = torch.expm1(capped) + torch.exp(capped) * (log_variance - capped)
    return (mean**2 + variance_minus_1 - log_variance) / 2


@LOSSES.register("klloss")
class KLLoss(Loss):
    """max((mean^2 + exp(log_variance) - 1 - log_variance) / 2, free_bits) per latent element, averaged over the batch.

    Within an image, `mean` averages over the latent elements, so that the weight does not depend on the resolution;
    `sum` adds them up. From a log-variance of 30 on the variance follows its tangent, so that it stays finite.
    `kl_beta` (1e-4), `kl_warmup_steps` (5000) and `kl_free_bits` (0) are other names of target_weight, target_iter and
    free_bits; where they are used, loss_weight is 0 if it is left out.

    Shapes: `latent_mean` and `latent_log_variance`, both (B, D, H, W) or (B, D). Range: [free_bits, inf) for the mean,
    in nats per element.
    Reference: Kingma, Welling, "Auto-Encoding Variational Bayes", ICLR 2014, appendix B; free bits: Kingma et al.,
    "Improved Variational Inference with Inverse Autoregressive Flow", NIPS 2016.

    ```yaml
    - type: klloss
      loss_weight: 0.0
      target_weight: 1e-4
      target_iter: 5000
      free_bits: 0.5
    ```
    """

    minimum = None

    def __init__(
        self,
        *,
        free_bits: Annotated[
            float, Field(ge=0, description="least value of an element, nats; below it there is no gradient")
        ] = 0.0,
        reduction: Annotated[
            Literal["mean", "sum"], Field(description="over the latent elements of an image")
        ] = "mean",
    ) -> None:
        super().__init__()
        self.free_bits, self.reduction = free_bits, reduction

    def forward(self, latent_mean: Tensor, latent_log_variance: Tensor) -> Tensor:
        """The unweighted loss, a scalar."""
        each = kl_to_standard_normal(latent_mean, latent_log_variance).clamp(min=self.free_bits)
        return each.mean() if self.reduction == "mean" else each.sum() / len(each)
