"""A tiny network that is trained with DynamicLossScheduling, which is told and asked every 10 iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from traiNNer.losses import build_losses
from traiNNer.losses.base import total
from traiNNer.models.player import Player
from traiNNer.models.sr_model import SRModel
from traiNNer.optimizers import build_optimizer
from traiNNer.schedulers import LearningRate, build_schedule
from traiNNer.training_automations.base import Decision, LossFacts, RunFacts, SetLossWeight, StepFacts
from traiNNer.training_automations.dynamiclossscheduling_automation import DynamicLossScheduling

EVERY = 10
"""Iterations between two times that a manager reads values and asks."""


class Upscaler(nn.Module):
    """Twice the size; 8 features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.first(x))
        features = features + torch.relu(self.middle(features))
        base = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        return base + nn.functional.pixel_shuffle(self.last(features), 2)


def images(seed: int, size: int = 4, side: int = 24) -> dict[str, Any]:
    """Edges and waves of all directions, and the same at half the size."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(size, 3, 8, 8, generator=generator)
    wave, phase = (torch.rand(size, 3, n, generator=generator) for n in (2, 1))
    at = torch.arange(side, dtype=torch.float32)
    angle = wave[..., :1, None] * at[:, None] + wave[..., 1:, None] * at + 6.3 * phase[..., None]
    edges = nn.functional.interpolate((coarse > 0.5).float(), size=(side, side), mode="bilinear")
    gt = 0.2 + 0.4 * edges + 0.2 * torch.sin(2 * angle)
    return {"lq": nn.functional.avg_pool2d(gt, 2), "gt": gt}


def build(losses: Sequence[Mapping[str, Any]], **optimizer: Any) -> SRModel:
    """The same network at every call, and losses of 8 features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Upscaler()
        built = build_losses([{key: entry[key] for key in entry if key not in ("share", "fixed")} for entry in losses])
    made = build_optimizer({"type": "Adam", "lr": 3e-4, **optimizer}, net)
    player = Player(net, made, LearningRate(made, build_schedule(None, 10)))
    return SRModel(generator=player, losses=built)


def facts(losses: Sequence[Mapping[str, Any]], model: SRModel) -> dict[str, LossFacts]:
    """What the entries say."""
    labels = list(model.losses)
    return {
        label: LossFacts(kind=model.losses[label].kind, share=entry.get("share"), fixed=entry.get("fixed", False))
        for label, entry in zip(labels, losses, strict=True)
    }


class Run:
    """A model and an automation that belong together."""

    def __init__(self, losses: Sequence[Mapping[str, Any]], total: int = 2000, **options: Any) -> None:
        self.model = build(losses)
        self.automation = DynamicLossScheduling(**{"auto_calibrate": False, **options})
        self.automation.start(RunFacts(total_iter=total, losses=facts(losses, self.model)))
        self.wanted: set[int] = set()
        self.model.gradient_shares.request(lambda iteration: iteration in self.wanted)
        self.decisions: list[tuple[int, Decision]] = []
        self.ask(0)

    def ask(self, iteration: int) -> None:
        """Which of the next iterations are to be sampled."""
        ahead = range(iteration + 1, iteration + EVERY + 1)
        self.wanted = {each for each in ahead if self.automation.samples_gradients(each)}

    def train(self, first: int, last: int) -> None:
        """Iterations from the first to the last, with what a manager does."""
        told: list[StepFacts] = []
        for iteration in range(first, last + 1):
            self.model.feed_data([images(iteration)])  # type: ignore[list-item]
            self.model.optimize_parameters(iteration)
            told.append(step_facts(self.model, iteration))
            if iteration % EVERY == 0:
                for step in told:
                    self.automation.observe_step(step)
                told = []
                self.obey(iteration)

    def obey(self, iteration: int) -> None:
        """Do what the automation decides."""
        for decision in self.automation.decide(iteration):
            self.decisions.append((iteration, decision))
            if isinstance(decision, SetLossWeight):
                self.model.set_loss_factor(decision.label, decision.factor)
        self.ask(iteration)

    def share(self, label: str, iteration: int, batches: int = 60) -> float:
        """The geometric mean of a loss's share over images that are not trained on; no step."""
        logs = [math.log(self._shares(images(10_000 + seed), iteration)[label]) for seed in range(batches)]
        return math.exp(sum(logs) / len(logs))

    def _shares(self, batch: Mapping[str, Tensor], iteration: int) -> dict[str, float]:
        """Each loss's share of the gradient relative to the first one's."""
        output, norms = self.model.net_g(batch["lq"]), dict[str, float]()
        for term in self.model._terms:
            value = total(term.loss(output, batch["gt"])) * term.weight(iteration)
            (gradient,) = torch.autograd.grad(value, self.model.net_g.last.weight, retain_graph=True)
            norms[term.label] = gradient.norm().item()
        anchor = next(iter(norms.values()))
        return {label: norm / anchor for label, norm in norms.items()}


def step_facts(model: SRModel, iteration: int) -> StepFacts:
    """A step as a manager tells it."""
    values = {label: value.item() for label, value in model.record.items()}
    start = "gradient/"
    terms = model._terms
    return StepFacts(
        iteration=iteration,
        weights={term.label: term.weight(iteration) for term in terms},
        scheduled_weights={term.label: term.weight(iteration) / term.balance for term in terms},
        gradients={label.removeprefix(start): value for label, value in values.items() if label.startswith(start)},
        applied=bool(values["finite"]),
    )
