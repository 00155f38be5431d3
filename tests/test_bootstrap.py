"""The bootstrap: its decisions one by one, and the real thing on a small project whose wheel is made here."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "bootstrap.py"


def load_bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


class TestCommandLine:
    @pytest.mark.parametrize(
        ("line", "action", "arguments", "index"),
        [
            ("train", "train", [], None),
            ("train --name x --manual_seed 3", "train", ["--name", "x", "--manual_seed", "3"], None),
            ("--cpu train", "train", [], "https://download.pytorch.org/whl/cpu"),
            ("train --cpu --check", "train", ["--check"], "https://download.pytorch.org/whl/cpu"),
            ("test -k a -x", "test", ["-k", "a", "-x"], None),
            ("test --torch-index https://x/y -q", "test", ["-q"], "https://x/y"),
            ("--torch-index=https://x/y test", "test", [], "https://x/y"),
            ("-- python train.py --cpu", "run", ["python", "train.py", "--cpu"], None),
            ("--cpu -- ruff check", "run", ["ruff", "check"], "https://download.pytorch.org/whl/cpu"),
            ("test -- --cpu -- x", "test", ["--cpu", "--", "x"], None),
            ("train --help", "train", ["--help"], None),
            ("--help", "help", [], None),
            ("", "help", [], None),
            ("--", "help", [], None),
        ],
    )
    def test_is_read_and_handed_on(self, line: str, action: str, arguments: list[str], index: str | None) -> None:
        request = bootstrap.parse(line.split(), "Linux")
        assert (request.action, request.arguments, request.torch_index) == (action, arguments, index)

    @pytest.mark.parametrize("line", ["trian", "--torch-index", "--torch-index cu126 train", "--gpu train"])
    def test_says_what_is_accepted(self, line: str) -> None:
        with pytest.raises(bootstrap.BootstrapError, match="accepted") as caught:
            bootstrap.parse(line.split(), "Linux")
        assert caught.value.code == 2

    @pytest.mark.parametrize("system", ["Windows", "Darwin"])
    def test_cpu_is_the_default_wheel_where_that_has_no_cuda(self, system: str) -> None:
        assert bootstrap.parse(["--cpu", "train"], system).torch_index == "pypi"

    def test_training_needs_no_test_tools(self) -> None:
        assert bootstrap.parse(["train"], "Linux").requirements == ["requirements.txt"]
        assert bootstrap.parse(["test"], "Linux").requirements == ["requirements.txt", "requirements-dev.txt"]


class TestCommands:
    def test_train_prepares_the_photographs_and_trains_the_quickstart(self) -> None:
        first, second = bootstrap.commands(bootstrap.Request("train", ["--check"], None))
        assert first == ["python", str(Path("scripts/prepare_sample.py"))]
        assert second == ["python", "train.py", "-opt", str(Path("options/train/ParagonSR2/quickstart.yml")), "--check"]
        assert all((ROOT / file).exists() for file in (first[1], second[1], second[3]))

    def test_test_runs_pytest(self) -> None:
        assert bootstrap.commands(bootstrap.Request("test", ["-x"], None)) == [["python", "-m", "pytest", "-x"]]

    def test_anything_else_runs_as_it_is(self) -> None:
        assert bootstrap.commands(bootstrap.Request("run", ["ruff", "check"], None)) == [["ruff", "check"]]


class TestPython:
    def test_an_old_one_is_named_with_what_is_needed(self) -> None:
        text = bootstrap.unsupported((3, 9, 18), "Linux", "x86_64", True)
        assert "3.11 or newer" in text
        assert "3.9.18" in text

    @pytest.mark.parametrize("version", [(3, 11, 0), (3, 13, 1), (3, 14, 0), (4, 0, 0)])
    @pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
    def test_newer_ones_are_accepted(self, version: tuple[int, int, int], system: str) -> None:
        assert bootstrap.unsupported(version, system, "arm64", True) is None

    def test_one_that_pytorch_has_no_build_for_is_refused(self) -> None:
        assert "64-bit" in bootstrap.unsupported((3, 12, 0), "Windows", "x86", False)
        assert "Intel" in bootstrap.unsupported((3, 12, 0), "Darwin", "x86_64", True)
        assert bootstrap.unsupported((3, 12, 0), "Linux", "x86_64", True) is None

    def test_the_script_can_be_read_by_pythons_that_are_too_old(self) -> None:
        """Otherwise the user sees a syntax error in place of the message."""
        assert ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7)).body


class TestTorchBuild:
    @pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
    def test_windows_with_a_card_gets_cuda_and_linux_its_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(
            '#!/bin/sh\n[ -n "$1" ] && echo "RTX 4070, 580.1, 8.9" || echo "CUDA Version: 13.0"\n', encoding="utf-8"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert bootstrap.default_index("Windows") == "https://download.pytorch.org/whl/cu130"
        assert bootstrap.default_index("Linux") == bootstrap.default_index("Darwin") == "pypi"

    def test_windows_without_a_card_gets_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert bootstrap.default_index("Windows") == "pypi"

    def test_torch_and_torchvision_come_from_one_index(self) -> None:
        wanted = bootstrap.torch_requirements(ROOT / "requirements.txt")
        assert [word.split(">")[0] for word in wanted] == ["torch", "torchvision"]


def make_wheel(folder: Path, version: str) -> None:
    """A package `demo` of this version, installable without a network."""
    info = f"demo-{version}.dist-info"
    files = {
        "demo.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"demo-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


class Project:
    """A copy of the bootstrap with requirements of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.venv = folder, folder / ".venv"
        for file in (
            "scripts/bootstrap.py",
            "traiNNer/__init__.py",
            "traiNNer/utils/__init__.py",
            "traiNNer/utils/device_check.py",
        ):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        for version in ("1.0", "2.0"):
            make_wheel(folder, version)
        self.require("1.0")

    def require(self, version: str) -> None:
        (self.folder / "requirements.txt").write_text(f"./demo-{version}-py3-none-any.whl\n", encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "scripts/bootstrap.py", *arguments]
        variables = {**os.environ, "PIP_NO_INDEX": "1"}
        return subprocess.Popen(
            command, cwd=self.folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
            start_new_session=os.name != "nt",
        )  # fmt: skip

    def run(self, code: str) -> tuple[int, str]:
        process = self.start("--", "python", "-c", code)
        output, _ = process.communicate(timeout=100)
        return process.returncode, output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


class TestRealEnvironment:
    """In the order in which a user would meet it; the environment is shared."""

    def test_makes_the_environment_and_hands_the_exit_code_on(self, project: Project) -> None:
        code, output = project.run("import demo, sys; print('found', demo.VERSION, sys.prefix); sys.exit(7)")
        assert code == 7, output
        assert f"found 1.0 {project.venv}" in output
        assert "-m venv" in output
        assert "pip" in output

    def test_installs_nothing_the_second_time(self, project: Project) -> None:
        code, output = project.run("import demo; print(demo.VERSION)")
        assert code == 0
        assert output.count("bootstrap: running") == 1

    def test_installs_again_when_the_requirements_changed(self, project: Project) -> None:
        project.require("2.0")
        code, output = project.run("import demo; print('found', demo.VERSION)")
        assert (code, "found 2.0" in output, "-m venv" in output) == (0, True, False)

    def test_an_installation_that_pip_refused_is_tried_again(self, project: Project) -> None:
        project.require("3.0")
        code, output = project.run("print('never')")
        assert code == 1
        assert "tries it again" in output
        assert "Traceback" not in output
        project.require("2.0")
        assert project.run("import demo")[0] == 0

    def test_an_unknown_program_is_named(self, project: Project) -> None:
        process = project.start("--", "no-such-program")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 127
        assert "no-such-program" in output
        assert "Traceback" not in output

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no signal for one process alone")
    def test_an_interrupt_reaches_the_command_once(self, project: Project) -> None:
        code = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGINT, lambda *_: print(2**20, flush=True))\n"
            "print(6 * 7, flush=True)\n"
            "time.sleep(1.0); sys.exit(5)"
        )
        process = project.start("--", "python", "-c", code)
        assert process.stdout is not None
        while process.stdout.readline() != "42\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output.count("1048576")) == (5, 1)

    @pytest.mark.skipif(os.name == "nt", reason="kills a process group")
    def test_an_installation_that_was_killed_is_repaired(self, project: Project) -> None:
        project.require("1.0")
        process = project.start("--", "python", "-c", "pass")
        marker, limit = project.venv / "installing", time.monotonic() + 60
        while not marker.exists():
            assert time.monotonic() < limit
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert marker.exists()
        code, output = project.run("import demo; print('found', demo.VERSION)")
        assert (code, "found 1.0" in output, "-m venv --clear" in output) == (0, True, True)
        assert not marker.exists()
