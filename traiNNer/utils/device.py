"""What the machine offers: device, precision, determinism. Resolved once, before anything is built."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from traiNNer.utils.errors import ConfigError, Problem


@dataclass(frozen=True)
class Precision:
    """The resolved precision of a run; everything else follows from it, not from what was asked for."""

    autocast_dtype: torch.dtype | None = None
    """float16, bfloat16, or None for float32 throughout."""

    @property
    def scales_loss(self) -> bool:
        """Whether gradients could underflow, so that the loss is scaled (float16 only)."""
        return self.autocast_dtype is torch.float16

    def __str__(self) -> str:
        return {torch.float16: "fp16 (mixed)", torch.bfloat16: "bf16 (mixed)"}.get(self.autocast_dtype, "fp32")  # type: ignore[arg-type]


def resolve_device(num_gpu: int | str, local_rank: int, world_size: int) -> tuple[torch.device, list[str]]:
    """The device of this process, with notices for the log.

    Raises:
        ConfigError: more devices are asked for than there are, or several for one process.
    """
    available = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if isinstance(num_gpu, int) and num_gpu > max(available, 1):
        raise ConfigError(
            Problem(
                key="num_gpu", message=f"found {num_gpu}; accepted: at most {available}, which is what this machine has"
            )
        )
    if isinstance(num_gpu, int) and num_gpu > 1 and world_size == 1:
        command = f"torchrun --nproc_per_node={num_gpu} train.py -opt FILE --launcher pytorch"
        raise ConfigError(
            Problem(key="num_gpu", message=f"found {num_gpu} for one process; several GPUs need: {command}")
        )
    if num_gpu == 0:
        return torch.device("cpu"), []
    if available == 0:
        return torch.device("cpu"), ["no accelerator found: training on the CPU (num_gpu: 0 asks for that)"]
    kind = torch.accelerator.current_accelerator()
    if kind is None or local_rank >= available:
        raise ConfigError(
            Problem(
                key="num_gpu",
                message=f"process {local_rank} of this machine has no GPU; accepted: at most {available} processes",
            )
        )
    notices: list[str] = []
    if available > 1 and world_size == 1 and num_gpu == "auto":
        command = f"torchrun --nproc_per_node={available} train.py -opt FILE --launcher pytorch"
        notices.append(f"{available} GPUs found, one is used; all of them: {command}")
    return torch.device(kind.type, local_rank), notices


def resolve_precision(
    device: torch.device, *, use_amp: bool, amp_bf16: bool, supports_half: bool = True, supports_bfloat16: bool = True
) -> tuple[Precision, list[str]]:
    """Mixed precision as device and network can, else off with a notice.

    bfloat16 is preferred when asked for and falls back to float16; float16 falls back to bfloat16 (a network that
    overflows in half precision), then to float32.
    """
    if not use_amp:
        return Precision(), ["amp_bf16 has no effect without use_amp"] if amp_bf16 else []
    half = supports_half and device.type in ("cuda", "xpu", "mps")
    bfloat16 = supports_bfloat16 and _device_has_bfloat16(device)
    wanted = torch.bfloat16 if amp_bf16 else torch.float16
    order = [torch.bfloat16, torch.float16] if amp_bf16 else [torch.float16, torch.bfloat16]
    if device.type == "cpu" and not amp_bf16:
        order = [torch.float16]
    can = {torch.float16: half, torch.bfloat16: bfloat16}
    chosen = next((dtype for dtype in order if can[dtype]), None)
    if chosen is wanted:
        return Precision(chosen), []
    reason = (
        f"{_short(wanted)} is not usable with this {'network' if device.type != 'cpu' else 'device'} ({device.type})"
    )
    return Precision(chosen), [f"use_amp: {reason}; training in {Precision(chosen)}"]


def _short(dtype: torch.dtype) -> str:
    return "bf16" if dtype is torch.bfloat16 else "fp16"


def _device_has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type in ("cpu", "xpu", "mps")


def configure_backends(device: torch.device, *, deterministic: bool, fast_matmul: bool) -> None:
    """Process-wide switches of torch.

    `deterministic` chooses deterministic kernels and refuses operations that have none; `fast_matmul` allows TF32.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_float32_matmul_precision("high" if fast_matmul else "highest")
    torch.backends.cudnn.allow_tf32 = fast_matmul
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call imports torch's compiler, seconds
        torch.use_deterministic_algorithms(deterministic)
    if deterministic and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def describe_device(device: torch.device) -> str:
    """The device as the start-up table names it."""
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return f"{torch.cuda.get_device_name(device)} ({total / 2**30:.0f} GiB)"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def compile_obstacle(device: torch.device) -> str | None:
    """Why `torch.compile` cannot work here (no Triton, no C++ compiler), or None."""
    import importlib.util
    import shutil

    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "Triton is not installed"
    compilers = ("cl",) if os.name == "nt" else (os.environ.get("CXX", "g++"), "clang++")
    return None if any(shutil.which(compiler) for compiler in compilers) else "no C++ compiler was found"
