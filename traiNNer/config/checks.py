"""What one option demands of another, as far as the file alone can tell; disks and devices are asked later.

The checks read the plain data, not the typed sections, so that they also run over a file with other mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias, TypeGuard, cast

from traiNNer.config.automations import automation_notices, automation_problems
from traiNNer.config.loss_checks import loss_notices, loss_problems
from traiNNer.config.loss_schedulers import scheduler_problems, scheduler_surprises
from traiNNer.config.scheduler_checks import contradictions, scheduler_notices
from traiNNer.utils.errors import Problem
from traiNNer.utils.fields import iterations
from traiNNer.utils.schema import MISSING, unknown_key

Purpose: TypeAlias = Literal["train", "test"]
Data: TypeAlias = Mapping[str, Any]


def purpose_of(data: Data) -> Purpose:
    """What a file is for: testing if it has test sets and nothing to train with, else training."""
    datasets = section(data, "datasets")
    tests = any(phase.startswith("test") for phase in datasets)
    return "test" if tests and "train" not in datasets and "train" not in data else "train"


def check(data: Data, purpose: Purpose) -> list[Problem]:
    """Contradictions and gaps between options; keys are paths in the tree."""
    problems = [*_phases(data), *_crop_sizes(data), *_validation(data), *_tiles(data)]
    if purpose == "train":
        problems += _training(data)
    return problems


def notices(data: Data) -> list[Problem]:
    """Options that have no effect because the one they belong to is off."""
    found: list[Problem] = []
    for path, name, switch in _NEEDS:
        values = section(data, path) if path else data
        if values.get(name) not in (None, False) and not values.get(switch):
            key = f"{path}.{name}" if path else name
            found.append(Problem(key=key, message=f"has no effect without {switch}"))
    for phase, dataset in section(data, "datasets").items():
        if not phase.startswith("train") and isinstance(dataset, dict):
            values = cast("dict[str, Any]", dataset)
            names = [name for name in ("batch_size_per_gpu", "accum_iter") if values.get(name, 1) not in (1, None)]
            text = "has no effect here: images are validated one by one"
            found += [Problem(key=f"datasets.{phase}.{name}", message=text) for name in names]
    train = section(data, "train")
    if data.get("network_d") is None:
        names = [name for name in ("optim_d", "scheduler_d") if train.get(name) is not None]
        found += [Problem(key=f"train.{name}", message="has no effect without network_d") for name in names]
    found += loss_notices(train.get("losses"), train.get("total_iter"))
    found += scheduler_surprises(train.get("loss_scheduler"))
    found += automation_notices(data)
    for name, scheduler, total_iter in _schedulers(train):
        found += [problem.under(f"train.{name}") for problem in scheduler_notices(scheduler, total_iter)]
    return found


def _schedulers(train: Data) -> Iterator[tuple[str, Data, int]]:
    """The schedules of a file by their keys, with the length of the run; none if that is not known."""
    try:
        total_iter = iterations(train.get("total_iter"))
    except ValueError:
        return
    for name in ("scheduler", "scheduler_g", "scheduler_d"):
        if total_iter >= 1 and section(train, name):
            yield name, section(train, name), total_iter


_NEEDS = (
    ("", "amp_bf16", "use_amp"),
    ("train", "grad_clip_max_norm", "grad_clip"),
    ("train", "ema_power", "ema_decay"),
    ("train", "ema_update_after_step", "ema_decay"),
    ("train", "adaptive_d_ema_decay", "adaptive_d"),
    ("train", "adaptive_d_threshold", "adaptive_d"),
)
"""Section, option, and the option beside it without which it does nothing."""


def section(data: Data, name: str) -> Data:
    """A section of the data, empty if it is missing or something else."""
    value = data.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


PHASES = re.compile(r"train|(val|test)(_[0-9]+)?")


def _phases(data: Data) -> Iterator[Problem]:
    for phase in section(data, "datasets"):
        if not PHASES.fullmatch(phase):
            yield unknown_key(f"datasets.{phase}", phase, ["train", "val", "val_2", "test", "test_2"])


def _training(data: Data) -> Iterator[Problem]:
    train, datasets = section(data, "train"), section(data, "datasets")
    needed = [
        *((name, data.get(name)) for name in ("train", "logger", "datasets")),
        *((f"train.{name}", train.get(name)) for name in ("optim_g", "losses") if isinstance(data.get("train"), dict)),
        *(("datasets.train", datasets.get("train")) for _ in range(isinstance(data.get("datasets"), dict))),
    ]
    for key, value in needed:
        if value is None:
            yield Problem(key=key, message=f"{MISSING}; accepted: a {_KINDS.get(key, 'section')}")
    yield from loss_problems(train.get("losses"), train.get("total_iter"))
    yield from scheduler_problems(train.get("loss_scheduler"), train.get("losses"))
    yield from automation_problems(data)
    for name, scheduler, total_iter in _schedulers(train):
        yield from (problem.under(f"train.{name}") for problem in contradictions(scheduler, total_iter))
    dataset = section(datasets, "train")
    if dataset and dataset.get("batch_size_per_gpu") is None:
        yield Problem(
            key="datasets.train.batch_size_per_gpu", message=f"{MISSING}; accepted: images per batch, at least 1"
        )


_KINDS = {"train.losses": "list with at least one loss", "train.optim_g": "section with the type of an optimizer"}


def _crop_sizes(data: Data) -> Iterator[Problem]:
    for phase, dataset in section(data, "datasets").items():
        values = cast("dict[str, Any]", dataset) if isinstance(dataset, dict) else {}
        scale, gt, lq = data.get("scale"), values.get("gt_size"), values.get("lq_size")
        if not _is_count(scale) or not _is_count(gt):
            continue
        key = f"datasets.{phase}.gt_size"
        if _is_count(lq) and gt != lq * scale:
            message = f"found {gt}, but lq_size {lq} times scale {scale} is {lq * scale}; accepted: sizes that agree"
            yield Problem(key=key, message=message)
        elif lq is None and gt % scale:
            yield Problem(key=key, message=f"found {gt}; accepted: a multiple of the scale, {scale}")


def _validation(data: Data) -> Iterator[Problem]:
    val = section(data, "val")
    if val.get("metrics_enabled") is True and not val.get("metrics"):
        yield Problem(key="val.metrics", message=f"{MISSING}, as metrics_enabled is true; accepted: metrics by label")
    if "train" not in data:
        return
    if val.get("val_enabled") is True and val.get("val_freq") is None:
        yield Problem(key="val.val_freq", message=f"{MISSING}, as val_enabled is true; accepted: iterations")
    samples, phases = val.get("samples_per_checkpoint"), section(data, "datasets")
    if not isinstance(data.get("datasets"), dict) or not all(name.startswith(("train", "test")) for name in phases):
        return
    if val.get("val_enabled") is True:
        message = "found true, but there is no data set val; accepted: a data set val, or false"
        yield Problem(key="val.val_enabled", message=message)
    if _is_count(samples):
        message = f"found {samples}, but there is no data set val; accepted: a data set val, or 0"
        yield Problem(key="val.samples_per_checkpoint", message=message)


def _tiles(data: Data) -> Iterator[Problem]:
    val = section(data, "val")
    size, overlap = val.get("tile_size"), val.get("tile_overlap")
    if _is_count(size) and _is_count(overlap) and overlap >= size:
        yield Problem(key="val.tile_overlap", message=f"found {overlap}; accepted: less than tile_size, {size}")


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
