"""Small components of our own, so that these tests do not hang on those that ship, and a file that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from traiNNer.config import load_options
from traiNNer.config.options import Options
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.registry import (
    DATASETS,
    LOSSES,
    METRICS,
    NETWORKS,
    OPTIMIZERS,
    SCHEDULERS,
    Registry,
)

GOOD = """\
name: tiny
scale: 2
num_gpu: 0
manual_seed: 7
datasets:
  train:
    name: photographs
    type: config_test_dataset
    dataroot_gt: datasets/hr
    lq_size: 16
    gt_size: 32
    batch_size_per_gpu: 4
  val:
    name: held_out
    type: ConfigTestDataset
    dataroot_gt: [datasets/val1, datasets/val2]
network_g:
  type: ConfigTestNet
  features: 8
train:
  total_iter: 2000
  optim_g:
    type: configtestoptimizer
    lr: 2e-4
    betas: [0.9, 0.99]
  scheduler:
    type: ConfigTestScheduler
    milestones: [1000, 1500]
  losses:
    - type: ConfigTestLoss
      loss_weight: 1.0
val:
  val_enabled: true
  val_freq: 100
  save_img: false
  metrics_enabled: true
  metrics:
    config_test_metric:
      better: higher
logger:
  print_freq: 10
  save_checkpoint_freq: 100
  use_tb_logger: false
"""


def config_test_dataset(
    *,
    dataroot_gt: Annotated[str | list[str], Field(description="folders")],
    dataroot_lq: Annotated[str | list[str] | None, Field(description="folders")] = None,
    gt_size: Annotated[int | None, Field(ge=1, description="px")] = None,
    lq_size: Annotated[int | None, Field(ge=1, description="px")] = None,
    scale: Annotated[int, Field(ge=1, description="factor")],
    use_hflip: Annotated[bool, Field(description="flip")] = True,
    phase: Annotated[Literal["train", "val", "test"], Field(description="phase")],
) -> None:
    """A data set's signature."""


def config_test_net(
    *,
    scale: Annotated[int, Field(ge=1, le=4, description="factor")],
    features: Annotated[int, Field(ge=1, description="channels")] = 16,
    act: Annotated[Literal["relu", "mish"], Field(description="activation")] = "relu",
) -> None:
    """A network's signature."""


class ConfigTestLoss:
    """A loss's signature."""

    def __init__(self, *, reduction: Annotated[Literal["mean", "sum"], Field(description="how")] = "mean") -> None:
        self.reduction = reduction

    def forward(self, output: Any, target: Any) -> None:
        """What the loss needs."""


def config_test_metric(*, crop_border: int = 0, better: Literal["higher"] = "higher") -> None:
    """A metric's signature."""


Beta = Annotated[float, Field(ge=0, lt=1)]


def config_test_optimizer(
    parameters: Any, /, *, lr: Annotated[float, Field(gt=0)], betas: tuple[Beta, Beta] = (0.9, 0.999)
) -> None:
    """An optimizer's signature."""


def config_test_scheduler(
    total_iter: int, /, *, milestones: list[int], gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
) -> None:
    """A scheduler's signature."""


@contextmanager
def registered(registry: Registry, name: str, factory: Callable[..., Any]) -> Iterator[None]:
    """A component that exists for the duration of a test."""
    registry.register(name)(factory)
    try:
        yield
    finally:
        key = registry.normalize(name)
        del registry._factories[key], registry._spelled[key]


@pytest.fixture(scope="package", autouse=True)
def components() -> Iterator[None]:
    with (
        registered(DATASETS, "ConfigTestDataset", config_test_dataset),
        registered(NETWORKS, "ConfigTestNet", config_test_net),
        registered(LOSSES, "configtestloss", ConfigTestLoss),
        registered(METRICS, "config_test_metric", config_test_metric),
        registered(OPTIMIZERS, "ConfigTestOptimizer", config_test_optimizer),
        registered(SCHEDULERS, "ConfigTestScheduler", config_test_scheduler),
    ):
        yield


Load = Callable[..., Options]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text as if it stood in `x.yml`."""

    def load_text(text: str, **arguments: Any) -> Options:
        path = tmp_path / "x.yml"
        path.write_text(text, encoding="utf-8")
        return load_options(path, **arguments)

    return load_text


@pytest.fixture
def mistakes(load: Load) -> Callable[..., list[str]]:
    """The lines that a text is refused with, without the folder of the file; none if it is accepted."""

    def of_text(text: str, **arguments: Any) -> list[str]:
        try:
            load(text, **arguments)
        except ConfigError as error:
            return [line[line.index("x.yml") :] if "x.yml" in line else line for line in str(error).splitlines()]
        return []

    return of_text


def change(old: str, new: str, text: str = GOOD) -> str:
    """The good file with one change."""
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
    return text.replace(old, new)


def marked_line(text: str) -> int:
    """The line that ends in `# <-`."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# <-"))
