"""Readings of memory: the real ones of this machine, and the arithmetic of those that it has not got."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.automations.memory_hog import memory_taken
from traiNNer.utils import memory
from traiNNer.utils.errors import ConfigError
from traiNNer.utils.memory import AcceleratorMemory, LinuxMemory, SystemMemory, cap_allocator, memory_reader

MIB, GIB = 2**20, 2**30
CPU = torch.device("cpu")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


def near(difference: float, mebibytes: float = 0, tolerance: float = 40) -> bool:
    return abs(difference / MIB - mebibytes) < tolerance


@linux
def test_a_peak_is_seen_once() -> None:
    """What was given back between two readings is in the second and not in the third."""
    reader = memory_reader(CPU)
    before = reader.read()
    assert before.reserved >= psutil.Process().memory_info().rss - 20 * MIB
    passing = torch.ones(200 * MIB // 4)
    del passing
    peak, after = reader.read(), reader.read()
    assert near(peak.reserved - after.reserved, 200)
    assert near(peak.used - peak.reserved - after.used + after.reserved, 0, 300)  # others go on meanwhile
    lasting = torch.ones(200 * MIB // 4)
    assert near(reader.read().reserved - after.reserved, 200)
    assert near(reader.read().reserved - after.reserved, 200)
    del lasting
    reader.restart()
    assert near(reader.read().reserved - after.reserved)


@linux
def test_another_process_is_seen_and_is_not_ours() -> None:
    reader = memory_reader(CPU)
    rises, falls = [], []
    for _ in range(3):  # what else runs on this machine comes and goes too
        before = reader.read()
        with memory_taken(500):
            during = reader.read()
        after = reader.read()
        assert near(during.reserved - before.reserved)
        rises.append(during.used - before.used)
        falls.append(during.used - after.used)
    assert near(sorted(rises)[1], 500, 250)
    assert near(sorted(falls)[1], 500, 250)


@linux
def test_the_system_is_the_limit_where_no_control_group_is() -> None:
    reading = memory_reader(CPU).read()
    assert reading.total <= psutil.virtual_memory().total
    assert reading.reserved <= reading.used <= reading.total


def files(root: Path, contents: dict[str, Any]) -> None:
    for name, content in contents.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(content))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A process that holds 100 MiB and held 300, in a system of 8 GiB of which 6 are free."""
    files(
        tmp_path / "proc",
        {
            "meminfo": f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {6 * GIB // 1024} kB\nHugePages_Total: 0\n",
            "self/status": f"Name:\tpython\nVmHWM:\t{300 * 1024} kB\nVmRSS:\t{100 * 1024} kB\n",
            "zoneinfo": "Node 0, zone Normal\n  pages free 9\n    cpu: 0\n              count:    0\n",
            "self/cgroup": "0::/job/step\n4:memory:/old\n3:cpuset:/\n",
        },
    )
    return tmp_path / "proc"


def group(limit: Any, used: int, cache: int) -> dict[str, Any]:
    stat = f"anon 1\ninactive_file {cache}\n"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def test_the_narrowest_control_group_is_the_limit(proc: Path, tmp_path: Path) -> None:
    root = tmp_path / "groups"
    files(root / "job" / "step", group("max", 9 * MIB, 0))
    files(root / "job", group(2 * GIB, 1200 * MIB, 200 * MIB))  # what files' caches hold is free
    reader = LinuxMemory(proc, root)
    reading = reader.read()
    assert reading.total == 2 * GIB
    assert reading.reserved == 300 * MIB
    assert reading.used == 1000 * MIB + 200 * MIB  # 1000 now, and 200 more at the peak
    assert reader.describe() == "memory of the control group (2.0 GiB)"
    files(proc, {"meminfo": f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {512 * 1024} kB\n"})
    assert reader.read().used == 2 * GIB - 512 * MIB + 200 * MIB  # the system has less left than the group


def test_control_groups_of_the_first_version(proc: Path, tmp_path: Path) -> None:
    root = tmp_path / "groups"
    stat = f"inactive_file 5\ntotal_inactive_file {100 * MIB}\n"
    limits = {"memory.limit_in_bytes": GIB, "memory.usage_in_bytes": 500 * MIB, "memory.stat": stat}
    files(root / "memory" / "old", limits)
    files(root / "memory", {**limits, "memory.limit_in_bytes": 9223372036854771712})
    reading = LinuxMemory(proc, root).read()
    assert (reading.total, reading.used) == (GIB, 400 * MIB + 200 * MIB)


def test_without_control_groups_the_system_counts(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").unlink()
    reader = LinuxMemory(proc, tmp_path / "none")
    assert (reader.read().total, reader.read().used) == (8 * GIB, 2 * GIB + 200 * MIB)
    assert reader.describe() == "memory of the system (8.0 GiB)"


def test_pages_that_wait_at_a_processor_are_free(proc: Path, tmp_path: Path) -> None:
    pages = 256 * MIB // os.sysconf("SC_PAGE_SIZE")
    line = f"              count:    {pages}\n              high:     1444\n"
    files(proc, {"zoneinfo": f"  pagesets\n    cpu: 0\n{line}    cpu: 1\n{line}"})
    assert LinuxMemory(proc, tmp_path / "none").read().used == 2 * GIB + (200 - 512) * MIB


def test_where_peaks_cannot_begin_anew_one_is_seen_once(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "clear_refs").mkdir()  # writing fails, as without permission
    reader = LinuxMemory(proc, tmp_path)
    assert [reader.read().reserved // MIB for _ in range(3)] == [300, 100, 100]
    files(proc, {"self/status": f"VmHWM:\t{400 * 1024} kB\nVmRSS:\t{100 * 1024} kB\n"})
    assert [reader.read().reserved // MIB for _ in range(2)] == [400, 100]


def test_psutil_reads_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(memory, "_lifetime_peak", lambda: 0)
    reader = memory_reader(torch.device("mps"))
    assert isinstance(reader, SystemMemory)
    reading = reader.read()
    assert near(reading.reserved - psutil.Process().memory_info().rss)
    assert reading.total == psutil.virtual_memory().total
    assert "memory of the system" in reader.describe()
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ConfigError, match="pip install psutil"):
        memory_reader(CPU)


# --- accelerators, whose figures are stood in for


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """An accelerator's figures."""
    figures = {"free": 10 * GIB, "total": 24 * GIB, "held": 5 * GIB, "peak": 7 * GIB}

    def reset(_: Any) -> None:
        figures["peak"] = figures["held"]

    accelerator = torch.accelerator
    monkeypatch.setattr(accelerator, "get_memory_info", lambda _: (figures["free"], figures["total"]))
    monkeypatch.setattr(accelerator, "memory_reserved", lambda _: figures["held"])
    monkeypatch.setattr(accelerator, "max_memory_reserved", lambda _: figures["peak"])
    monkeypatch.setattr(accelerator, "reset_peak_memory_stats", reset)
    return figures


def test_an_accelerator_counts_others_and_our_peak(card: dict[str, int]) -> None:
    reader = memory_reader(torch.device("cuda", 0))
    assert isinstance(reader, AcceleratorMemory)
    card["peak"] = 7 * GIB
    reading = reader.read()
    assert (reading.used, reading.reserved, reading.total) == (16 * GIB, 7 * GIB, 24 * GIB)
    reading = reader.read()
    assert (reading.used, reading.reserved) == (14 * GIB, 5 * GIB)
    card["free"] -= 3 * GIB  # another program
    assert reader.read().used == 17 * GIB


def test_limits_are_named_where_nvml_is_there(monkeypatch: pytest.MonkeyPatch, card: dict[str, int]) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="12-34"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert memory_reader(device).describe() == "Some GPU (24.0 GiB)"

    class Missing(Exception):  # noqa: N818
        pass

    def fail(_: Any) -> None:
        raise Missing

    nvml: Any = types.SimpleNamespace(
        NVMLError=Missing,
        nvmlMemory_v2=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetPowerManagementLimit=lambda handle: 170_000 if handle == "GPU-12-34" else 0,
        nvmlDeviceGetMemoryInfo=lambda handle, version: types.SimpleNamespace(reserved=GIB // 2),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    expected = "Some GPU (24.0 GiB, of which the driver keeps 0.5 GiB, at most 170 W)"
    assert memory_reader(device).describe() == expected
    nvml.nvmlDeviceGetHandleByUUID = fail
    assert memory_reader(device).describe() == "Some GPU (24.0 GiB)"


def test_the_allocator_is_capped_at_what_is_free_where_the_driver_would_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: GIB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda fraction, _: fractions.append(fraction))
    device = torch.device("cuda", 0)
    assert cap_allocator(CPU) is None
    monkeypatch.setattr(memory, "spills", lambda: False)
    assert cap_allocator(device) is None
    monkeypatch.setattr(memory, "spills", lambda: True)
    line = cap_allocator(device)
    assert line == "memory of this process is capped at 6.0 GiB of 8.0 GiB, what is free at the start"
    assert fractions == [0.75]


def test_windows_and_wsl_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    release = types.SimpleNamespace(release="6.6.87-generic")
    monkeypatch.setattr(memory.platform, "uname", lambda: release)
    assert memory.spills() is (os.name == "nt")
    release.release = "5.15.153.1-microsoft-standard-WSL2"
    assert memory.spills()


@pytest.mark.gpu
def test_an_accelerator_sees_what_is_allocated() -> None:
    device = torch.accelerator.current_accelerator()
    assert device is not None
    reader = memory_reader(device)
    before = reader.read()
    passing = torch.ones(512 * MIB // 4, device=device)
    del passing
    reader.restart()
    passing = torch.ones(512 * MIB // 4, device=device)
    assert near(reader.read().reserved - before.reserved, 512)
    del passing
    reader.restart()
    assert near(reader.read().reserved - before.reserved)
    assert reader.read().total > 2**30
    assert "GiB" in reader.describe()
