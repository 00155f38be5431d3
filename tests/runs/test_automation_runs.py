"""Automations in real runs: what they change, what is written down, and that they change nothing else."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.plot_loss_scheduler import read_scalars
from tests.runs.automated_runs import (
    CLIPPING,
    FALLING,
    GAN,
    LOSSES,
    NET_D,
    PATIENT,
    RATE,
    TWO_LOSSES,
    decisions,
    everything,
    log_of,
    same,
    told,
    weights,
)

Run = Callable[..., int]


@pytest.fixture
def automated(options: dict[str, Any]) -> dict[str, Any]:
    """60 iterations at a constant rate, with nothing switched on."""
    options["datasets"]["train"] |= {"batch_size_per_gpu": 1, "gt_size": 16}
    options["train"] |= {"total_iter": 60, "grad_clip": True, "scheduler": None, "losses": TWO_LOSSES}
    options["val"] |= {"val_freq": 20, "metrics": {"psnr": {"type": "psnr"}}}
    options["logger"] |= {"save_checkpoint_freq": 60, "print_freq": 7}
    return options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


def test_off_and_only_watching_change_no_bit(automated: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    automated["train"] |= {"total_iter": 42, "grad_clip_max_norm": 0.05}
    automated["logger"]["save_checkpoint_freq"] = 42
    off = {name: {**section, "enabled": False} for name, section in everything().items()}
    watching = {name: {**section, "max_adjustments": 0} for name, section in everything().items()}
    runs = {
        "without": None,
        "manager off": {"enabled": False, **everything()},
        "each off": off,
        "watching": watching,
    }
    for name, section in runs.items():
        automated["train"] |= {"training_automations": section} if section else {}
        assert run_training(automated, "--name", name) == 0
    experiments = tmp_path / "experiments"
    for name in runs:
        assert not decisions(experiments / name)
        assert same(weights(experiments / name, 42), weights(experiments / "without", 42)), name
    assert not [line for name in ("manager off", "each off") for line in told(experiments / name)]
    assert told(experiments / "watching")  # what early stopping and the losses' shares say at the start


def test_what_does_not_count_is_no_adjustment_of_one_that_only_watches(
    automated: dict[str, Any], run_training: Run, tmp_path: Path
) -> None:
    """A decay of the rate, and a calibration."""
    automated["train"]["total_iter"] = 60
    automated["train"]["losses"] = [*TWO_LOSSES, {"type": "ssimloss", "loss_weight": 0.1}]
    sections = {
        "IntelligentLearningRateScheduler": {**RATE, "strategy": "cosine", "max_adjustments": 0},
        "dynamic_loss_scheduling": {**LOSSES, "auto_calibrate": True, "max_adjustments": 0},
    }
    for name, section in {"without": None, "watching": sections}.items():
        automated["train"] |= {"training_automations": section} if section else {}
        assert run_training(automated, "--name", name) == 0
    without, watching = (tmp_path / "experiments" / name for name in ("without", "watching"))
    assert {line["what"] for line in decisions(watching)} == {"note"}
    assert same(weights(watching, 60), weights(without, 60))


def test_each_acts_and_all_of_it_is_written_down(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    automated["train"]["training_automations"] = everything()
    automated["logger"] |= {"print_freq": 1, "use_tb_logger": True}
    assert run_training(automated) == 0
    lines, log, curves = decisions(folder), log_of(folder), read_scalars(folder / "tb_logger")
    assert "Traceback" not in log
    assert {line["automation"] for line in lines} == {
        "AdaptiveGradientClipping",
        "IntelligentLearningRateScheduler",
        "DynamicLossScheduling",
    }
    for line in lines:
        assert line.keys() == {"iteration", "automation", "what", "from", "to", "reason", "text", "evidence"}
        assert log.count(f"[INFO] Automation {line['automation']}: {line['text']}\n") == sum(
            each["text"] == line["text"] for each in lines
        )
    for what, first in (("clip_threshold/net_g", 0.05), ("learning_rate_factor", 1.0), ("loss_factor/mseloss", 1.0)):
        own = [line for line in lines if line["what"] == what]
        assert own[0]["from"] == first
        assert all(one["to"] == two["from"] for one, two in itertools.pairwise(own)), what
        assert curves[f"automation/{what}"] == pytest.approx({line["iteration"]: line["to"] for line in own})
    line = "[INFO] Automation AdaptiveGradientClipping: grad_clip_threshold adjusted from 0.05 to "
    assert re.search(re.escape(line) + r"\d+\.\d+ due to level shift\n", log)


def test_decisions_hold_from_the_next_iteration_on(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    automated["train"]["training_automations"] = everything()
    automated["logger"] |= {"print_freq": 1, "use_tb_logger": True}
    assert run_training(automated) == 0
    curves = read_scalars(folder / "tb_logger")
    for what, curve in (("learning_rate_factor", "lr/net_g"), ("loss_factor/mseloss", "loss_weight/mseloss")):
        changes = {line["iteration"]: line["to"] for line in decisions(folder) if line["what"] == what}
        usual = {"lr/net_g": 4e-3, "loss_weight/mseloss": 1.0}[curve]
        expected: dict[int, float] = {}
        factor = 1.0
        for iteration in range(3, 61):  # after warm-up
            factor = changes.get(iteration - 1, factor)
            expected[iteration] = factor * usual
        assert {at: value for at, value in curves[curve].items() if at > 2} == pytest.approx(expected), curve
        assert len(set(expected.values())) > 1
    cut = next(line for line in decisions(folder) if line["what"] == "learning_rate_factor")
    assert cut["text"] == "Suggested LR multiplier 0.80 for reason: plateau detection"
    assert (cut["from"], cut["to"]) == (1.0, 0.8)
    rates = dict(re.findall(r"\[iter (\d+)/60.* lr net_g (\S+)", log_of(folder)))
    assert (rates[str(cut["iteration"])], rates[str(cut["iteration"] + 1)]) == ("4.00e-03", "3.20e-03")


def test_clipping_takes_effect(automated: dict[str, Any], run_training: Run, tmp_path: Path) -> None:
    """Until a threshold changes the run is that of a fixed one, and then no longer."""
    automated["train"] |= {"total_iter": 40, "optim_g": {"type": "SGD", "lr": 0.1}, "grad_clip_max_norm": 0.05}
    automated["logger"]["save_checkpoint_freq"] = 1
    for name, section in (("fixed", {}), ("adaptive", {"AdaptiveGradientClipping": CLIPPING})):
        automated["train"]["training_automations"] = section
        assert run_training(automated, "--name", name) == 0
    experiments = tmp_path / "experiments"
    first = decisions(experiments / "adaptive")[0]["iteration"]
    assert same(weights(experiments / "fixed", first), weights(experiments / "adaptive", first))
    assert not same(weights(experiments / "fixed", first + 1), weights(experiments / "adaptive", first + 1))


def test_a_frequency_that_is_no_multiple_of_ten(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    clipping = {**FALLING, "monitoring_frequency": 15}
    automated["train"]["training_automations"] = {"AdaptiveGradientClipping": clipping}
    assert run_training(automated) == 0
    assert [line["iteration"] for line in decisions(folder)] == [
        20,
        30,
        50,
        60,
    ]  # first asked after 15, ...


def test_a_gan_has_a_threshold_for_each_network(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    automated["network_d"] = NET_D
    automated["train"] |= {
        "optim_d": {"type": "AdamW", "lr": 1e-3},
        "losses": [TWO_LOSSES[0], GAN],
        "training_automations": {"AdaptiveGradientClipping": FALLING},
    }
    automated["val"]["val_enabled"] = False
    automated["logger"]["use_tb_logger"] = True
    assert run_training(automated) == 0
    assert "Traceback" not in log_of(folder)
    curves = read_scalars(folder / "tb_logger")
    final: dict[str, float] = {}
    for network in ("net_g", "net_d"):
        own = [line for line in decisions(folder) if line["what"] == f"clip_threshold/{network}"]
        assert own[0]["from"] == 1000.0
        assert curves[f"automation/clip_threshold/{network}"] == pytest.approx(
            {each["iteration"]: each["to"] for each in own}
        )
        final[network] = own[-1]["to"]
    assert final["net_g"] != final["net_d"]
    assert min(each["iteration"] for each in decisions(folder) if each["what"].endswith("net_d")) >= 40  # from 20 on
    assert "grad_clip_threshold of net_d adjusted from 1000.0 to " in log_of(folder)
    assert "grad_clip_threshold adjusted from 1000.0 to " in log_of(folder)


def test_enough_adjustments_hold_the_last_value(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    sections = everything()
    sections["AdaptiveGradientClipping"] = {**FALLING, "max_adjustments": 2}
    sections["IntelligentLearningRateScheduler"]["max_adjustments"] = 1
    automated["train"] |= {"total_iter": 80, "training_automations": sections}
    automated["logger"]["use_tb_logger"] = True
    assert run_training(automated) == 0
    for name, what, most in (
        ("AdaptiveGradientClipping", "clip_threshold/net_g", 2),
        ("IntelligentLearningRateScheduler", "learning_rate_factor", 1),
    ):
        own = [line for line in decisions(folder) if line["automation"] == name]
        assert [line["what"] for line in own] == [*[what] * most, "note"]
        assert own[-1]["text"] == f"max_adjustments of {most} reached, the last value holds"
        assert sum("max_adjustments" in line and name in line for line in told(folder)) == 1
    rate = read_scalars(folder / "tb_logger")["lr/net_g"]
    assert rate[80] == pytest.approx(0.8 * 4e-3)


def test_notes_are_told_once_when_the_last_value_holds(
    automated: dict[str, Any], run_training: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes with a dropped decision is rolled back with it, and would be said again each time."""
    from traiNNer.models.player import Player

    usual = Player.gradient_norm
    norms = iter(range(1, 1000))
    monkeypatch.setattr(Player, "gradient_norm", lambda self: usual(self) * 0 + (100 if next(norms) == 35 else 1))
    clipping = {**FALLING, "max_adjustments": 0}
    automated["train"]["training_automations"] = {"AdaptiveGradientClipping": clipping}
    assert run_training(automated) == 0
    assert [line["reason"] for line in decisions(folder)] == ["exploding gradients"]


def test_a_run_that_stops_early(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    stopping = {"patience": 20, "min_improvement": 50.0, "warmup_iterations": 10}
    automated["train"]["early_stopping"] = stopping
    automated["val"] |= {"val_freq": 5, "metrics": {"ssim": {"type": "ssim"}, "psnr": {"type": "psnr"}}}
    automated["logger"] |= {"save_checkpoint_freq": 50, "use_tb_logger": True}
    assert run_training(automated) == 0
    text = "Early stopping triggered - no improvement in val/psnr for 20 iterations"
    log = log_of(folder)
    assert log.count(f"[INFO] Automation IntelligentEarlyStopping: {text}\n") == 1
    (line,) = decisions(folder)
    assert (line["iteration"], line["what"], line["to"], line["reason"]) == (30, "stop", 1, "patience")
    assert read_scalars(folder / "tb_logger")["automation/stop"] == {30: 1.0}
    assert (folder / "training_states" / "30.state").exists()
    assert not (folder / "training_states" / "35.state").exists()
    *_, done, ssim, psnr = (each.partition("[INFO] ")[2] for each in log.splitlines())
    assert re.fullmatch(r"done: 30 iterations of 60, stopped early, 0:\d\d:\d\d in this session", done)
    assert re.fullmatch(r"best val/ssim: 0\.\d{4} at iteration \d+, in net_g_best_ssim\.safetensors", ssim)
    assert re.fullmatch(r"best val/psnr: \d+\.\d{4} at iteration \d+, in net_g_best_psnr\.safetensors", psnr)
    assert (folder / "models" / "net_g_best_psnr.safetensors").exists()


def test_a_stopped_run_stops_again_and_goes_on_with_more_patience(
    automated: dict[str, Any], run_training: Run, folder: Path
) -> None:
    stopping = {"patience": 20, "min_improvement": 50.0, "warmup_iterations": 10}
    automated["train"] |= {"early_stopping": stopping, "training_automations": {"AdaptiveGradientClipping": CLIPPING}}
    automated["val"]["val_freq"] = 5
    assert run_training(automated) == 0
    before = decisions(folder), weights(folder, 30), (folder / "training_states" / "30.state").read_bytes()
    for _ in range(2):
        assert run_training(automated, "--auto_resume") == 0
        text = log_of(folder).rpartition("resumed from iteration 30 of")[2]
        assert "Early stopping triggered - no improvement in val/psnr for 20 iterations" in text
        assert "done: 30 iterations of 60, stopped early" in text
        assert "[iter" not in text
        after = decisions(folder), weights(folder, 30), (folder / "training_states" / "30.state").read_bytes()
        assert same(before, after)
    stopping["patience"] = 25
    assert run_training(automated, "--auto_resume") == 0
    stops = [line["iteration"] for line in decisions(folder) if line["what"] == "stop"]
    assert stops == [30, 35]
    text = log_of(folder).rpartition("resumed from iteration 30 of")[2]
    assert "no improvement in val/psnr for 25 iterations" in text
    stopping["enabled"] = False
    assert run_training(automated, "--auto_resume") == 0
    assert "done: 60 iterations, 0:" in log_of(folder)


def test_a_journal_that_cannot_be_written_is_no_reason_to_stop(
    automated: dict[str, Any], run_training: Run, folder: Path, tmp_path: Path
) -> None:
    automated["train"] |= {"total_iter": 30, "training_automations": {"AdaptiveGradientClipping": CLIPPING}}
    automated["logger"]["save_checkpoint_freq"] = 15
    assert run_training(automated, "--name", "usual") == 0
    automated["train"]["total_iter"] = 15
    assert run_training(automated) == 0
    (folder / "automations.jsonl").mkdir()
    automated["train"]["total_iter"] = 30
    assert run_training(automated, "--auto_resume") == 0
    log = log_of(folder)
    assert log.count("decisions are missing in") == 1
    assert "Traceback" not in log
    adjusted = [[line for line in told(each) if "adjusted" in line] for each in (folder, folder.with_name("usual"))]
    assert adjusted[0] == adjusted[1] != []
    assert same(weights(folder, 30), weights(tmp_path / "experiments" / "usual", 30))


@pytest.mark.parametrize(
    "left",
    [
        '{"iteration": 10}\n{"iteration": 30}\n{"iteration": 20}\n',
        '{"iteration": 10}\n{"iteration": 20}',
        '{"iteration": 10}\n{"iteration": 20}\n{"iteration": 20, "auto',
        '{"iteration": 10}\n{"iteration": 20}\n\x00\xff',
    ],
)
def test_what_a_killed_run_has_left_in_the_journal(tmp_path: Path, left: str) -> None:
    from traiNNer.training_automations.base import Change, Note
    from traiNNer.training_automations.journal import Journal

    file = tmp_path / "automations.jsonl"
    file.write_bytes(left.encode("latin-1"))
    journal = Journal(file, lambda values, iteration: None)
    journal.resume(20)
    journal.write("A", Note(reason="r", text="t"), [Change(what="w")], 21)
    assert [line["iteration"] for line in decisions(tmp_path)] == [10, 20, 21]


def test_a_metric_that_is_watched_may_be_of_another_set(
    automated: dict[str, Any], run_training: Run, folder: Path
) -> None:
    automated["datasets"]["val_2"] = automated["datasets"]["val"]
    stopping = {"patience": 5, "min_improvement": 50.0, "warmup_iterations": 0, "monitor_metric": "val_2/psnr"}
    automated["train"] |= {"early_stopping": stopping, "total_iter": 30}
    automated["val"]["val_freq"] = 5
    assert run_training(automated) == 0
    assert "Early stopping triggered - no improvement in val_2/psnr for 5 iterations" in log_of(folder)
    last = log_of(folder).splitlines()[-1]
    assert re.search(r"best val_2/psnr: .* in net_g_best_val_2_psnr\.safetensors$", last)
    assert (folder / "models" / "net_g_best_val_2_psnr.safetensors").exists()


def test_a_plateau_scheduler_is_not_taken_for_the_automation(
    automated: dict[str, Any], run_training: Run, folder: Path
) -> None:
    """A factor that was set in the iteration of a validation is no reduction by the scheduler."""
    automated["train"] |= {
        "scheduler": {"type": "ReduceLROnPlateau", "mode": "max", "patience": 1000},
        "training_automations": {"IntelligentLearningRateScheduler": {**RATE, "monitor_validation": False}},
    }
    automated["val"]["val_freq"] = 10
    assert run_training(automated) == 0
    assert "Suggested LR multiplier" in log_of(folder)
    assert "learning rate of net_g reduced" not in log_of(folder)


def test_the_state_has_a_bounded_size(automated: dict[str, Any], run_training: Run, folder: Path) -> None:
    from tests.runs.automated_runs import state_of

    automated["train"] |= {"total_iter": 60, "training_automations": everything()}
    automated["train"]["training_automations"] |= {"early_stopping": PATIENT, "dynamic_loss_scheduling": LOSSES}
    automated["logger"]["save_checkpoint_freq"] = 10
    assert run_training(automated) == 0
    waiting = [state_of(folder, at)["observations"]["ranks"][0]["steps"] for at in (10, 30, 60)]
    assert waiting == [[], [], []]


def test_a_misspelt_metric_is_one_mistake(automated: dict[str, Any], run_training: Run, capfd: Any) -> None:
    """The learning rate's automation takes the same metric, but nobody has written it there."""
    sections = {"early_stopping": {**PATIENT, "monitor_metric": "val/psrn"}, "IntelligentLearningRateScheduler": {}}
    automated["train"]["training_automations"] = sections
    assert run_training(automated, "--check") == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "val/psrn" in line]
    assert len(lines) == 1
    assert "early_stopping.monitor_metric: found val/psrn" in lines[0]


def test_a_loss_below_0_is_no_trend(automated: dict[str, Any], run_training: Run, capfd: Any) -> None:
    """The negative PSNR has no logarithm: the metric alone is watched, and the start says so."""
    automated["train"] |= {"losses": [{"type": "psnrloss", "loss_weight": 1.0}]}
    automated["train"]["training_automations"] = {"IntelligentLearningRateScheduler": {}}
    assert run_training(automated, "--check") == 0
    assert "IntelligentLearningRateScheduler: watches val/psnr; " in capfd.readouterr().err
