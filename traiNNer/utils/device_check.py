"""An NVIDIA card that torch cannot use: why, and the command that repairs it.

The standard library is enough for everything but `unusable_gpu_warning`, so that `scripts/bootstrap.py` can choose a
build of torch before there is one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

TORCH_INDEX = "https://download.pytorch.org/whl/"
"""PyTorch's public index of builds; a tag such as `cpu` or `cu130` follows."""

NO_VERSION: tuple[int, int] = (0, 0)
COMMON_CAPABILITY: tuple[int, int] = (8, 0)
"""Taken for a card whose driver is too old to tell; every build of torch runs on it."""


@dataclass(frozen=True)
class Card:
    """What `nvidia-smi` says of the machine's first NVIDIA card and of its driver."""

    name: str
    driver: str
    cuda: tuple[int, int] | None = None
    """Newest CUDA version that the driver runs; None when nvidia-smi does not say."""
    capability: tuple[int, int] | None = None
    """Compute capability, such as (8, 9); None when nvidia-smi does not say."""


def find_card(timeout: float = 20.0) -> Card | None:
    """The machine's first NVIDIA card, or None where `nvidia-smi` is missing or does not answer within `timeout` s."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = _answer([program, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"], timeout)
    if not query:  # drivers before 2021 do not know compute_cap
        query = _answer([program, "--query-gpu=name,driver_version", "--format=csv,noheader"], timeout)
    return read_card(query, _answer([program], timeout)) if query else None


def _answer(command: list[str], timeout: float) -> str:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=timeout, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout if result.returncode == 0 else ""


def read_card(query: str, banner: str) -> Card | None:
    """The card in nvidia-smi's answers: `query` has `name, driver[, capability]` lines, `banner` is its table."""
    lines = [line for line in query.splitlines() if line.count(",") >= 1]
    if not lines:
        return None
    name, driver, *rest = [part.strip() for part in lines[0].split(",")]
    return Card(
        name, driver, _version(r"CUDA[\w ]*Version\s*:\s*(\d+)\.(\d+)", banner), _version(r"(\d+)\.(\d+)", *rest)
    )


def _version(pattern: str, text: str = "") -> tuple[int, int] | None:
    found = re.search(pattern, text)
    return (int(found[1]), int(found[2])) if found else None


def cuda_tag(card: Card) -> str | None:
    """Tag of the PyTorch build that runs on this card and driver (`cu130`), or None when the driver is too old for any.

    CUDA 13 builds have no kernels for cards before Turing (7.5), CUDA 12.6 builds none for Blackwell (10.0 and up).
    A driver runs every build of its own CUDA generation and of older ones. See PyTorch's RELEASE.md, "CUDA support".
    """
    cuda, capability = card.cuda or NO_VERSION, card.capability or COMMON_CAPABILITY
    if cuda >= (13, 0) and capability >= (7, 5):
        return "cu130"
    if cuda >= (12, 8) and capability >= (10, 0):
        return "cu128"
    return "cu126" if cuda >= (12, 0) and capability < (10, 0) else None


def repair(card: Card) -> str:
    """What to do so that torch can use the card."""
    tag = cuda_tag(card)
    if tag is None:
        return "update NVIDIA's driver (https://www.nvidia.com/drivers), then start again"
    return f"python scripts/bootstrap.py --torch-index {TORCH_INDEX}{tag} train"


def unusable_gpu_warning() -> str | None:
    """Why torch cannot use this machine's NVIDIA card, with the command that repairs it; None when all is well.

    Costs nothing where torch has a GPU it was built for, and a search of the PATH where there is no NVIDIA driver.
    Cards hidden on purpose (an empty `CUDA_VISIBLE_DEVICES`) are no reason to warn.
    """
    import torch

    if torch.cuda.is_available():
        return _old_or_new_card()
    if os.environ.get("CUDA_VISIBLE_DEVICES", "visible").strip() in ("", "-1") or torch.accelerator.is_available():
        return None
    card = find_card()
    if card is None:
        return None
    built_for = torch.version.cuda
    if built_for is None:
        reason = f"the installed torch {torch.__version__} is a build for the CPU"
    elif card.cuda is not None and card.cuda[0] < int(built_for.split(".")[0]):
        found = f"{card.driver} (CUDA {card.cuda[0]}.{card.cuda[1]})"
        reason = f"torch {torch.__version__} needs a driver for CUDA {built_for}, and the driver is {found}"
    else:
        reason = f"torch {torch.__version__} (CUDA {built_for}) does not see it with driver {card.driver}"
    return message(card.name, reason, repair(card))


def _old_or_new_card() -> str | None:
    import torch

    if torch.version.cuda is None:  # ROCm names its architectures otherwise
        return None
    capability = torch.cuda.get_device_capability()
    if runs_on(capability, torch.cuda.get_arch_list()):
        return None
    name = torch.cuda.get_device_name()
    reason = f"torch {torch.__version__} (CUDA {torch.version.cuda}) has no kernels for its compute capability"
    card = find_card() or Card(name, "unknown", capability=capability)
    return message(name, f"{reason} {capability[0]}.{capability[1]}", repair(card))


def runs_on(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether a build for `architectures` (`sm_86`, `compute_120`) runs on a card of this compute capability.

    Machine code (`sm_`) runs on its own and later cards of one generation, PTX (`compute_`) on every later card.
    """
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        number = re.match(r"\d+", digits)
        if number is None:
            continue
        built = (int(number[0]) // 10, int(number[0]) % 10)
        exact = digits != number[0]  # `sm_90a`: for that card only
        if built == capability or (
            built <= capability and not exact and (kind == "compute" or built[0] == capability[0])
        ):
            return True
    return not architectures


def message(name: str, reason: str, command: str) -> str:
    """The warning, loud enough to be seen in a long log."""
    rule = "!" * 100
    return f"{rule}\nThis machine has a {name}, but torch cannot use it: {reason}.\nTo repair it:  {command}\n{rule}"
