"""Which learning rates a run has: by its option file, or by those of the checkpoint that it resumes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from traiNNer.config import Options
from traiNNer.schedulers import LearningRate, ObservesValidation, build_schedule
from traiNNer.utils.checkpoint import ResumePoint, read_state
from traiNNer.utils.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What the rate of one network follows from, beside the iteration."""

    lr: float
    scheduler: Mapping[str, Any] | None
    warmup_iter: int
    total_iter: int
    """Of the run, for schedules that span it."""

    def of(self, optimizer: torch.optim.Optimizer) -> LearningRate:
        """The owner of an optimizer's rate; every group's base rate becomes this one."""
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"] = self.lr
        return LearningRate(optimizer, build_schedule(self.scheduler, self.total_iter), self.warmup_iter)

    def at(self, iteration: int, observed: Mapping[str, Any] | None = None) -> float:
        """The rate at an iteration; `observed` is the state of a schedule that follows validations."""
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=self.lr)
        rate = self.of(optimizer)
        if isinstance(rate.schedule, ObservesValidation) and observed is not None:
            rate.schedule.load_state_dict(dict(observed))
        return rate.value(iteration, self.lr)

    def dump(self) -> dict[str, Any]:
        """As it is saved in a checkpoint."""
        return {**asdict(self), "scheduler": None if self.scheduler is None else dict(self.scheduler)}


def choose_rates(
    options: Options, resume: ResumePoint | None, networks: Iterable[str], *, preserve: bool
) -> tuple[dict[str, Rate], list[str]]:
    """The rates of the run's networks by the file, or by the checkpoint where they are to be preserved.

    The lines tell of differences between the two.
    """
    present = rates_of(options)
    rates = {name: present[name] for name in networks if name in present}
    if resume is None:
        return rates, ["--preserve_lr has no effect: the run is not resumed"] if preserve else []
    states = {name: entry["state"] for name, entry in read_state(resume.path)["objects"].items()}
    if "run" not in states:
        return rates, []
    saved = saved_rates(states["run"], json.loads(states["run"]["options"]))
    lines = changes(saved, rates, resume.iteration + 1, states)
    if preserve:
        kept = {name: rate for name, rate in saved.items() if name in rates}
        lines.append("--preserve_lr: the learning rates and schedules of the checkpoint are kept")
        lines += [_span(name, rate, rates[name].total_iter) for name, rate in kept.items()]
        rates |= kept
    return rates, [line for line in lines if line]


def _span(name: str, rate: Rate, total_iter: int) -> str:
    """A line if a preserved schedule spans a run of another length, so that it does not end where the run does."""
    if rate.at(total_iter) == replace(rate, total_iter=total_iter).at(total_iter):
        return ""
    return (
        f"--preserve_lr: the schedule of {name} is that of a run of {rate.total_iter:,}, not {total_iter:,} iterations"
    )


def rates_of(options: Options) -> dict[str, Rate]:
    """The rate of each network that the option file has an optimizer for."""
    return _rates(options.dump()["train"] or {})


def saved_rates(record: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Rate]:
    """Those that a checkpoint was made with.

    Args:
        record: its state of the run, which has `rates` since there is `--preserve_lr`.
        options: its resolved options.
    """
    if "rates" in record:
        return {name: Rate(**values) for name, values in record["rates"].items()}
    return _rates(options.get("train") or {})


def _rates(train: Mapping[str, Any]) -> dict[str, Rate]:
    return {
        f"net_{letter}": Rate(
            lr=train[f"optim_{letter}"]["lr"],
            scheduler=train.get(f"scheduler_{letter}") or train.get("scheduler"),
            warmup_iter=train["warmup_iter"],
            total_iter=train["total_iter"],
        )
        for letter in ("g", "d")
        if train.get(f"optim_{letter}")
    }


def changes(
    saved: Mapping[str, Rate], present: Mapping[str, Rate], iteration: int, states: Mapping[str, Any]
) -> list[str]:
    """A line for each network whose rate at an iteration is another one by the present options.

    Args:
        saved: the checkpoint's, by network.
        present: the option file's.
        iteration: the first one after the checkpoint.
        states: of the checkpoint's objects, with what validations have made of a rate under `scheduler/<network>`.
    """
    lines: list[str] = []
    for name in present.keys() & saved.keys():
        try:
            before = saved[name].at(iteration, states.get(f"scheduler/{name}"))
        except ConfigError:  # of a version whose schedules had other parameters
            continue
        after = present[name].at(iteration, states.get(f"scheduler/{name}"))
        if abs(before - after) > 1e-12 * max(before, after):
            lines.append(
                f"learning rate of {name} at iteration {iteration}: {before:.4g} by the checkpoint's options, "
                f"{after:.4g} by the current ones"
            )
    return sorted(lines)
