"""The networks and losses of a super-resolution run, and one optimizer step of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from traiNNer.losses import needs
from traiNNer.losses.base import Loss
from traiNNer.models.ema import Ema
from traiNNer.models.player import Player
from traiNNer.types import Batch, StepObserver
from traiNNer.utils import dist
from traiNNer.utils.device import Precision


class SRModel:
    """Generator, losses and EMA; `feed_data`, then `optimize_parameters`.

    It logs nothing, reads and writes no file and knows no validation. A discriminator joins as a second player.

    Args:
        generator: net_g with its optimizer.
        losses: label to a module with an attribute `loss_weight`; called with the inputs that its forward names.
        ema: moving average of net_g, or None.
        device: where the networks are.
        precision: resolved mixed precision; losses are computed in float32.
        channels_last: memory format of the images on the device.
        observer: called within each step, see `StepObserver`.
    """

    def __init__(
        self,
        *,
        generator: Player,
        losses: Mapping[str, Loss],
        ema: Ema | None = None,
        device: torch.device | str = "cpu",
        precision: Precision | None = None,
        channels_last: bool = False,
        observer: StepObserver | None = None,
    ) -> None:
        self.players = {"net_g": generator}
        self.losses = dict(losses)
        self.ema = ema
        self.device = torch.device(device)
        self.record: dict[str, Tensor] = {}
        """Device scalars of the last step: each loss's unweighted value, `grad_norm/net_g`, `loss_scale/net_g` where
        there is one, and 1 or 0 for `losses_finite` (in all processes) and `finite` (the gradients too)."""
        self._precision = precision or Precision()
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._needs = {label: needs(loss) for label, loss in self.losses.items()}
        self._observer = observer
        self._batches: list[dict[str, Tensor]] = []

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

    def average_buffers(self) -> None:
        """Make the buffers of all processes equal, before validating and saving; nothing to do in one process."""
        for net in dict.fromkeys((self.net_g, self.net_val)):
            dist.average_buffers_(net)

    def feed_data(self, batches: Sequence[Batch]) -> None:
        """Put the micro-batches of one iteration on the device; together they are the effective batch."""
        self._batches = [{key: self._to_device(batch[key]) for key in ("lq", "gt")} for batch in batches]

    def optimize_parameters(self, current_iter: int) -> None:
        """Run one optimizer step on the data that was fed; `current_iter` counts from 1."""
        finite = self._step_generator(current_iter)
        if self.ema is not None:
            self.ema.update(self.net_g, current_iter, finite)
        self.record["finite"] = finite.float()
        if self._observer is not None:
            self._observer.after_step(current_iter)

    def _step_generator(self, current_iter: int) -> Tensor:
        player = self.players["net_g"]
        player.begin(current_iter)
        terms = [self._backward_generator(player, number) for number in range(len(self._batches))]
        self.record = {label: torch.stack([term[label] for term in terms]).mean() for label in terms[0]}
        norm = player.gradient_norm()
        if self._observer is not None:
            self._observer.before_update("net_g", norm, current_iter)
        losses_finite = torch.isfinite(torch.stack(list(self.record.values()))).all()
        checks = torch.stack([losses_finite, losses_finite & torch.isfinite(norm)]).float()
        self.record["losses_finite"], finite = dist.all_reduce_min_(checks)
        self.record["grad_norm/net_g"] = norm.detach()
        if player.loss_scale is not None:
            self.record["loss_scale/net_g"] = player.loss_scale.value
        player.commit(norm, finite > 0)
        return finite > 0

    def _backward_generator(self, player: Player, number: int) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch; the detached unweighted losses."""
        batch = self._batches[number]
        with player.accumulating(last=number == len(self._batches) - 1):
            with self._autocast():
                output = player.forward_net(batch["lq"])
            inputs = {"output": output.float(), "target": batch["gt"], "lq": batch["lq"]}
            values = {label: loss(**self._inputs(label, inputs)) for label, loss in self.losses.items()}
            total = torch.stack([self.losses[label].loss_weight * value for label, value in values.items()]).sum()
            player.backward(total / len(self._batches))
        return {label: value.detach() for label, value in values.items()}

    def _inputs(self, label: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: inputs[name] for name in self._needs[label]}

    def _autocast(self) -> torch.autocast:
        dtype = self._precision.autocast_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).contiguous(memory_format=self._memory_format)
