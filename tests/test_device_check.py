"""An NVIDIA card that torch cannot use: what is found, what is said, which command is offered."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from traiNNer.utils.device_check import (
    Card,
    cuda_tag,
    find_card,
    message,
    read_card,
    repair,
    runs_on,
    unusable_gpu_warning,
)

BANNER = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 572.16                 Driver Version: 572.16         CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
"""

posix = pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
no_gpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="torch can use this machine's accelerator")


def put_nvidia_smi(folder: Path, query: str, banner: str) -> None:
    """A program named nvidia-smi that answers as the driver's does."""
    program = folder / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\nif [ -n "$1" ]; then\ncat <<E\n{query}\nE\nelse\ncat <<E\n{banner}\nE\nfi\n', encoding="utf-8"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_reads_what_nvidia_smi_says() -> None:
    card = read_card("NVIDIA GeForce RTX 4070 Ti, 572.16, 8.9\nNVIDIA GeForce GT 1030, 572.16, 6.1\n", BANNER)
    assert card == Card("NVIDIA GeForce RTX 4070 Ti", "572.16", (12, 8), (8, 9))


@pytest.mark.parametrize("words", ["CUDA Version: 13.0", "CUDA Version : 13.0", "CUDA UMD Version: 13.0"])
def test_reads_every_spelling_of_the_cuda_version(words: str) -> None:
    card = read_card("A, 580.65", f"| NVIDIA-SMI 580.65  Driver Version: 580.65  {words} |")
    assert card == Card("A", "580.65", (13, 0), None)


@pytest.mark.parametrize("query", ["", "No devices were found\n", "Unable to determine the device handle\n"])
def test_an_answer_without_a_card_is_no_card(query: str) -> None:
    assert read_card(query, BANNER) is None


@pytest.mark.parametrize(
    ("cuda", "capability", "tag"),
    [
        ((13, 2), (8, 9), "cu130"),
        ((13, 0), (12, 0), "cu130"),
        ((13, 0), (7, 5), "cu130"),
        ((13, 0), (6, 1), "cu126"),  # Pascal: CUDA 13 builds have no kernels for it
        ((13, 0), (7, 0), "cu126"),
        ((12, 8), (12, 0), "cu128"),  # Blackwell: CUDA 12.6 builds have no kernels for it
        ((12, 8), (8, 6), "cu126"),
        ((12, 2), (8, 6), "cu126"),
        ((12, 4), (12, 0), None),
        ((11, 8), (8, 6), None),
        ((13, 0), None, "cu130"),
        (None, None, None),
    ],
)
def test_the_build_fits_card_and_driver(
    cuda: tuple[int, int] | None, capability: tuple[int, int] | None, tag: str | None
) -> None:
    assert cuda_tag(Card("A", "1", cuda, capability)) == tag


def test_the_repair_is_a_command_or_a_new_driver() -> None:
    command = "python scripts/bootstrap.py --torch-index https://download.pytorch.org/whl/cu130 train"
    assert repair(Card("A", "580.65", (13, 0), (8, 9))) == command
    assert "driver" in repair(Card("A", "450.1", (11, 0), (7, 5)))


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 9), ["sm_75", "sm_80", "sm_86", "sm_90"], True),  # 8.6 machine code runs on 8.9
        ((6, 1), ["sm_75", "sm_80", "sm_86", "sm_90"], False),
        ((12, 0), ["sm_75", "sm_80", "sm_86", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),  # PTX is compiled for later cards
        ((12, 0), ["sm_80", "sm_90a", "compute_90a"], False),  # `a`: for 9.0 alone
        ((9, 0), ["sm_90a"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 1), ["sm_120"], True),
        ((8, 6), [], True),  # a build that does not say
    ],
)
def test_kernels_run_on_their_own_and_later_cards(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert runs_on(capability, architectures) is runs


def test_the_message_names_card_reason_and_command() -> None:
    text = message("RTX 4070", "the installed torch is a build for the CPU", "python x")
    assert "RTX 4070" in text
    assert "build for the CPU" in text
    assert "python x" in text
    assert text.startswith("!!!!")


@posix
def test_finds_the_card_through_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_nvidia_smi(tmp_path, "NVIDIA RTX A6000, 550.54, 8.6", BANNER)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_card() == Card("NVIDIA RTX A6000", "550.54", (12, 8), (8, 6))


@posix
def test_a_driver_that_fails_or_hangs_is_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for script in ("#!/bin/sh\necho Broken, 1.0, 8.0\nexit 9\n", "#!/bin/sh\nexec sleep 20\n"):
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)
        assert find_card(timeout=0.5) is None


@posix
@no_gpu
def test_warns_of_a_card_that_torch_does_not_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    put_nvidia_smi(tmp_path, "NVIDIA GeForce RTX 4070, 535.1, 8.9", BANNER.replace("12.8", "12.2"))
    text = unusable_gpu_warning()
    assert text is not None
    assert "NVIDIA GeForce RTX 4070" in text
    assert "--torch-index https://download.pytorch.org/whl/cu126" in text
    reason = "build for the CPU" if torch.version.cuda is None else f"needs a driver for CUDA {torch.version.cuda}"
    assert reason in text


@posix
@no_gpu
def test_a_card_hidden_on_purpose_is_no_reason_to_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    put_nvidia_smi(tmp_path, "NVIDIA GeForce RTX 4070, 572.16, 8.9", BANNER)
    assert unusable_gpu_warning() is None


@no_gpu
def test_a_machine_without_a_card_gets_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unusable_gpu_warning() is None


@pytest.mark.gpu
def test_a_gpu_that_torch_uses_gets_no_warning() -> None:
    assert unusable_gpu_warning() is None


def test_choosing_a_build_needs_the_standard_library_only() -> None:
    """The bootstrap asks before anything is installed: `-S -I` runs without site-packages."""
    root = Path(__file__).resolve().parent.parent
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); from traiNNer.utils.device_check import find_card; find_card()"
    )
    done = subprocess.run([sys.executable, "-S", "-I", "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
