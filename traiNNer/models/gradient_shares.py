"""How strongly each loss pulls: the gradient of its unweighted value at the last convolution of net_g, where asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from traiNNer.losses.base import Value, total
from traiNNer.losses.term import Term
from traiNNer.models.player import Player
from traiNNer.utils import dist

PREFIX = "gradient/"
"""Before a loss's label in the record of a step."""

Forward: TypeAlias = Callable[[Tensor], Tensor]
Generate: TypeAlias = Callable[[Forward, Tensor], Tensor]
"""A network's float32 output with its graph, in the run's precision."""


def never(iteration: int) -> bool:
    """No iteration is asked for."""
    return False


class GradientShares:
    """Samples the L2 norm of each live loss's gradient with respect to one weight, net_g's last convolution's.

    There the norms compare as those over all weights do, at the cost of the losses' own backward passes alone. Of an
    iteration with several micro-batches the first alone is sampled. Nothing of the step changes: its gradients, the
    random state and the buffers are the same bits with and without a sample, and nothing waits for the device.

    Args:
        player: net_g's.
        generate: makes an output of the plain network, where the step's own comes from a compiled one.
    """

    def __init__(self, player: Player, generate: Generate) -> None:
        self.wanted: Callable[[int], bool] = never
        """Whether an iteration, counted from 1, is to be sampled; the same in all processes."""
        self._player, self._generate = player, generate
        self._weight: nn.Parameter | None = None
        self._sampled = 0
        self._norms: dict[str, Tensor] = {}

    def request(self, wanted: Callable[[int], bool]) -> None:
        """Sample at some iterations from now on; to be called before the first step."""
        self.wanted = wanted
        if self._compiled:
            from torch._functorch import config

            # a compiled discriminator's backward may otherwise give away what a second pass needs
            config.donated_buffer = False

    def sample(
        self, current_iter: int, live: Sequence[Term], values: Mapping[str, Value], output: Tensor, lq: Tensor
    ) -> None:
        """Sample if this iteration is asked for and has not been sampled; before the step's own backward pass.

        Args:
            current_iter: the iteration, counted from 1.
            live: the losses of the step.
            values: their unweighted values by label.
            output: net_g's float32 output for `lq`, (B, C, H, W), on which they were computed.
            lq: the LQ images, (B, C, h, w).
        """
        if current_iter == self._sampled or not self.wanted(current_iter):
            return
        scale = None if self._player.loss_scale is None else self._player.loss_scale.value
        # a sample that is not finite is no reason to stop
        with torch.autograd.set_detect_anomaly(False), self._last_weight(output, lq) as (image, weight):
            for term in live:
                seed = _seed(term, current_iter, scale, output)
                gradient = _gradient(total(values[term.label]), seed, output, image, weight)
                self._norms[PREFIX + term.label] = torch.linalg.vector_norm(gradient.detach().float()) / seed
        self._sampled = current_iter

    def taken(self) -> dict[str, Tensor]:
        """The norms of this iteration by `gradient/LABEL`, device scalars, means over processes; then forget them."""
        norms, self._norms = self._norms, {}
        if not norms:
            return {}
        # together, so that several processes exchange them at once
        return dict(zip(norms, dist.mean(torch.stack(list(norms.values()))).unbind(), strict=True))

    @property
    def _compiled(self) -> bool:
        net = self._player.forward_net
        return (net.module if isinstance(net, DistributedDataParallel) else net) is not self._player.net

    @contextmanager
    def _last_weight(self, output: Tensor, lq: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The weight, and an output whose graph leads to it: the step's own, unless the network is compiled.

        A compiled network's backward pass is one piece, which computes the gradients of all weights or none.
        """
        if not self._compiled:
            if self._weight is None:
                self._weight = last_convolution(output, self._player.net)
            yield output, self._weight
            return
        net = self._player.net
        with torch.random.fork_rng(devices=_generators(output.device), device_type=output.device.type):
            if self._weight is None:
                self._weight = last_convolution(self._again(lq), net)
            with _alone(self._weight, net):
                image = self._again(lq)
        yield image, self._weight

    def _again(self, lq: Tensor) -> Tensor:
        """The plain network's output; its buffers stay as they are."""
        net, buffers = self._player.net, {name: each.clone() for name, each in self._player.net.named_buffers()}
        return self._generate(lambda images: torch.func.functional_call(net, buffers, (images,)), lq)


def _seed(term: Term, current_iter: int, scale: Tensor | None, output: Tensor) -> Tensor:
    """What the value's gradient starts with: 1; with float16 what the step's own does, to stay in float16's range."""
    if scale is None:
        return output.new_ones(())
    return scale.detach() * (abs(term.weight(current_iter)) or 1.0)


def _gradient(value: Tensor, seed: Tensor, output: Tensor, image: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a scalar at the weight, times the seed; 0 if the value does not depend on the output.

    `image` is the output that leads to the weight, `output` the one that the value is computed on.
    """
    none = weight.new_zeros(())
    if not value.requires_grad:
        return none
    seed = seed.to(value.dtype)
    if image is output:
        return _at(value, weight, seed, none)
    at_output = _at(value, output, seed, none)
    return none if at_output.ndim == 0 else _at(image, weight, at_output, none)


def _at(value: Tensor, where: Tensor, seed: Tensor, none: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, where, seed, retain_graph=True, allow_unused=True)
    return none if gradient is None else gradient


def last_convolution(output: Tensor, net: nn.Module) -> nn.Parameter:
    """The weight of the convolution that was executed last on the way to an output, else the last of four dimensions.

    Where a convolution's weight is itself computed (reparameterised, normalized), the nearest parameter behind it.
    """
    nodes = [node for node in _graph(output.grad_fn) if "Convolution" in node.name()]
    parameters = {id(parameter): parameter for parameter in net.parameters() if parameter.requires_grad}
    for node in sorted(nodes, key=lambda node: node._sequence_nr(), reverse=True):
        kernel = node.next_functions[1][0]  # of input, weight and bias
        leaves = (getattr(each, "variable", None) for each in _graph(kernel))
        found = next((leaf for leaf in leaves if leaf is not None and id(leaf) in parameters and leaf.ndim == 4), None)
        if found is not None:
            return parameters[id(found)]
    trained = list(parameters.values())
    return next((each for each in reversed(trained) if each.ndim == 4), trained[-1])


def _graph(start: Any) -> Iterator[Any]:
    """The nodes of a graph, the nearest first."""
    seen, row = {start}, [start]
    while row:
        yield from (node for node in row if node is not None)
        behind = [node for each in row if each is not None for node, _ in each.next_functions]
        row = [node for node in dict.fromkeys(behind) if node not in seen]
        seen.update(row)


@contextmanager
def _alone(weight: Tensor, net: nn.Module) -> Iterator[None]:
    """Within, graphs that are built begin at one weight: nothing before it is kept."""
    others = [each for each in net.parameters() if each.requires_grad and each is not weight]
    for each in others:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in others:
            each.requires_grad_(True)


def _generators(device: torch.device) -> list[torch.device]:
    """The devices whose random state is to be kept beside the CPU's."""
    return [] if device.type == "cpu" else [device]
