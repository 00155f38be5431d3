"""The networks and losses of a super-resolution run, and one optimizer step of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.losses import BuiltLoss
from traiNNer.losses.base import Loss
from traiNNer.losses.term import Term, parts
from traiNNer.models.adaptive_d import AdaptiveDiscriminator
from traiNNer.models.discriminator import Discriminator, Pair
from traiNNer.models.ema import Ema
from traiNNer.models.gradient_shares import GradientShares
from traiNNer.models.loss_inputs import enlarged, evaluated, full_precision
from traiNNer.models.loss_schedulers import LossSchedulers
from traiNNer.models.player import Player
from traiNNer.models.transaction import Asked, Piece, Transactions, joined, weighted_mean
from traiNNer.models.update import update
from traiNNer.optimizers import averaged_weights, effective_lr
from traiNNer.types import Batch, NetworkInfo, StepObserver, StepReport
from traiNNer.utils import dist
from traiNNer.utils.device import Precision
from traiNNer.utils.out_of_memory import ending_the_run

LARGE = 100_000
"""Numbers that a loss may keep in memory after its end, so that `val/loss` stays the same sum; a network has more."""

LOGITS = frozenset({"real_logits", "fake_logits"})
"""Inputs of a loss that a discriminator gives."""


class SRModel:
    """Generator, losses, EMA and perhaps a discriminator; `feed_data`, then `optimize_parameters`.

    It logs nothing, reads and writes no file and knows no validation. The step is a list of transactions, net_g's and
    then net_d's; each is committed by its optimizer's step.

    Args:
        generator: net_g with its optimizer.
        losses: label to what `build_loss` made; called with the inputs that its forward names.
        discriminator: net_d with its optimizer, needed by adversarial losses.
        adaptive_d: says when net_d rests.
        ema: moving average of net_g, needed by losses that ask for `ema_output`.
        device: where the networks are.
        precision: resolved mixed precision; losses are computed in float32.
        channels_last: memory format of the images on the device.
        observer: called within each step, see `StepObserver`.
        loss_schedulers: what multiplies the losses' weights.
        recovers: a transaction that does not fit in memory is run again in smaller pieces, see `Transactions`.
    """

    def __init__(
        self,
        *,
        generator: Player,
        losses: Mapping[str, BuiltLoss],
        discriminator: Player | None = None,
        adaptive_d: AdaptiveDiscriminator | None = None,
        ema: Ema | None = None,
        device: torch.device | str = "cpu",
        precision: Precision | None = None,
        channels_last: bool = False,
        observer: StepObserver | None = None,
        loss_schedulers: LossSchedulers | None = None,
        recovers: bool = False,
    ) -> None:
        self.players = {"net_g": generator}
        self.ema = ema
        self.device = torch.device(device)
        self.record: dict[str, Tensor] = {}
        """Device scalars of the last step: each loss's unweighted value, `grad_norm/<network>`, `loss_scale/<network>`
        where there is one, `gradient/<loss>` where sampled, and 1 or 0 for `losses_finite` (in all processes) and
        `finite` (the gradients too)."""
        self.loss_weights: dict[str, float] = {}
        """The weight of each loss in the last step, everything that multiplies it included."""
        self.loss_schedulers = loss_schedulers or LossSchedulers()
        self._terms = [Term(label, loss) for label, loss in losses.items()]
        self._fidelity = {
            term.label: (term.loss, term.schedule.loss_weight)
            for term in self._terms
            if term.measures_fidelity
            if term.schedule.loss_weight != 0 or term.label in self.loss_schedulers.watched
        }
        self._precision = precision or Precision()
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.observer = observer
        self._batches: list[dict[str, Tensor]] = []
        self.gradient_shares = GradientShares(generator, lambda net, lq: self._generate(net, lq, graph=True))
        self._discriminator: Discriminator | None = None
        if discriminator is not None:
            self.players["net_d"] = discriminator
            self._discriminator = Discriminator(discriminator, self._autocast, adaptive_d)
        self._transactions = Transactions(self.device, recovers=recovers, observer=observer)
        for player in self.players.values() if recovers else ():
            player.allocate_state()

    def observe(self, observer: StepObserver) -> None:
        """Call an observer within each step from now on."""
        self.observer = self._transactions.observer = observer

    @property
    def net_g(self) -> nn.Module:
        """The generator that is trained."""
        return self.players["net_g"].net

    @property
    def net_val(self) -> nn.Module:
        """The generator to validate and to release: the EMA's where there is one."""
        return self.net_g if self.ema is None else self.ema.net

    @property
    def learning_rates(self) -> dict[str, float]:
        """The rate of each component, as used in the last step."""
        return {name: player.learning_rate.current for name, player in self.players.items()}

    @property
    def effective_learning_rates(self) -> dict[str, float]:
        """The rate of each component whose optimizer makes one of its own from the given one."""
        rates = {name: effective_lr(player.optimizer) for name, player in self.players.items()}
        return {name: rate for name, rate in rates.items() if rate is not None}

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Context in which net_g has the weights to validate and to release, a schedule-free optimizer's average.

        Afterwards it has those that are trained, bit for bit, also after an exception.
        """
        return averaged_weights(self.players["net_g"].optimizer)

    @property
    def fidelity_losses(self) -> dict[str, tuple[Loss, float]]:
        """Label to (loss, base weight): those that need only output and GT, without freed ones.

        A base weight of 0 is that of a loss that only a loss scheduler watches.
        """
        return self._fidelity

    @property
    def adaptive_d(self) -> AdaptiveDiscriminator | None:
        """What lets net_d rest, if anything does."""
        return None if self._discriminator is None else self._discriminator.adaptive

    @property
    def losses(self) -> dict[str, Loss]:
        """The losses by label, without those that have ended."""
        return {term.label: term.loss for term in self._terms}

    @property
    def batch_coupled(self) -> list[str]:
        """Networks and losses in which images of a batch influence each other: pieces are not the same as the whole."""
        infos = {name: getattr(player.net, "network_info", None) for name, player in self.players.items()}
        networks = [name for name, info in infos.items() if isinstance(info, NetworkInfo) and info.batch_coupled]
        return networks + [term.label for term in self._terms if term.loss.batch_coupled]

    def generator_alone(self, current_iter: int) -> SRModel:
        """A model of the same net_g with the losses alone that act at this iteration and need no discriminator.

        Its steps leave net_d as it is, and the moving average too: what its losses see of that is a copy.
        """
        self._apply_loss_schedulers(current_iter)
        terms = [term for term in self._terms if term.live(current_iter) and not term.needs & LOGITS]
        averages = any("ema_output" in term.needs for term in terms)
        return SRModel(
            generator=self.players["net_g"],
            losses={term.label: term.loss for term in terms},
            ema=copy.deepcopy(self.ema) if averages else None,
            device=self.device,
            precision=self._precision,
            channels_last=self._memory_format is torch.channels_last,
            loss_schedulers=self.loss_schedulers,
        )

    def phases(self, current_iter: int) -> list[str]:
        """A line for each loss that starts, reaches its target or ends at exactly this iteration, or is moved then."""
        moves = self.loss_schedulers.announce(current_iter)
        return [line for term in self._terms for line in term.phases(current_iter)] + moves

    def update_loss_scheduler(self, val_metrics: Mapping[str, float], current_iter: int) -> list[str]:
        """Tell the loss schedulers what a validation gave; a line for each adaptation.

        Args:
            val_metrics: metrics by name, such as `val/psnr`, and the unweighted losses by label.
            current_iter: iterations done.
        """
        return self.loss_schedulers.update(val_metrics, current_iter)

    def _apply_loss_schedulers(self, current_iter: int) -> None:
        if self.loss_schedulers.named:
            multipliers = self.loss_schedulers.multipliers(current_iter)
            for term in self._terms:
                term.take(multipliers)

    def after_validation(self, metrics: Mapping[str, float], current_iter: int) -> list[str]:
        """Tell the schedules that follow a metric; a line for each learning rate that this reduced."""
        reductions = {
            name: player.learning_rate.observe(metrics, current_iter) for name, player in self.players.items()
        }
        return [f"learning rate of {name} reduced {how}" for name, how in reductions.items() if how]

    def average_buffers(self) -> None:
        """Make the buffers of all processes equal, before validating and saving; nothing to do in one process."""
        for net in dict.fromkeys((*(player.net for player in self.players.values()), self.net_val)):
            dist.average_buffers_(net)

    def feed_data(self, batches: Sequence[Batch]) -> None:
        """Put the micro-batches of one iteration on the device; together they are the effective batch."""
        count, size = sum(len(batch["gt"]) for batch in batches), tuple(batches[0]["gt"].shape[-2:])
        with ending_the_run(f"putting {count} images of {size[0]}x{size[1]} px on the device"):
            self._batches = [{key: self._to_device(batch[key]) for key in ("lq", "gt")} for batch in batches]

    def optimize_parameters(self, current_iter: int) -> None:
        """Run one optimizer step on the data that was fed; `current_iter` counts from 1.

        Raises:
            RunError: there is not enough memory, and recovery is off or does not help.
        """
        with ending_the_run(f"iteration {current_iter}"):  # what is not in a transaction, such as the moving average
            self._optimize(current_iter)

    def _optimize(self, current_iter: int) -> None:
        self._release_ended(current_iter)
        for player in self.players.values():
            player.learning_rate.apply(current_iter)
        self._apply_loss_schedulers(current_iter)
        for term in self._terms:
            self.loss_weights |= term.weights(current_iter)
        live = [term for term in self._terms if term.live(current_iter)]
        learning = [term for term in self._terms if term.trains_discriminator(current_iter)]
        judged = bool(learning) or any(term.adversarial for term in live)
        if self._discriminator is not None and judged:
            self._discriminator.player.begin()
        pairs, finite = self._step_generator(current_iter, live, keep=bool(learning))
        if self.ema is not None and live:
            self.ema.update(self.net_g, current_iter, finite)
        if self._discriminator is not None and judged:
            finite = self._step_discriminator(self._discriminator, current_iter, learning, pairs, finite)
        self.record["finite"] = finite.float()
        self.record |= self.gradient_shares.taken()
        if self.observer is not None:
            self.observer.after_step(self._report(current_iter))

    def _report(self, current_iter: int) -> StepReport:
        scheduled = {term.label: term.weight(current_iter) / term.balance for term in self._terms}
        rate = self.players["net_g"].learning_rate
        return StepReport(
            iteration=current_iter,
            values=self.record,
            weights={term.label: term.weight(current_iter) for term in self._terms},
            scheduled_weights=scheduled,
            scheduled_rate=rate.scheduled(current_iter, rate.base),
            samples=sum(len(batch["lq"]) for batch in self._batches),
        )

    def loss_factor(self, label: str) -> float | None:
        """What an automation multiplies a loss's weight by; None for one that has ended."""
        return next((term.balance for term in self._terms if term.label == label), None)

    def set_loss_factor(self, label: str, factor: float) -> None:
        """Multiply a loss's weight from the next step on, by a number above 0; one that has ended is left alone."""
        for term in self._terms:
            if term.label == label:
                term.balance = factor

    def _release_ended(self, current_iter: int) -> None:
        """Let go of losses that are disabled for good, and of the memory that their networks take."""
        ended = [term for term in self._terms if term.schedule.ended(current_iter)]
        for term in ended:
            self._terms.remove(term)
            self.loss_weights |= dict.fromkeys(term.weights(current_iter), 0.0)
            size = sum(tensor.numel() for tensor in (*term.loss.parameters(), *term.loss.buffers()))
            if size > LARGE and term.label not in self.loss_schedulers.watched:
                self._fidelity.pop(term.label, None)

    def _step_generator(self, current_iter: int, live: Sequence[Term], *, keep: bool) -> tuple[list[Pair], Tensor]:
        """net_g's transaction; its images with GT, by micro-batch, if net_d is to see them, and whether it was finite.

        Without a live loss there is nothing to learn from: the weights stay what they are.
        """
        player = self.players["net_g"]
        player.begin()
        self.record = {}
        passes = partial(self._pass_generator, current_iter=current_iter, live=live, keep=keep)
        done = self._transactions.run(self._asked(current_iter, live), passes) if live or keep else []
        outputs = joined([(piece, output) for piece, (_, output) in done if output is not None])
        pairs = [(batch["gt"], output) for batch, output in zip(self._batches, outputs, strict=keep)]
        if not live:  # nothing to learn from: the passes for net_d leave no trace in net_g's buffers either
            player.put_back(torch.zeros((), dtype=torch.bool, device=self.device))
            self.record["losses_finite"] = torch.ones((), device=self.device)
            return pairs, torch.ones((), dtype=torch.bool, device=self.device)
        self.record = weighted_mean([values for _, (values, _) in done], [piece.images for piece, _ in done])
        return pairs, update("net_g", player, self.record, current_iter, observer=self.observer)

    def _asked(self, current_iter: int, live: Sequence[Term]) -> Asked:
        """What net_g's transaction is to do; its losses' passes through net_d may change that one's buffers too."""
        learning = [term.loss for term in live if term.loss.learns]
        return Asked(
            network="net_g",
            player=self.players["net_g"],
            sizes=[len(batch["lq"]) for batch in self._batches],
            image=self._batches[0]["lq"].shape[-2:],
            current_iter=current_iter,
            buffers=[
                *(buffer for player in self.players.values() for buffer in player.buffers),
                *(buffer for loss in learning for buffer in loss.buffers()),
            ],
        )

    def _pass_generator(
        self, piece: Piece, current_iter: int, live: Sequence[Term], *, keep: bool
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Forward and backward of a piece of a micro-batch: the detached unweighted losses, and the output to keep."""
        player, values = self.players["net_g"], dict[str, Tensor]()
        batch = {key: piece.of(images) for key, images in self._batches[piece.number].items()}
        with player.accumulating(piece.exchanges):
            output = self._generate(player.forward_net, batch["lq"], graph=bool(live))
            if live:
                values = self._backward_generator(player, current_iter, live, batch, output, piece)
        return values, output.detach().clone() if keep else None  # a CUDA graph's next output takes its place

    def _backward_generator(
        self,
        player: Player,
        current_iter: int,
        live: Sequence[Term],
        batch: dict[str, Tensor],
        output: Tensor,
        piece: Piece,
    ) -> dict[str, Tensor]:
        """Losses and backward of a piece; the detached unweighted losses."""
        inputs = self._loss_inputs(current_iter, live, batch, output)
        values = {term.label: evaluated(term, inputs, piece.fraction) for term in live}
        self.gradient_shares.sample(current_iter, live, values, output, batch["lq"])
        weighted = [term.weighted(values[term.label], current_iter) for term in live]
        player.backward(torch.stack(weighted).sum() / piece.parts)
        named = [parts(label, value) for label, value in values.items()]
        return {label: value.detach() for each in named for label, value in each.items()}

    def _loss_inputs(
        self, current_iter: int, live: Sequence[Term], batch: dict[str, Tensor], output: Tensor
    ) -> dict[str, Any]:
        """What the live losses ask for; what takes a pass through a network is computed once, and only if asked for."""
        needed = frozenset().union(*(term.needs for term in live))
        inputs: dict[str, Any] = {
            "output": output,
            "target": batch["gt"],
            "lq": batch["lq"],
            "current_iter": current_iter,
        }
        if any(term.schedule.negative for term in live):
            inputs["enlarged"] = enlarged(batch["lq"], batch["gt"])
        if "ema_output" in needed and self.ema is not None:
            inputs["ema_output"] = self._generate(self.ema.net, batch["lq"], graph=False)
        if self._discriminator is not None:
            if "fake_logits" in needed:
                inputs["fake_logits"] = self._discriminator.judge(output)
            if "real_logits" in needed:
                with torch.no_grad():
                    inputs["real_logits"] = self._discriminator.judge(batch["gt"])
        return inputs

    def _step_discriminator(
        self, net_d: Discriminator, current_iter: int, learning: Sequence[Term], pairs: Sequence[Pair], finite: Tensor
    ) -> Tensor:
        """net_d's transaction, unless it rests or has nothing to learn from; whether both steps were finite."""
        felt = [self.record[term.label] for term in learning if term.label in self.record]
        rests = net_d.rests(felt, finite)
        if net_d.adaptive is not None and felt:
            self.record["adaptive_d/rested"] = torch.full((), float(rests), device=self.device)
        if not learning or rests:
            net_d.player.put_back(finite)
            return finite
        record, finite = net_d.step(current_iter, learning, pairs, finite, self._transactions, self.observer)
        record["losses_finite"] = torch.minimum(record["losses_finite"], self.record["losses_finite"])
        self.record |= record
        return finite

    def _generate(self, net: Callable[[Tensor], Tensor], lq: Tensor, *, graph: bool) -> Tensor:
        """A generator's output in float32, with or without its graph."""
        with torch.set_grad_enabled(graph), self._autocast():
            output = net(lq)
        return full_precision(output)

    def _autocast(self) -> torch.autocast:
        dtype = self._precision.autocast_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).contiguous(memory_format=self._memory_format)
