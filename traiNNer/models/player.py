"""A network that is optimized, and the transaction of one iteration: begin, backward for each micro-batch, commit."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from traiNNer.models.loss_scale import LossScale
from traiNNer.schedulers import LearningRate
from traiNNer.utils.errors import RunError
from traiNNer.utils.out_of_memory import ending_the_run


@runtime_checkable
class FollowsUpdates(Protocol):
    """A module that wants to know when an optimizer step is complete, such as one that tracks its own activity."""

    def after_update(self) -> None:
        """All micro-batches of the step have passed, and the optimizer has stepped."""
        ...


class Player:
    """One network with its optimizer.

    An iteration changes a player's weights, buffers and optimizer together in `commit`, or, when something was not
    finite, not at all. Nothing here reads a value back from the device, except where an optimizer has no kernel
    that can skip a step there.

    Args:
        net: the network; its state dict is what is saved.
        optimizer: over the network's trainable parameters.
        learning_rate: owner of the optimizer's rate.
        max_norm: gradients are scaled down to this total L2 norm; None for no clipping.
        loss_scale: for float16, else None.
        forward_net: what is called in training: `net` compiled, or wrapped for several processes.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        learning_rate: LearningRate,
        *,
        max_norm: float | None = None,
        loss_scale: LossScale | None = None,
        forward_net: nn.Module | None = None,
    ) -> None:
        self.net, self.optimizer, self.learning_rate = net, optimizer, learning_rate
        self.forward_net = net if forward_net is None else forward_net
        self.loss_scale = loss_scale
        self.max_norm = max_norm
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._buffers = list(net.buffers())
        self._saved_buffers: list[Tensor] = []
        self._after_update = [module for module in net.modules() if isinstance(module, FollowsUpdates)]
        # AMP's protocol for fused optimizers, which read `found_inf` on the device
        self._skips_on_device = getattr(optimizer, "_step_supports_amp_scaling", False)

    @property
    def buffers(self) -> list[Tensor]:
        """The network's buffers, which forward passes may change."""
        return self._buffers

    def allocate_state(self) -> None:
        """Let an optimizer of Adam's kind take its memory before the first step, by a step skipped on the device.

        What it makes are the zeros that its first step would make. Others, whose first step differs from the rest or
        cannot be skipped there, take theirs when they first step.

        Raises:
            RunError: there is not enough memory.
        """
        known = isinstance(self.optimizer, torch.optim.Adam) and self._decides_on_device and not self.optimizer.state
        if not known:
            return
        with ending_the_run("the allocation of the optimizer's state"):
            for parameter in self._parameters:
                parameter.grad = torch.zeros_like(parameter)
            self._step(torch.zeros((), dtype=torch.bool, device=self._parameters[0].device))
            self.drop_gradients()

    def begin(self) -> None:
        """Keep what a skipped step must put back; the learning rate has been set."""
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        self._saved_buffers = [buffer.clone() for buffer in self._buffers]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's share of the loss, a scalar.

        Raises:
            RunError: torch looks for anomalies, and a gradient is NaN.
        """
        try:
            (loss if self.loss_scale is None else self.loss_scale.scale(loss)).backward()
        except RuntimeError as error:
            if "returned nan values" not in str(error):  # anomaly detection's words
                raise
            reason = str(error).splitlines()[0]
            raise RunError(f"detect_anomaly found NaN in the backward pass at this operation: {reason}") from error

    def accumulating(self, exchanges: bool):  # noqa: ANN201 - a context manager of one of two kinds
        """Context of a forward and backward pass: whether several processes exchange gradients in it."""
        if isinstance(self.forward_net, DistributedDataParallel) and not exchanges:
            return self.forward_net.no_sync()
        return nullcontext()

    def drop_gradients(self) -> None:
        """Let go of the gradients so far, and of their memory."""
        self.optimizer.zero_grad(set_to_none=True)

    def flat_gradients(self) -> Tensor | None:
        """A copy of the gradients as one vector; None if there are none."""
        gradients = self._gradients()
        return torch.cat([gradient.flatten() for gradient in gradients]) if gradients else None

    def set_gradients(self, flat: Tensor) -> None:
        """Take the gradients from a vector like that of `flat_gradients`."""
        gradients = self._gradients()
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def gradient_norm(self) -> Tensor:
        """Unscale the gradients and return their total L2 norm, a device scalar; call once per iteration."""
        gradients = self._gradients()
        if self.loss_scale is not None:
            self.loss_scale.unscale_(gradients)
        return torch.nn.utils.get_total_norm(gradients, foreach=True)

    def commit(self, norm: Tensor, finite: Tensor, own: Tensor | None = None) -> None:
        """Clip and step; where the bool device scalar `finite` is false, leave everything as it was at `begin`.

        `own` says the same of this player's losses and gradients alone, which is what its loss scale follows.
        """
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.max_norm, norm, foreach=True)
        self._step(finite)
        for module in self._after_update:
            module.after_update()
        self.put_back(finite)
        if self.loss_scale is not None:
            self.loss_scale.update(finite if own is None else own)

    def put_back(self, finite: Tensor) -> None:
        """Where the bool device scalar `finite` is false, give the buffers the values they had at `begin`."""
        for buffer, saved in zip(self._buffers, self._saved_buffers, strict=True):
            buffer.copy_(torch.where(finite, buffer, saved))

    @property
    def _decides_on_device(self) -> bool:
        return self._skips_on_device and bool(self.optimizer.param_groups[0].get("fused"))

    def _step(self, finite: Tensor) -> None:
        if self._decides_on_device:
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif finite.item():  # host-device synchronization: this optimizer cannot skip a step on the device
            self.optimizer.step()
