"""Mistakes of automations end none of their runs: each is told once, and its fallback takes effect."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.automated_runs import CLASSES, TWO_LOSSES, decisions, everything, log_of, state_of
from traiNNer import automation_setup
from traiNNer.controls import RunControls
from traiNNer.trainer import Trainer
from traiNNer.training_automations.base import (
    Change,
    RunFacts,
    SetClipThreshold,
    SetLearningRateFactor,
    SetLossWeight,
    StopTraining,
)
from traiNNer.training_automations.guard import Guarded
from traiNNer.training_automations.journal import Journal
from traiNNer.training_automations.manager import AutomationManager

Run = Callable[..., int]

BROKEN = "broken on purpose"
AT = 45
"""From this iteration on the mistakes happen; by then each automation but early stopping has changed something."""


@pytest.fixture
def automated(options: dict[str, Any]) -> dict[str, Any]:
    """60 iterations of a very small run with four automations, their fallbacks given; no schedule of its own."""
    options["datasets"]["train"] |= {"batch_size_per_gpu": 1, "gt_size": 16}
    sections = everything()
    sections["AdaptiveGradientClipping"]["fallback"] = {"threshold": 0.7}
    sections["IntelligentLearningRateScheduler"]["fallback"] = {
        "scheduler_type": "step",
        "scheduler_params": {"step_size": 1, "gamma": 0.9},
    }
    sections["early_stopping"] = {"patience": 30, "min_improvement": 50.0, "warmup_iterations": 0}  # stops at 45
    options["train"] |= {
        "total_iter": 60,
        "grad_clip": True,
        "scheduler": None,
        "losses": TWO_LOSSES,
        "training_automations": sections,
    }
    options["val"] |= {"val_freq": 15, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"save_checkpoint_freq": 43, "print_freq": 100}
    return options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """Those of the runs, to look into their models."""
    seen: list[Trainer] = []
    usual = Trainer.train

    def train(self: Trainer) -> None:
        seen.append(self)
        usual(self)

    monkeypatch.setattr(Trainer, "train", train)
    return seen


class Saboteur:
    """Makes methods of automations raise, from an iteration on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.active = True
        self._monkeypatch, self._iteration = monkeypatch, 0
        usual = AutomationManager.after_step

        def after_step(manager: AutomationManager, report: Any) -> None:
            self._iteration = report.iteration
            usual(manager, report)

        monkeypatch.setattr(AutomationManager, "after_step", after_step)

    def breaks(self, method: str, names: Iterable[str] = tuple(CLASSES), at: int = AT) -> None:
        for name in names:
            module, _, of = CLASSES[name].rpartition(".")
            owner = getattr(importlib.import_module(module), of)
            if hasattr(owner, method):
                self._break(owner, method, f"{BROKEN} in {method} of {name}", at)

    def _break(self, owner: type, method: str, message: str, at: int) -> None:
        usual = getattr(owner, method)

        def broken(automation: Any, *arguments: Any) -> Any:
            if self.active and self._iteration >= at:
                raise RuntimeError(message)
            return usual(automation, *arguments)

        self._monkeypatch.setattr(owner, method, broken)


@pytest.fixture
def saboteur(monkeypatch: pytest.MonkeyPatch) -> Saboteur:
    return Saboteur(monkeypatch)


def assert_off(folder: Path, method: str, names: Iterable[str] = tuple(CLASSES)) -> None:
    """Each is told once, with its traceback."""
    log = log_of(folder)
    for name in names:
        text = f"RuntimeError: {BROKEN} in {method} of {name}\n"
        assert len(re.findall(f"^{re.escape(text)}", log, flags=re.MULTILINE)) == 1, name  # the traceback's end
        assert log.count(f"Automation {name}: failed and is off for the rest of the run") == 1
    assert log.count("Traceback") == len(list(names))
    assert "fallback failed" not in log


def assert_fallbacks(trainer: Trainer, *, scheduled: bool = False, iteration: int = 60) -> None:
    """Factors are 1, the threshold and the schedule are those that were given for this, and the run is over."""
    (player,) = trainer.model.players.values()
    assert trainer.iteration == iteration
    assert player.max_norm == 0.7
    assert player.learning_rate.factors.get("learning_rate_factor", 1.0) == 1.0
    assert player.learning_rate.current == pytest.approx(4e-3 * (1.0 if scheduled else 0.9 ** (iteration - 1)))
    assert trainer.model.loss_factor("mseloss") == 1.0


@pytest.mark.parametrize("method", ["observe_step", "observe_validation", "decide", "state_dict"])
def test_mistakes_within_the_run(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    trainers: list[Trainer],
    saboteur: Saboteur,
    method: str,
) -> None:
    """All of them fail, each for itself; in a resumed run they stay off, and what replaced them holds."""
    if method == "state_dict":  # saves come after validations, and that at 45 would stop the run
        automated["train"]["training_automations"]["early_stopping"]["patience"] = 1000
        automated["logger"]["save_checkpoint_freq"] = AT
    saboteur.breaks(method)
    assert run_training(automated) == 0
    assert_off(folder, method)
    assert_fallbacks(trainers[-1])
    before = decisions(folder)
    assert {line["what"] for line in before if line["reason"] == "fallback"} == {
        "clip_threshold/net_g",
        "learning_rate_factor",
        "loss_factor/mseloss",
        "schedule",
    }
    saboteur.active = False
    automated["train"]["total_iter"] = 75
    torn = log_of(folder)
    assert run_training(automated, "--auto_resume") == 0
    log = log_of(folder).removeprefix(torn)
    assert len(re.findall(r"Automation \w+: stays off, it has failed: RuntimeError in ", log)) == 4
    assert "Traceback" not in log
    assert decisions(folder) == before
    assert "[iter 75] saved" in log
    assert_fallbacks(trainers[-1], iteration=75)


def test_mistakes_at_the_start(
    automated: dict[str, Any], run_training: Run, folder: Path, trainers: list[Trainer], saboteur: Saboteur
) -> None:
    saboteur.breaks("start", at=0)
    assert run_training(automated) == 0
    assert_off(folder, "start")
    assert_fallbacks(trainers[-1])
    assert "[iter 60] saved" in log_of(folder)


def test_mistakes_while_the_images_are_measured(
    automated: dict[str, Any], run_training: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError("no room for a crop")

    monkeypatch.setattr("traiNNer.automation_setup.measure_dataset", broken)
    automated["train"] |= {"total_iter": 20, "training_automations": {"dynamic_loss_scheduling": {}}}
    assert run_training(automated) == 0
    log = log_of(folder)
    assert log.count("failed and is off for the rest of the run") == log.count("Traceback") == 1
    assert "MemoryError in calibration: no room for a crop" in log


@pytest.mark.parametrize("method", ["load_state_dict", "holding", "start"])
def test_mistakes_when_a_run_goes_on(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    trainers: list[Trainer],
    saboteur: Saboteur,
    method: str,
) -> None:
    automated["train"]["scheduler"] = {"type": "ConstantLR", "factor": 1.0, "total_iters": 1}
    automated["train"]["total_iter"] = 44
    assert run_training(automated) == 0
    automated["train"]["total_iter"] = 60
    saboteur.breaks(method, at=0)
    assert run_training(automated, "--auto_resume") == 0
    assert_off(folder, method)
    assert_fallbacks(trainers[-1], scheduled=True)


def test_what_they_decide_cannot_be_done(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    trainers: list[Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = RunControls.apply
    kinds = {
        SetClipThreshold: "AdaptiveGradientClipping",
        SetLearningRateFactor: "IntelligentLearningRateScheduler",
        SetLossWeight: "DynamicLossScheduling",
        StopTraining: "IntelligentEarlyStopping",
    }
    failed: set[type] = set()

    def apply(self: RunControls, decision: Any) -> Any:
        if type(decision) in kinds and type(decision) not in failed:
            failed.add(type(decision))
            raise RuntimeError(f"{BROKEN} in apply of {kinds[type(decision)]}")
        return usual(self, decision)

    monkeypatch.setattr(RunControls, "apply", apply)
    assert run_training(automated) == 0
    assert failed == set(kinds)
    assert_off(folder, "apply")
    assert_fallbacks(trainers[-1])


def test_images_that_cannot_be_measured_are_no_reason_to_stop(
    automated: dict[str, Any], run_training: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError(f"{BROKEN} in calibration of DynamicLossScheduling")

    monkeypatch.setattr(automation_setup, "measure_dataset", measure)
    automated["train"]["training_automations"]["dynamic_loss_scheduling"]["auto_calibrate"] = True
    automated["train"]["total_iter"] = 5
    assert run_training(automated) == 0
    assert_off(folder, "calibration", ["DynamicLossScheduling"])


def test_sampling_gradients(
    automated: dict[str, Any], run_training: Run, folder: Path, trainers: list[Trainer], saboteur: Saboteur
) -> None:
    automated["train"]["training_automations"]["early_stopping"]["patience"] = 1000
    saboteur.breaks("samples_gradients")
    assert run_training(automated) == 0
    assert_off(folder, "samples_gradients", ["DynamicLossScheduling"])
    assert trainers[-1].model.loss_factor("mseloss") == 1.0
    assert trainers[-1].model.players["net_g"].max_norm != 0.7


def test_a_fallback_that_fails_too(
    automated: dict[str, Any], run_training: Run, folder: Path, trainers: list[Trainer], saboteur: Saboteur
) -> None:
    saboteur.breaks("decide")
    saboteur.breaks("fallback")
    assert run_training(automated) == 0
    assert log_of(folder).count("its fallback failed too, what it had changed stays") == 4
    assert trainers[-1].iteration == 60
    held = {line["what"]: line["to"] for line in decisions(folder)}
    assert trainers[-1].model.players["net_g"].max_norm == held["clip_threshold/net_g"]
    assert trainers[-1].model.loss_factor("mseloss") == held["loss_factor/mseloss"]


def test_what_a_failed_one_has_changed_survives_a_resume(
    automated: dict[str, Any], run_training: Run, trainers: list[Trainer], saboteur: Saboteur
) -> None:
    """Neither one whose fallback failed too nor a calibration, which a fallback leaves alone, is forgotten."""
    automated["train"]["losses"] = [*TWO_LOSSES, {"type": "ssimloss", "loss_weight": 0.1, "fixed": False}]
    automated["train"]["training_automations"]["dynamic_loss_scheduling"]["auto_calibrate"] = True
    saboteur.breaks("decide")
    saboteur.breaks("fallback", [name for name in CLASSES if name != "DynamicLossScheduling"])

    def held() -> list[Any]:
        model = trainers[-1].model
        (player,) = model.players.values()
        factors = [model.loss_factor(label) for label in ("l1loss", "mseloss", "ssimloss")]
        return [player.max_norm, player.learning_rate.factors, *factors]

    assert run_training(automated) == 0
    before = held()
    assert before[1]["learning_rate_factor"] < 1
    assert before[4] != 1
    automated["train"]["total_iter"] = 61
    assert run_training(automated, "--auto_resume") == 0
    assert held() == before


def test_the_schedule_of_a_fallback_gives_way_to_one_that_the_option_file_has_by_now(
    automated: dict[str, Any], run_training: Run, trainers: list[Trainer], saboteur: Saboteur
) -> None:
    saboteur.breaks("decide", ["IntelligentLearningRateScheduler"])
    automated["train"]["training_automations"]["early_stopping"]["patience"] = 1000
    assert run_training(automated) == 0
    automated["train"] |= {"total_iter": 61, "scheduler": {"type": "ConstantLR", "factor": 0.5, "total_iters": 1000}}
    assert run_training(automated, "--auto_resume") == 0
    (player,) = trainers[-1].model.players.values()
    assert player.learning_rate.current == pytest.approx(2e-3)


@pytest.mark.parametrize("name", CLASSES)
def test_the_others_go_on(
    automated: dict[str, Any], run_training: Run, folder: Path, saboteur: Saboteur, name: str
) -> None:
    """Until the next tick after it, what they decide does not depend on it."""
    automated["train"]["training_automations"]["early_stopping"]["warmup_iterations"] = 15
    automated["train"]["training_automations"]["AdaptiveGradientClipping"]["initial_threshold"] = 0.001
    saboteur.breaks("decide", [name], at=20)
    assert run_training(automated) == 0
    assert_off(folder, "decide", [name])
    working = {line["automation"] for line in decisions(folder) if line["reason"] != "fallback"}
    assert working - {name} == set(CLASSES) - {name}
    stopped = name != "IntelligentEarlyStopping"
    assert ("stopped early" in log_of(folder)) == stopped


def test_numbers_that_are_not_finite_are_not_applied(
    automated: dict[str, Any],
    run_training: Run,
    folder: Path,
    trainers: list[Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clipping = importlib.import_module(CLASSES["AdaptiveGradientClipping"].rpartition(".")[0])
    monkeypatch.setattr(clipping.AdaptiveGradientClipping, "_next", lambda self, level, iteration: float("nan"))
    automated["train"]["total_iter"] = 20
    assert run_training(automated) == 0
    assert log_of(folder).count("failed and is off for the rest of the run, its fallback takes effect: ValueError") == 1
    assert trainers[-1].model.players["net_g"].max_norm == 0.7


def test_a_state_that_cannot_be_saved(
    automated: dict[str, Any], run_training: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that holds what a checkpoint may not; the others' are saved."""
    clipping = importlib.import_module(CLASSES["AdaptiveGradientClipping"].rpartition(".")[0])
    monkeypatch.setattr(clipping.AdaptiveGradientClipping, "state_dict", lambda self: {"history": {1, 2}})
    automated["train"]["total_iter"] = 20
    assert run_training(automated) == 0
    assert log_of(folder).count("Automation AdaptiveGradientClipping: failed and is off") == 1
    assert log_of(folder).count("failed and is off") == 1
    states = state_of(folder, 20)["automations"]["automations"]
    assert {key for key, each in states.items() if each["state"]} == {
        "dynamic_loss_scheduling",
        "intelligent_learning_rate_scheduler",
        "intelligent_early_stopping",
    }


class TwoAtOnce:
    """Decides about two networks in the same iteration."""

    name, asked, max_adjustments = "TwoAtOnce", "interval", None

    def start(self, run: RunFacts) -> list[str]:
        return []

    def observe_step(self, step: Any) -> None: ...

    def decide(self, iteration: int) -> list[SetClipThreshold]:
        return [
            SetClipThreshold(reason="r", text="t", network=network, threshold=2.0) for network in ("net_g", "net_d")
        ]

    def fallback(self) -> list[SetClipThreshold]:
        return [SetClipThreshold(reason="fallback", text="f", network="net_d", threshold=1.0)]


def test_the_rest_of_what_a_failed_one_decided_is_dropped() -> None:
    done: list[SetClipThreshold] = []

    class FailsOnce:
        def apply(self, decision: SetClipThreshold) -> list[Change]:
            if not done and decision.network == "net_g":
                raise RuntimeError(BROKEN)
            done.append(decision)
            return []

    class Values:
        def read(self) -> None: ...

    manager = AutomationManager(
        {"two": Guarded(TwoAtOnce())},  # type: ignore[arg-type]
        controls=FailsOnce(),  # type: ignore[arg-type]
        journal=Journal(None, lambda values, iteration: None),
        run=RunFacts(total_iter=20),
        values=Values(),
    )
    manager.begin(0)
    for iteration in range(1, 21):
        manager.before_iteration()
        manager.after_iteration(iteration)
    assert [(each.reason, each.network) for each in done] == [("fallback", "net_d")]
