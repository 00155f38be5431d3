"""Runs that meet faults: poisoned and unreadable images, full disks, signals, kills, unexpected errors."""

from __future__ import annotations

import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Run = Callable[..., int]
ROOT = Path(__file__).resolve().parents[2]


def log_of(folder: Path) -> str:
    return (folder / "train.log").read_text(encoding="utf-8")


def finite(folder: Path) -> bool:
    files = [*folder.glob("models/*.safetensors"), *folder.glob("resume_models/*.safetensors")]
    assert files
    return all(
        bool(torch.isfinite(value).all())
        for file in files
        for value in load_file(file).values()
        if value.is_floating_point()
    )


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "tiny"


@pytest.fixture
def process(write_options: Callable[..., Path]) -> Callable[..., subprocess.Popen[str]]:
    """Starts train.py as a process of its own, in a process group of its own."""

    def start(values: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "train.py"), "-opt", str(write_options(values)), *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
        )

    return start


def wait_for(process: subprocess.Popen[str], mark: str) -> str:
    """Output up to the line with `mark`."""
    seen = []
    for line in process.stdout or ():
        seen.append(line)
        if mark in line:
            return "".join(seen)
    raise AssertionError(f"{mark!r} was never written:\n{''.join(seen)}")


def test_a_poisoned_image_costs_its_step_and_is_named(
    options: dict[str, Any], run_training: Run, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traiNNer.data.paired_image_dataset import PairedImageDataset

    real = PairedImageDataset.stored_sample

    def poisoned(self: Any, index: int, generator: Any) -> Any:
        sample = real(self, index, generator)
        if "03" in sample["lq_path"] and "val" not in sample["lq_path"]:
            sample["lq"] = torch.full(sample["lq"].shape, float("nan"))
        return sample

    monkeypatch.setattr(PairedImageDataset, "stored_sample", poisoned)
    assert run_training(options) == 0
    log = log_of(experiment)
    lines = re.findall(r"iteration (\d+): step skipped, not finite: (.*?); learning rate: (.*?); images: (.*)", log)
    assert lines
    assert all("03.png" in images and "l1loss" in terms and "net_g" in rate for _, terms, rate, images in lines)
    assert finite(experiment)
    assert "done: 8 iterations" in log


def test_ten_bad_steps_in_a_row_end_the_run(
    options: dict[str, Any],
    run_training: Run,
    experiment: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from traiNNer.data.paired_image_dataset import PairedImageDataset

    options["train"]["total_iter"] = 40
    real = PairedImageDataset.stored_sample
    seen = []

    def poisoned_later(self: Any, index: int, generator: Any) -> Any:
        sample = real(self, index, generator)
        seen.append(index)
        if len(seen) > 30:
            sample["gt"] = torch.full(sample["gt"].shape, float("inf"))
        return sample

    monkeypatch.setattr(PairedImageDataset, "stored_sample", poisoned_later)
    assert run_training(options) == 1
    message = capfd.readouterr().err
    assert "10 steps in a row were not finite" in message
    assert "10 steps in a row were not finite" in log_of(experiment)
    assert "l1loss" in message
    assert finite(experiment)


def test_an_unexpected_error_keeps_a_state_and_its_traceback(
    options: dict[str, Any], run_training: Run, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from traiNNer.models.sr_model import SRModel

    real = SRModel.optimize_parameters

    def broken(self: SRModel, current_iter: int) -> None:
        if current_iter == 6:
            raise ZeroDivisionError("a fault of the program")
        real(self, current_iter)

    monkeypatch.setattr(SRModel, "optimize_parameters", broken)
    with pytest.raises(ZeroDivisionError):
        run_training(options)
    assert len(list((experiment / "training_states").glob("*crash*"))) == 1
    assert "ZeroDivisionError: a fault of the program" in log_of(experiment)
    monkeypatch.undo()
    assert run_training(options, "--auto_resume") == 0
    assert "resumed from iteration 4 of" in log_of(experiment)  # the good one, not the crash's


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB; skipped where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_reported_and_ends_the_run_at_the_third_failure(
    options: dict[str, Any], run_training: Run, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options["path"]["experiments_root"] = str(small_disk)
    options["train"]["total_iter"] = 400
    options["logger"] |= {"save_checkpoint_freq": 1, "print_freq": 100}
    options["val"]["val_enabled"] = False
    assert run_training(options) == 1
    errors = capfd.readouterr().err
    assert "SAVE FAILED (3 of 3 in a row)" in errors
    assert "No space left" in errors
    states = sorted((small_disk / "tiny" / "training_states").iterdir(), key=lambda path: path.stem)
    assert states
    assert all(path.suffix == ".state" for path in states)
    (small_disk / "tiny" / "train.log").unlink()
    oldest = min(int(path.stem) for path in states)
    for path in small_disk.glob(f"tiny/*/*_{oldest}.safetensors"):
        path.unlink()  # room for the log
    options["train"]["total_iter"] = max(int(path.stem) for path in states)
    assert run_training(options, "--auto_resume") in (0, 1)
    assert f"resumed from iteration {options['train']['total_iter']} of" in log_of(small_disk / "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_with_0(
    options: dict[str, Any],
    process: Callable[..., subprocess.Popen[str]],
    run_training: Run,
    experiment: Path,
    number: int,
) -> None:
    options["train"]["total_iter"] = 100_000
    options["train"]["scheduler"]["T_max"] = 8
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 100_000}
    options["val"]["val_enabled"] = False
    options["datasets"]["train"]["num_worker_per_gpu"] = 2
    run = process(options)
    wait_for(run, "[iter 5/")
    os.killpg(run.pid, number)  # as a terminal does: to the loader's workers too
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 0, rest
    stopped = re.search(r"stopped by (\w+) at iteration ([\d,]+) after 0:\d\d:\d\d; resume with: (.*)", rest)
    assert stopped
    assert "Traceback" not in rest
    assert stopped[3].endswith("--auto_resume")
    iteration = int(stopped[2].replace(",", ""))
    assert [int(path.stem) for path in (experiment / "training_states").glob("*.state")] == [iteration]
    options["train"]["total_iter"] = iteration + 2
    assert run_training(options, "--auto_resume") == 0
    assert f"resumed from iteration {iteration:,} of" in log_of(experiment)


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(options: dict[str, Any], process: Callable[..., subprocess.Popen[str]]) -> None:
    options["train"]["total_iter"] = 100_000
    options["network_g"] = {"type": "paragonsr2_s"}
    options["datasets"]["train"]["batch_size_per_gpu"] = 64
    options["val"]["val_enabled"] = False
    options["logger"]["print_freq"] = 1
    run = process(options)
    wait_for(run, "[iter 1/")
    os.kill(run.pid, signal.SIGINT)
    wait_for(run, "once more to leave at once")
    os.kill(run.pid, signal.SIGINT)
    run.communicate(timeout=20)
    assert run.returncode == 128 + signal.SIGINT


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if ".tmp" in path.name]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kills_cost_at_most_the_iterations_since_the_last_save(
    options: dict[str, Any], process: Callable[..., subprocess.Popen[str]], experiment: Path
) -> None:
    """20 SIGKILLs of a run that saves every 2 iterations; at least 10 within a save."""
    options["train"]["total_iter"] = 1_000_000
    options["logger"] |= {"print_freq": 1_000_000, "save_checkpoint_freq": 2, "save_last_n": 3}
    options["val"]["val_enabled"] = False
    options["network_g"] = {"type": "ParagonSR2", "num_feat": 48, "num_groups": 2, "num_blocks": 2}
    moments = random.Random(0)
    within = 0
    newest = 0
    for attempt in range(20):
        run = process(options, "--auto_resume")
        head = wait_for(run, "saved")
        if attempt:
            resumed = re.search(r"resumed from iteration ([\d,]+) of", head)
            assert resumed, head
            assert int(resumed[1].replace(",", "")) >= newest
        time.sleep(moments.uniform(0.0, 0.4))
        if attempt % 4 != 3:  # three of four wait for a save to be under way
            deadline = time.monotonic() + 20
            while not temporary_files(experiment) and time.monotonic() < deadline:
                pass
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        within += bool(temporary_files(experiment))
        complete = [int(path.stem) for path in (experiment / "training_states").glob("*.state")]
        newest = max(complete)
    assert within >= 10
    options["train"]["total_iter"] = newest + 2
    last = process(options, "--auto_resume")
    rest = last.communicate(timeout=120)[0]
    assert last.returncode == 0, rest
    assert finite(experiment)
    assert not temporary_files(experiment)


def damaged(source: Path, target: Path, how: str) -> None:
    data = source.read_bytes()
    target.write_bytes(data[: len(data) // 2] if how == "truncated" else data)


def test_a_truncated_weights_file_is_passed_over(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    assert run_training(options) == 0
    for file in (experiment / "resume_models").glob("*_8.safetensors"):
        damaged(file, file, "truncated")
    for file in (experiment / "models").glob("*_8.safetensors"):
        damaged(file, file, "truncated")
    options["train"]["total_iter"] = 10
    assert run_training(options, "--auto_resume") == 0
    log = log_of(experiment)
    assert "resumed from iteration 4 of" in log
    assert re.search(r"8\.state.*net_g", log)


def test_damage_to_every_checkpoint_is_told(options: dict[str, Any], run_training: Run, experiment: Path) -> None:
    assert run_training(options) == 0
    for file in (experiment / "training_states").glob("*.state"):
        damaged(file, file, "truncated")
    assert run_training(options, "--auto_resume") == 0
    first = log_of(experiment).splitlines()[0]
    assert "starting fresh: auto_resume found no complete checkpoint" in first
    assert "4.state" in first
    assert "8.state" in first


def write_evil(path: Path, marker: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {marker}",))

    torch.save({"params": Evil()}, path)


def test_hostile_files_are_refused(
    options: dict[str, Any], run_training: Run, tmp_path: Path, experiment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker, evil = tmp_path / "ran", tmp_path / "evil.pth"
    write_evil(evil, marker)
    for key in ("pretrain_network_g", "resume_state"):
        changed = copy.deepcopy(options)
        changed["path"][key] = str(evil)
        assert run_training(changed) == 2
        message = capfd.readouterr().err.strip()
        assert f"path.{key}: " in message
        assert "options.yml:" in message
        assert len(message.splitlines()) == 1
    assert not marker.exists()
    assert not experiment.exists()


def test_a_state_of_traiNNer_redux_is_explained(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "1000.state"
    torch.save({"epoch": 1, "iter": 1000, "optimizers": [{}], "schedulers": [{}]}, state)
    options["path"]["resume_state"] = str(state)
    assert run_training(options) == 2
    assert "pretrain_network_g" in capfd.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(
    options: dict[str, Any], run_training: Run, experiment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_training(options) == 0
    before = sorted(experiment.rglob("*"))
    capfd.readouterr()
    options["network_g"]["num_feat"] = 16
    assert run_training(options, "--auto_resume") == 2
    message = capfd.readouterr().err
    assert "options.yml:21: network_g: " in message
    assert "net_g is another network" in message
    assert "body.0.blocks.0" in message
    assert len(message.strip().splitlines()) == 1
    assert sorted(experiment.rglob("*")) == before


def test_weights_that_do_not_fit(
    options: dict[str, Any], run_training: Run, tmp_path: Path, experiment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.safetensors"
    save_file({"conv_in.weight": torch.zeros(4, 3, 3, 3)}, wrong)
    options["path"]["pretrain_network_g"] = str(wrong)
    assert run_training(options) == 2
    message = capfd.readouterr().err
    assert "path.pretrain_network_g" in message
    assert not experiment.exists()
    options["path"]["strict_load_g"] = False
    assert run_training(options) == 0
    assert "conv_in.weight" in log_of(experiment)


def test_an_unreadable_image_is_named(
    options: dict[str, Any], run_training: Run, experiment: Path, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(photos / "lq", folder)
    file = folder / "03.png"
    data = bytearray(file.read_bytes())
    half = len(data) // 2
    data[half:] = bytes(len(data) - half)  # the header stays: no fault before the run
    file.write_bytes(bytes(data))
    options["datasets"]["train"]["dataroot_lq"] = str(folder)
    options["train"]["total_iter"] = 3  # all 8 images
    assert run_training(options) == 0
    assert re.search(r"iteration \d: replaced by another image: .*03\.png", log_of(experiment))


def test_a_second_run_in_the_same_folder_is_refused(
    options: dict[str, Any], run_training: Run, experiment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from traiNNer.utils.run_lock import RunLock

    assert run_training(options) == 0
    before = sorted(experiment.parent.rglob("*"))
    other = RunLock(experiment)
    other.take()
    capfd.readouterr()
    assert run_training(options) == 2
    assert run_training(options, "--auto_resume") == 2
    other.release()
    assert "name: " in capfd.readouterr().err
    assert sorted(experiment.parent.rglob("*")) == before
    assert run_training(options, "--auto_resume") == 0


def test_a_folder_that_cannot_be_made_is_a_message(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    options["path"]["experiments_root"] = str(tmp_path / "file")
    assert run_training(options) == 2
    message = capfd.readouterr().err
    assert "path.experiments_root: found " in message
    assert "Traceback" not in message


def test_a_folder_of_the_run_that_is_a_file_is_told_before_anything_is_written(
    options: dict[str, Any], run_training: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    options["path"]["models"] = str(tmp_path / "file" / "models")
    assert run_training(options) == 2
    message = capfd.readouterr().err.strip()
    assert f"path.models: found {tmp_path / 'file' / 'models'}, but {tmp_path / 'file'} is no folder" in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "experiments").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root's rights away")
def test_a_folder_that_may_not_be_written_to(
    options: dict[str, Any], run_training: Run, photos: Path, capfd: pytest.CaptureFixture[str], experiment: Path
) -> None:
    from traiNNer.cli import ending_with_message, parse_train
    from traiNNer.run import train

    assert run_training(options) == 0
    root = experiment.parent.parent
    for folder in (root, *root.parents[:2], photos):
        folder.chmod(0o755)
    capfd.readouterr()
    os.seteuid(12345)
    try:
        for more in ([], ["--auto_resume"], ["--name", "other"]):
            arguments = parse_train(["-opt", str(root / "options.yml"), *more])
            assert ending_with_message(lambda arguments=arguments: train(arguments)) == 2
            message = capfd.readouterr().err
            assert "options.yml:" in message
            assert "path.experiments_root: found " in message
            assert "may not be written to; accepted: a folder to write to" in message
            assert "Traceback" not in message
    finally:
        os.seteuid(0)
    assert {path.name for path in experiment.parent.iterdir()} == {".cache", "tiny"}


def test_a_network_of_other_channels_is_a_message(
    options: dict[str, Any], run_training: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    options["network_g"]["in_chans"] = 1
    assert run_training(options) == 2
    assert "accepted: 3 and 3 (RGB)" in capfd.readouterr().err
