"""What adversarial losses share: two faces, one for the generator and one for the discriminator.

The generator's face is `forward`, weighted like any loss. The discriminator's is `discriminator_loss` and `penalties`;
its weight is always 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from traiNNer.losses.base import Loss

Logits: TypeAlias = Tensor | Sequence[Tensor]
"""What a discriminator returns: a map (B, 1, h, w), or one for each of its scales."""


class AdversarialLoss(Loss, ABC):
    """A loss that the discriminator's opinion gives, and that trains the discriminator."""

    kind = "adversarial"
    minimum = None

    @abstractmethod
    def discriminator_loss(self, real_logits: Logits, fake_logits: Logits) -> dict[str, Tensor]:
        """The named parts, scalars, whose sum net_d minimizes.

        Args:
            real_logits: net_d's opinion of GT, with gradients.
            fake_logits: of net_g's output, with gradients.
        """

    def penalties(self, net_d: nn.Module, real: Tensor, fake: Tensor, current_iter: int) -> dict[str, Tensor]:
        """Named parts of net_d's loss that need its gradient with respect to images; none by default.

        Args:
            net_d: the plain discriminator, neither compiled nor wrapped: a compiled one has no second derivative.
            real: GT, (B, C, H, W).
            fake: net_g's output without its graph, (B, C, H, W).
            current_iter: the iteration, counted from 1.
        """
        return {}


def over_scales(function: Callable[..., Tensor], *logits: Logits) -> Tensor:
    """The mean of a function of logits over the scales of a discriminator."""
    if isinstance(logits[0], Tensor):
        return function(*logits)
    return torch.stack([function(*scale) for scale in zip(*logits, strict=True)]).mean()


def gradient_penalty(net_d: nn.Module, images: Tensor) -> Tensor:
    """mean over the batch of |d D(x) / d x|^2 at the images, D(x) the mean of x's logits; a scalar, at least float32.

    Zero-centred: with GT it is R1, with generated images R2 (Mescheder et al., "Which Training Methods for GANs do
    actually Converge?", ICML 2018, equation 9, without the factor 1/2). The mean over a map of logits keeps it
    independent of the map's size.
    """
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().to(torch.promote_types(images.dtype, torch.float32)).requires_grad_()
        logits = net_d(images)
        scales = [logits] if isinstance(logits, Tensor) else list(logits)
        opinion = torch.stack([scale.flatten(1).mean(1) for scale in scales]).mean(0)
        (gradient,) = torch.autograd.grad(opinion.sum(), images, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()
