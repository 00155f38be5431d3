"""Full disks, kills, damaged and hostile files."""

from __future__ import annotations

import os
import pickle
import random
import re
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import Net, Run, files, folders_in, same

from traiNNer.utils.atomic import MARK
from traiNNer.utils.checkpoint import SaveError, find_state, latest_complete, read_state
from traiNNer.utils.errors import ConfigError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small disk can be mounted: {error}")
    yield folder
    subprocess.run(["umount", folder], check=True)


class TestFullDisk:
    @pytest.mark.parametrize("part", [0, 1, 2], ids=["net_g", "net_g_ema", "state"])
    def test_a_save_that_fails_leaves_everything_as_it_was(self, small_disk: Path, part: int) -> None:
        """The disk is full in the middle of each of the files in turn."""
        folders = folders_in(small_disk)
        run = Run(folders, features=96, save_last_n=1)
        run.step()
        run.checkpoint.save(1)
        run.checkpoint.save_best("psnr", 1.0, 1)
        before = {name: (small_disk / name).read_bytes() for name in files(small_disk)}
        saved = run.everything()
        run.step()
        names = ("models/net_g_1.safetensors", "models/net_g_ema_1.safetensors", "training_states/1.state")
        sizes = [len(before[name]) for name in names]
        filler = fill(small_disk, leave=sum(sizes[:part]) + sizes[part] // 2)
        saves = [partial(run.checkpoint.save, 2), partial(run.checkpoint.save, 1)]
        if part < 1:
            saves.append(partial(run.checkpoint.save_best, "psnr", 2.0, 2))
        if part < 2:
            saves.append(run.checkpoint.save_latest)
        for save in saves:
            with pytest.raises(SaveError, match="No space left on device"):
                save()
            assert {name: (small_disk / name).read_bytes() for name in files(small_disk) if name != "filler"} == before
        other = Run(folders, seed=1, features=96)
        other.checkpoint.load(found(folders))
        assert same(other.everything(), saved)
        filler.unlink()
        run.checkpoint.save(2)
        assert found(folders).iteration == 2

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "models").write_bytes(b"")
        run = Run(folders_in(tmp_path))
        for save in (partial(run.checkpoint.save, 1), run.checkpoint.save_latest):
            with pytest.raises(SaveError, match="models"):
                save()
        assert files(tmp_path) == ["models"]


def fill(folder: Path, leave: int) -> Path:
    filler = folder / "filler"
    status = os.statvfs(folder)
    filler.write_bytes(bytes(status.f_bavail * status.f_frsize - leave))
    return filler


def found(folders: Any) -> Any:
    point, _ = latest_complete(folders)
    if point is None:
        pytest.fail("no checkpoint found")
    return point


class WithoutAutograd(Run):
    """In a forked process autograd refuses to work once the parent has used its threads."""

    def set_gradients(self, x: torch.Tensor) -> None:
        for parameter in self.net.parameters():
            parameter.grad = torch.full_like(parameter, float(x.mean()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestKill:
    KILLS, WITHIN = 40, 15

    def test_killed_at_any_moment_the_last_finished_save_is_there(self, tmp_path: Path) -> None:
        """Processes that do nothing but save are killed; leftover temporary files show that it was within a save."""
        folders, within, last, moments = folders_in(tmp_path), 0, 0, random.Random(1)
        for kill in range(1000):
            if kill >= self.KILLS and within >= self.WITHIN:
                break
            finished = self.kill_a_saving_process(folders, saves=moments.randrange(3), delay=moments.uniform(0, 0.06))
            within += any(name.endswith(MARK) for name in files(tmp_path))
            point, passed_over = latest_complete(folders)
            assert passed_over == []  # a set whose state is there is complete
            if finished:
                last = finished
            if last:
                assert point is not None
                assert point.iteration in (last, last + 1)
                last = point.iteration
                run = Run(folders, seed=1)
                run.checkpoint.load(point)
                assert run.counter.values["count"] == point.iteration
        assert within >= self.WITHIN
        assert last > self.KILLS / 2
        Run(folders).checkpoint.save(10_000)
        names = re.compile(r"models/net_g(_ema)?_\d+\.safetensors|resume_models/net_g_\d+\.safetensors|.*/\d+\.state")
        assert [name for name in files(tmp_path) if not names.fullmatch(name)] == []

    @staticmethod
    def kill_a_saving_process(folders: Any, saves: int, delay: float) -> int:
        """Wait for some saves and seconds before the kill; returns the last iteration reported as saved, or 0."""
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            run = WithoutAutograd(folders, save_last_n=2)
            point, _ = latest_complete(folders)
            if point is not None:
                run.checkpoint.load(point)
            iteration = run.counter.values["count"]
            os.write(writer, b"ready\n")
            while True:
                run.step()
                iteration += 1
                run.checkpoint.save(iteration)
                os.write(writer, f"{iteration}\n".encode())
        os.close(writer)
        with os.fdopen(reader) as reports:
            lines = [reports.readline() for _ in range(1 + saves)]
            time.sleep(delay)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            lines += reports.readlines()
        assert lines[0] == "ready\n"
        return int(["0", *lines[1:]][-1])


class TestDamage:
    @pytest.fixture
    def two(self, tmp_path: Path) -> Run:
        run = Run(folders_in(tmp_path), ema=True)
        for iteration in (1, 2):
            run.step()
            run.checkpoint.save(iteration)
        return run

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("models/net_g_ema_2.safetensors", "net_g_ema_2.safetensors"),
            ("resume_models/net_g_2.safetensors", "net_g_2.safetensors"),
            ("training_states/2.state", "2.state"),
        ],
    )
    @pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
    def test_a_damaged_file_is_passed_over_and_named(
        self, tmp_path: Path, two: Run, name: str, reason: str, damage: str
    ) -> None:
        path = tmp_path / name
        data = bytearray(path.read_bytes())
        if damage == "flipped":
            data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "flipped" else data[: len(data) // 2 if damage == "truncated" else 0])
        point, passed_over = latest_complete(folders_in(tmp_path))
        assert point is not None
        assert point.iteration == 1
        assert list(point.passed_over) == passed_over
        assert len(passed_over) == 1
        assert passed_over[0].startswith("checkpoint 2 passed over: ")
        assert reason in passed_over[0]
        assert two.checkpoint.load(point) == passed_over

    def test_a_missing_file_is_passed_over(self, tmp_path: Path, two: Run) -> None:
        (tmp_path / "resume_models" / "net_g_2.safetensors").unlink()
        assert found(folders_in(tmp_path)).iteration == 1
        with pytest.raises(ConfigError, match=r"incomplete: .*net_g_2.safetensors is missing"):
            find_state(tmp_path / "training_states" / "2.state", folders_in(tmp_path))

    def test_any_flipped_byte_of_a_state_is_noticed_or_does_not_matter(self, tmp_path: Path, two: Run) -> None:
        path = tmp_path / "training_states" / "2.state"
        expected, data = read_state(path), path.read_bytes()
        noticed, bits = 0, random.Random(1)
        directory = len(data) - 2500  # names, sizes and checksums of the records are at the end
        for position in [*range(0, directory, 97), *range(directory, len(data), 5)]:
            flipped = bytearray(data)
            flipped[position] ^= 1 << bits.randrange(8)
            path.write_bytes(flipped)
            try:
                assert same(read_state(path), expected), position
            except ConfigError:
                noticed += 1
        assert noticed > 50

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", bytes(1000), b"\x80\x02}q\x00."])
    def test_files_that_are_none(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "1.state"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=str(path)):
            read_state(path)

    def test_archives_that_are_none(self, tmp_path: Path) -> None:
        path = tmp_path / "1.state"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("something", "else")
        with pytest.raises(ConfigError, match="damaged"):
            read_state(path)
        torch.save(Net().state_dict(), path)
        with pytest.raises(ConfigError, match="not a training state"):
            read_state(path)
        for absent in (tmp_path / "absent.state", tmp_path):
            with pytest.raises(ConfigError, match="found no such file"):
                read_state(absent)


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"echo ran > {self.mark}",)


class TestForeign:
    @pytest.mark.parametrize("form", ["torch", "torch without zip", "pickle"])
    def test_a_state_that_would_run_code_is_refused(self, tmp_path: Path, form: str) -> None:
        folders, mark = folders_in(tmp_path), tmp_path / "mark"
        Run(folders).checkpoint.save(1)
        path = folders.training_states / "2.state"
        content = {"format_version": 1, "iteration": 2, "files": [], "objects": {"a": Hostile(mark)}}
        if form == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
        with pytest.raises(ConfigError, match=r"refused: it would run code \((posix|nt|os)\.system\)"):
            read_state(path)
        point, passed_over = latest_complete(folders)
        assert point is not None
        assert point.iteration == 1
        assert "refused" in passed_over[0]
        assert not mark.exists()
        pickle.loads(pickle.dumps(Hostile(mark)))
        assert mark.exists()  # it would have

    @pytest.mark.parametrize("with_objects", [False, True])
    def test_a_state_of_trainner_redux_is_recognised(self, tmp_path: Path, with_objects: bool) -> None:
        net = Net()
        optimizer = torch.optim.AdamW(net.parameters())
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])
        state: dict[str, Any] = {
            "epoch": 0,
            "iter": 5,
            "optimizers": [optimizer.state_dict()],
            "schedulers": [scheduler.state_dict()],
        }
        if with_objects:
            state["schedulers"] = [Path("an object")]
        torch.save(state, tmp_path / "5.state")
        with pytest.raises(ConfigError) as refused:
            find_state(tmp_path / "5.state", folders_in(tmp_path))
        assert "its weights load, the optimizer's state does not; use path.pretrain_network_g" in str(refused.value)
