"""What every registered optimizer does: lowers the loss, resumes exactly from a safe file, refuses bad options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from traiNNer.optimizers import apply_settings, build_optimizer, effective_lr, settings
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.plain import plain
from traiNNer.utils.registry import OPTIMIZERS

torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for each other

RATES = {"SGD": 0.1, "Prodigy": 1.0, "Lion": 2e-3}
"""Where 0.01 is not a rate to learn with."""
THREE = ("Adan", "AdanScheduleFree")
"""Those with three betas."""
TURNED: dict[str, dict[str, Any]] = {
    "Adam": {"amsgrad": True},
    "AdamW": {"amsgrad": True},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "SOAP": {"precondition_frequency": 3, "shampoo_beta": 0.5},
    "AdamWScheduleFree": {"warmup_steps": 20, "r": 1.0},
    "AdanScheduleFree": {"warmup_steps": 20, "r": 1.0},
    "Prodigy": {"d_coef": 2.0, "growth_rate": 1.02},
    "Lion": {"decoupled_weight_decay": False, "weight_decay": 0.5},
    "Adan": {"no_prox": True, "weight_decay": 0.5},
}
"""Options away from their defaults, that a run may change at a resume."""

names = pytest.mark.parametrize("name", OPTIMIZERS.names())


def options(name: str, **more: Any) -> dict[str, Any]:
    return {"type": name, "lr": RATES.get(name, 0.01), **more}


class Training:
    """Regression of images on themselves with exchanged channels."""

    def __init__(self, chosen: dict[str, Any], *, channels_last: bool = False) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
        if channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(chosen, self.net)
        self.done = 0

    def steps(self, number: int) -> list[float]:
        losses = []
        for _ in range(number):
            self.done += 1
            images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(self.done))
            self.optimizer.zero_grad(set_to_none=True)
            loss = (self.net(images) - images.flip(1)).abs().mean()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def save(self, path: Path) -> None:
        torch.save({"net": self.net.state_dict(), "optimizer": plain(self.optimizer.state_dict(), "optimizer")}, path)

    def load(self, path: Path, done: int) -> None:
        """As a run does it: the state of the file, the settings of the options."""
        written, saved = settings(self.optimizer), torch.load(path, weights_only=True)
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        apply_settings(self.optimizer, written)
        self.done = done

    def everything(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimizer": plain(self.optimizer.state_dict(), "optimizer")}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, Tensor) else first == second


@names
def test_lowers_the_loss(name: str) -> None:
    losses = Training(options(name)).steps(50)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@names
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_resumes_bit_for_bit_from_a_safe_file(name: str, channels_last: bool, turned: bool, tmp_path: Path) -> None:
    chosen = options(name, **(TURNED.get(name, {}) if turned else {}))
    straight, first, second = (Training(chosen, channels_last=channels_last) for _ in range(3))
    straight.steps(15)
    first.steps(7)
    first.save(tmp_path / "7.state")
    second.load(tmp_path / "7.state", 7)
    second.steps(8)
    assert same(second.everything(), straight.everything())


@names
def test_settings_follow_the_options_and_what_is_learned_the_file(name: str, tmp_path: Path) -> None:
    first = Training(options(name))
    fresh = [dict(group) for group in first.optimizer.param_groups]
    first.steps(7)
    learned = {
        key: value
        for group, before in zip(first.optimizer.param_groups, fresh, strict=True)
        for key, value in group.items()
        if key != "params" and (key not in before or before[key] is not value)
    }
    first.save(tmp_path / "7.state")
    betas = [0.7, 0.6, 0.5] if name in THREE else [0.7, 0.6]
    wanted = {"lr": 1e-3, "betas": betas, "eps": 1e-5, "weight_decay": 0.25, "beta3": 0.5, "momentum": 0.3}
    parameters = set(OPTIMIZERS.validate({"type": name}))
    edited = {key: value for key, value in wanted.items() if key in parameters}
    second = Training(options(name, **edited))
    second.load(tmp_path / "7.state", 7)
    group = second.optimizer.param_groups[0]
    assert {key: list(group[key]) if key == "betas" else group[key] for key in edited} == edited
    assert group["initial_lr"] == 1e-3
    assert all(same(group[key], value) for key, value in learned.items())
    second.steps(1)


@names
def test_options_that_need_more_state_may_be_turned_at_a_resume(name: str, tmp_path: Path) -> None:
    first = Training(options(name))
    first.steps(7)
    first.save(tmp_path / "7.state")
    chosen = options(name, **TURNED.get(name, {}))
    second, unchanged = Training(chosen), Training(options(name))
    for training in (second, unchanged):
        training.load(tmp_path / "7.state", 7)
        losses = training.steps(4)
    assert max(losses) < 1
    assert same(second.net.state_dict(), unchanged.net.state_dict()) is (name not in TURNED)


EACH = [(name, key) for name, turned in TURNED.items() for key in turned if key != "weight_decay"]


@pytest.mark.parametrize(("name", "key"), [*EACH, ("ADOPT", "weight_decouple"), ("RAdam", "decoupled_weight_decay")])
def test_each_option_makes_a_difference(name: str, key: str) -> None:
    turned = {"weight_decouple": True, "decoupled_weight_decay": True, **TURNED.get(name, {})}
    more = {"momentum": 0.9} if key == "nesterov" else {}
    with_it, without = (
        Training(options(name, weight_decay=0.5, **more, **value)) for value in ({key: turned[key]}, {})
    )
    for training in (with_it, without):
        training.steps(12)
    assert not same(with_it.net.state_dict(), without.net.state_dict())


MISTAKES: list[tuple[str, Any, str]] = [
    ("lr", 0, "greater than 0"),
    ("lr", -1e-3, "greater than 0"),
    ("lr", float("inf"), "a finite number"),
    ("lr", True, "a number"),
    ("betas[0]", [-0.1, 0.9, 0.9], ""),
    ("betas[1]", [0.9, 1.0, 0.9], "less than 1"),
    ("betas", [0.9], ""),
    ("betas", [0.9, 0.9, 0.9, 0.9], "at most "),
    ("eps", 0.0, "greater than 0"),
    ("weight_decay", -0.1, "at least 0"),
    ("wieght_decay", 0.1, "did you mean weight_decay"),
    ("foreach", True, "unknown key"),
]


@names
@pytest.mark.parametrize(("key", "value", "accepted"), MISTAKES)
def test_bad_options_are_refused_by_name(name: str, key: str, value: Any, accepted: str) -> None:
    given = key.partition("[")[0]
    if isinstance(value, list) and len(value) == 3 and name not in THREE:
        value = value[:2]
    if given in ("betas", "eps") and given not in OPTIMIZERS.validate({"type": name}):
        key, accepted = given, "unknown key"
    with pytest.raises(ConfigError) as refused:
        build_optimizer(options(name, **{given: value}), nn.Linear(1, 1))
    for problem in refused.value.problems:
        assert problem.key.startswith(key)
        assert accepted in problem.message


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "AdanScheduleFree"])
def test_training_weights_without_their_average_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"betas.0.: found 0.0; accepted: greater than 0"):
        build_optimizer(options(name, betas=[0.0, 0.9, 0.9][: 3 if name in THREE else 2]), nn.Linear(1, 1))


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="nesterov: found true with momentum 0"):
        build_optimizer({"type": "SGD", "lr": 0.1, "nesterov": True}, nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["kron", "scalableshampoo", "adashift"])
def test_what_does_not_resume_from_a_safe_file_is_not_offered(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown optimizer"):
        build_optimizer({"type": name, "lr": 1e-3}, nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["schedulefreeadamw", "adamw_schedule_free", "SCHEDULE_FREE_ADAMW", "stable_adamw"])
def test_names_are_without_case_and_underscores(name: str) -> None:
    assert type(build_optimizer({"type": name}, nn.Linear(1, 1))).__name__ in ("ScheduleFreeAdamW", "StableAdamW")


def test_only_prodigy_has_a_rate_of_its_own() -> None:
    found = {}
    for name in OPTIMIZERS.names():
        training = Training(options(name))
        training.steps(10)
        found[name] = effective_lr(training.optimizer)
        if name == "Prodigy":
            for group in training.optimizer.param_groups:
                group["lr"] = 0.5
            assert effective_lr(training.optimizer) == 0.5 * training.optimizer.param_groups[0]["d"] > 0
    assert [name for name, rate in found.items() if rate is not None] == ["Prodigy"]
