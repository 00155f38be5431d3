"""The second player: a discriminator, what it says to the generator, and its own step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from traiNNer.losses.adversarial import AdversarialLoss, Logits
from traiNNer.losses.term import Term
from traiNNer.models.adaptive_d import AdaptiveDiscriminator
from traiNNer.models.loss_inputs import full_precision
from traiNNer.models.player import Player
from traiNNer.models.transaction import Asked, Piece, Transactions, weighted_mean
from traiNNer.models.update import update
from traiNNer.types import StepObserver

Pair = tuple[Tensor, Tensor]
"""GT and net_g's output of one micro-batch, the latter without its graph; (B, C, H, W) float32."""


class Discriminator:
    """net_d in the training of a generator.

    Args:
        player: net_d with its optimizer.
        autocast: makes the context of mixed precision.
        adaptive: says when net_d rests; None for never.
    """

    def __init__(
        self,
        player: Player,
        autocast: Callable[[], AbstractContextManager[Any]],
        adaptive: AdaptiveDiscriminator | None = None,
    ) -> None:
        self.player, self.adaptive = player, adaptive
        self._autocast = autocast
        wrapped = player.forward_net
        # gradients of net_d's weights are not wanted from the generator's step, so nothing is exchanged there
        self._judge = wrapped.module if isinstance(wrapped, DistributedDataParallel) else wrapped

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within, graphs that are built lead through net_d to the images, but not to its weights."""
        weights = [parameter for parameter in self.player.net.parameters() if parameter.requires_grad]
        for weight in weights:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in weights:
                weight.requires_grad_(True)

    def judge(self, images: Tensor) -> Logits:
        """Logits of images, float32, with whatever graph the images have."""
        with self.frozen(), self._autocast():
            logits = _float(self._judge(images))
        # a network compiled to a CUDA graph writes its next answer over this one
        return logits.clone() if isinstance(logits, Tensor) else [scale.clone() for scale in logits]

    def rests(self, losses: Sequence[Tensor], finite: Tensor) -> bool:
        """Whether net_d is not to learn now, after the generator's adversarial losses of this iteration.

        Where the bool device scalar `finite` is false, the generator's step was skipped, and its losses do not count.
        """
        if self.adaptive is None or not losses:
            return False
        return self.adaptive.rests(torch.stack(list(losses)).sum().where(finite, torch.nan))

    def step(
        self,
        current_iter: int,
        terms: Sequence[Term],
        pairs: Sequence[Pair],
        finite: Tensor,
        transactions: Transactions,
        observer: StepObserver | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Train net_d on an iteration's images, unless the bool device scalar `finite` is already false.

        Args:
            current_iter: the iteration, counted from 1.
            terms: the adversarial losses by which net_d learns now; each counts once, whatever its weight.
            pairs: one for each micro-batch.
            finite: whether the generator's step was.
            transactions: runs the passes.
            observer: told of the gradients before the update.

        Returns:
            What is to be logged, detached device scalars by label, and whether all of it was finite.
        """
        player = self.player
        learning = [term.loss for term in terms if term.loss.learns]
        asked = Asked(
            network="net_d",
            player=player,
            sizes=[len(real) for real, _ in pairs],
            image=pairs[0][0].shape[-2:],
            current_iter=current_iter,
            buffers=[*player.buffers, *(buffer for loss in learning for buffer in loss.buffers())],
        )
        done = transactions.run(asked, lambda piece: self._backward(current_iter, terms, pairs[piece.number], piece))
        record = weighted_mean([values for _, values in done], [piece.images for piece, _ in done])
        finite = update("net_d", player, record, current_iter, observer=observer, finite=finite)
        return record, finite

    def _backward(self, current_iter: int, terms: Sequence[Term], pair: Pair, piece: Piece) -> dict[str, Tensor]:
        """Forward and backward of a piece of a micro-batch; its detached values."""
        real, fake = (piece.of(images) for images in pair)
        values: dict[str, Tensor] = {}
        with self.player.accumulating(piece.exchanges):
            with self._autocast():
                # one pass over both: several processes exchange gradients once, and a pass is what costs
                real_logits, fake_logits = _halves(_float(self.player.forward_net(torch.cat((real, fake)))))
            for term in terms:
                loss = cast("AdversarialLoss", term.loss)
                own = loss.discriminator_loss(real_logits, fake_logits)
                own |= loss.penalties(self.player.net, real, fake, current_iter)
                values |= {f"{term.label}_{name}": value for name, value in own.items()}
            self.player.backward(torch.stack(list(values.values())).sum() / piece.parts)
        opinions = {"logits/real": _mean(real_logits), "logits/fake": _mean(fake_logits)}
        return {label: value.detach() for label, value in {**values, **opinions}.items()}


def _float(logits: Logits) -> Logits:
    return full_precision(logits) if isinstance(logits, Tensor) else [full_precision(scale) for scale in logits]


def _halves(logits: Logits) -> tuple[Logits, Logits]:
    if isinstance(logits, Tensor):
        first, second = logits.chunk(2)
        return first, second
    halves = [scale.chunk(2) for scale in logits]
    return [half[0] for half in halves], [half[1] for half in halves]


def _mean(logits: Logits) -> Tensor:
    return logits.mean() if isinstance(logits, Tensor) else torch.stack([scale.mean() for scale in logits]).mean()
