"""How much memory a device has, and who has how much of it: as the device or the system says."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from traiNNer.utils.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """Bytes."""

    used: int
    """By all programs now, except that of this process its peak counts: `used - reserved` is what others have."""
    reserved: int
    """The most that this process has held since the reading before."""
    total: int
    """What there is; for a CPU, what this process may use."""


class MemoryReader(Protocol):
    """Reads the memory of a device."""

    def read(self) -> MemoryReading:
        """The memory now, and the peak since the reading before or `restart`."""
        ...

    def restart(self) -> None:
        """Give back what is cached and begin another peak, for instance with another batch size."""
        ...

    def describe(self) -> str:
        """The device and its limits, for the log."""
        ...


def memory_reader(device: torch.device) -> MemoryReader:
    """What reads the memory of a device. One without memory of its own (CPU, MPS) has the system's.

    Raises:
        ConfigError: this system needs a package that is not there.
    """
    if device.type in ("cuda", "xpu"):
        return AcceleratorMemory(device)
    return LinuxMemory() if sys.platform.startswith("linux") else SystemMemory()


class AcceleratorMemory:
    """A CUDA, ROCm or XPU device: the driver's figures, which count other processes, and those of torch's allocator.

    What this process holds is what the allocator has reserved, used or cached; the driver's own share of the process
    (some hundred MiB on CUDA) counts as that of others.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.accelerator.reset_peak_memory_stats(device)

    def read(self) -> MemoryReading:
        """The memory now, as the driver says."""
        free, total = torch.accelerator.get_memory_info(self._device)
        held = torch.accelerator.memory_reserved(self._device)
        reserved = max(torch.accelerator.max_memory_reserved(self._device), held)
        torch.accelerator.reset_peak_memory_stats(self._device)
        return MemoryReading(used=total - free + reserved - held, reserved=reserved, total=total)

    def restart(self) -> None:
        """Give cached blocks back to the driver (a host-device synchronization) and begin another peak."""
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(self._device)

    def describe(self) -> str:
        """Name and memory; with the package nvidia-ml-py also what the driver keeps and the power limit."""
        _, total = torch.accelerator.get_memory_info(self._device)
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else str(self._device)
        return f"{name} ({', '.join([_gib(total), *_nvml_limits(self._device)])})"


class LinuxMemory:
    """This process's resident memory against what it may use: the system's, or less by its control groups (v1 or v2).

    The peak is the kernel's (`VmHWM`), begun again by `/proc/self/clear_refs`; where a container forbids that, a peak
    is seen only while it is the highest of all, else what is held at the reading. Caches of files do not count as used.
    """

    def __init__(self, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._groups = list(_control_groups(proc / "self" / "cgroup", groups))
        self._highest = 0
        self.restart()

    def read(self) -> MemoryReading:
        """The memory now; some tenths of a millisecond."""
        status = _figures(self._proc / "self" / "status")
        held = status.get("VmRSS", 0)
        peak = max(status.get("VmHWM", 0), held)
        reserved = peak if self._reset() or peak > self._highest else held
        self._highest = max(self._highest, peak)
        total, free = self._room()
        return MemoryReading(used=max(total - free, 0) + reserved - held, reserved=reserved, total=total)

    def _room(self) -> tuple[int, int]:
        """The narrowest limit, and the least that is left under any."""
        system = _figures(self._proc / "meminfo")
        total, free = system["MemTotal"], system["MemAvailable"] + _kept_for_processors(self._proc / "zoneinfo")
        for group in self._groups:
            limit, used = group.limit_and_use()
            if limit < system["MemTotal"]:  # "no limit" is a very large one in version 1
                total, free = min(total, limit), min(free, limit - used)
        return total, free

    def _reset(self) -> bool:
        try:
            (self._proc / "self" / "clear_refs").write_text("5", encoding="ascii")
        except OSError:
            return False
        return True

    def restart(self) -> None:
        """Begin another peak; torch caches nothing here."""
        self._reset()

    def describe(self) -> str:
        """How much this process may use, and who says so."""
        total, _ = self._room()
        whole = total == _figures(self._proc / "meminfo")["MemTotal"]
        return f"memory of the system ({_gib(total)})" if whole else f"memory of the control group ({_gib(total)})"


class SystemMemory:
    """macOS and Windows, by psutil: resident memory against the system's. A peak is seen only while it is the highest.

    Raises:
        ConfigError: psutil is not installed.
    """

    def __init__(self) -> None:
        try:
            self._psutil: Any = importlib.import_module("psutil")
        except ImportError as error:
            raise ConfigError("memory cannot be read on this system without psutil: pip install psutil") from error
        self._process = self._psutil.Process()
        self._highest = 0

    def read(self) -> MemoryReading:
        """The memory now."""
        info, system = self._process.memory_info(), self._psutil.virtual_memory()
        peak = max(int(getattr(info, "peak_wset", 0)) or _lifetime_peak(), info.rss)
        reserved = peak if peak > self._highest else info.rss
        self._highest = max(self._highest, peak)
        used = system.total - system.available + reserved - info.rss
        return MemoryReading(used=used, reserved=reserved, total=system.total)

    def restart(self) -> None:
        """Nothing: these systems do not begin peaks anew."""

    def describe(self) -> str:
        """How much there is."""
        return f"memory of the system ({_gib(self._psutil.virtual_memory().total)})"


@dataclass(frozen=True)
class _ControlGroup:
    """One level of limits on memory."""

    folder: Path
    limit: str
    usage: str
    cache: str
    """What in `memory.stat` is file cache that gives way."""

    def limit_and_use(self) -> tuple[int, int]:
        """Bytes; a limit of the address space's size where there is none, or it cannot be read."""
        try:
            limit = (self.folder / self.limit).read_text(encoding="ascii").strip()
            used = int((self.folder / self.usage).read_text(encoding="ascii"))
            lines = (self.folder / "memory.stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return sys.maxsize, 0
        cache = dict(line.split() for line in lines).get(self.cache, "0")
        return sys.maxsize if limit == "max" else int(limit), max(used - int(cache), 0)


def _control_groups(listing: Path, root: Path) -> Iterator[_ControlGroup]:
    """Those that this process is in, from its own to the topmost; a container may see its own as the topmost only."""
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.strip("/")
        for level in (folder, *folder.parents):
            if not level.is_relative_to(top):
                break
            if (level / names[0]).exists():
                yield _ControlGroup(level, *names)


def _figures(file: Path) -> dict[str, int]:
    """Bytes of the lines `Name:  123 kB`."""
    lines = (line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


def _kept_for_processors(file: Path) -> int:
    """Bytes of free pages that the kernel keeps at each processor, up to an eighth of the memory; not among the free.

    What a process gave back stays there for seconds, and what another takes comes from there.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    pages = (int(line.split()[1]) for line in lines if line.startswith("              count:"))
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _lifetime_peak() -> int:
    import resource  # Windows has none, and another figure

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _nvml_limits(device: torch.device) -> list[str]:
    """What only NVML knows, for the log; nothing without the package or the driver's library."""
    if device.type != "cuda" or torch.version.hip is not None:
        return []
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        # By UUID: NVML counts physical devices, CUDA those that CUDA_VISIBLE_DEVICES leaves.
        cuda: Any = torch.cuda
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{cuda.get_device_properties(device).uuid}")
        power = nvml.nvmlDeviceGetPowerManagementLimit(handle) / 1000
        kept = nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).reserved
    except (nvml.NVMLError, AttributeError):  # a virtual device has no power limit, an old package no second version
        return []
    return [f"of which the driver keeps {_gib(kept)}", f"at most {power:.0f} W"]


def cap_allocator(device: torch.device) -> str | None:
    """On Windows and WSL, whose driver goes on in the system's memory where the device's is full: stay within the free.

    From what is free now, since other programs keep theirs. Without a cap no step would ever be out of memory; it
    would take ten times as long.

    Returns:
        A line for the log; None where the driver fails as it should.
    """
    if device.type != "cuda" or not spills():
        return None
    cuda: Any = torch.cuda
    free, total = cuda.mem_get_info(device)
    allowed = min(free + cuda.memory_reserved(device), total)
    cuda.set_per_process_memory_fraction(allowed / total, device)
    return f"memory of this process is capped at {_gib(allowed)} of {_gib(total)}, what is free at the start"


def spills() -> bool:
    """Whether this system's driver puts what does not fit on a device into the system's memory."""
    return os.name == "nt" or "microsoft" in platform.uname().release.lower()


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
