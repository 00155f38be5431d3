"""Prepare the environment of this project and run a command in it. Needs nothing but Python 3.11 or newer.

    python scripts/bootstrap.py train             train the quickstart network on sample photographs
    python scripts/bootstrap.py test              run the tests
    python scripts/bootstrap.py -- ARGS...        run any command in the environment, such as `-- python test.py --help`

What follows `train` or `test` is handed on: `train --name second --manual_seed 3`, `test -k bootstrap`.

Options, before or after `train` and `test`, always before `--`:
    --cpu               a build of torch without CUDA (smaller on Linux)
    --torch-index URL   take torch and torchvision from this index, such as https://download.pytorch.org/whl/cu126
    --help              show this text

The environment is the folder .venv. It is made when missing, installed again only when the requirements or the build
of torch change, and made anew when an installation was interrupted. The build of torch, once chosen, is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = Path("options", "train", "ParagonSR2", "quickstart.yml")
OLDEST_PYTHON = (3, 11)
INTERRUPTED = 130


class BootstrapError(Exception):
    """Something the user can do something about, as a message and an exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Request:
    """What the command line asks for.

    Args:
        action: `train`, `test`, `run` (a command after `--`) or `help`.
        arguments: what is handed on to the command.
        torch_index: the index torch comes from, `pypi` for the default one; None when the user did not say.
    """

    def __init__(self, action: str, arguments: list[str], torch_index: str | None) -> None:
        self.action, self.arguments, self.torch_index = action, arguments, torch_index

    @property
    def requirements(self) -> list[str]:
        """The requirements files to install, in the repository's root."""
        return ["requirements.txt", "requirements-dev.txt"] if self.action == "test" else ["requirements.txt"]


def parse(arguments: list[str], system: str) -> Request:
    """Read the command line by hand: everything that is not ours is handed on as it is, in its order."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    torch_index, own = take_torch_index(arguments[:cut], system)
    command = arguments[cut + 1 :]
    if own and own[0] in ("train", "test"):
        return Request(own[0], own[1:] + command, torch_index)
    if own and own[0] not in ("-h", "--help"):
        raise BootstrapError(f"found {own[0]!r}; accepted: train, test or -- COMMAND (see --help)", 2)
    if command and not own:
        return Request("run", command, torch_index)
    return Request("help", [], None)


def take_torch_index(words: list[str], system: str) -> tuple[str | None, list[str]]:
    """The torch index that `--cpu` or `--torch-index URL` asks for, None without them, and the other words."""
    index, others, remaining = None, [], list(words)
    while remaining:
        word = remaining.pop(0)
        if word == "--cpu":
            index = cpu_index(system)
        elif word.partition("=")[0] == "--torch-index":
            index = word.partition("=")[2] or (remaining.pop(0) if remaining else "")
            if not index.startswith(("https://", "http://", "file://")):
                raise BootstrapError(f"--torch-index: found {index!r}; accepted: a URL", 2)
        else:
            others.append(word)
    return index, others


def cpu_index(system: str) -> str:
    """Where builds of torch without CUDA come from: on Windows and macOS the default wheels are such builds."""
    sys.path.insert(0, str(ROOT))
    from traiNNer.utils.device_check import TORCH_INDEX

    return TORCH_INDEX + "cpu" if system == "Linux" else "pypi"


def default_index(system: str) -> str:
    """The index whose torch fits this machine: the default wheel has CUDA on Linux, but not on Windows."""
    sys.path.insert(0, str(ROOT))
    from traiNNer.utils.device_check import TORCH_INDEX, cuda_tag, find_card

    card = find_card() if system == "Windows" else None
    tag = cuda_tag(card) if card is not None else None
    if card is not None:
        say(f"found {card.name}, driver {card.driver}: {tag or 'too old a driver for any CUDA build of torch'}")
    return TORCH_INDEX + tag if tag else "pypi"


def unsupported(version: tuple[int, ...], system: str, machine: str, wide: bool) -> str | None:
    """Why this Python cannot run the project, or None."""
    found = ".".join(map(str, version[:3]))
    if version[:2] < OLDEST_PYTHON:
        return f"Python 3.11 or newer is needed, and this is {found} ({sys.executable}); see https://www.python.org"
    if not wide:
        return f"a 64-bit Python is needed (PyTorch has no other), and this one has 32 bits ({sys.executable})"
    if system == "Darwin" and machine == "x86_64":
        return "PyTorch no longer has builds for Intel Macs (nor for an Intel Python on Apple silicon)"
    return None


class Environment:
    """The virtual environment in `.venv` and the record of what was installed into it.

    Two files tell its state: `installing` exists while pip works, `installed.json` holds the torch index and the hash
    of every requirements file whose installation came to its end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.busy, self.record = folder / "installing", folder / "installed.json"
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")

    def usable(self) -> bool:
        """Whether the environment is whole: nothing was interrupted, and the Python it was made from is still there."""
        if self.busy.exists() or not self.python.exists() or not self.record.exists():
            return False
        settings = (self.folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
        home = [line.partition("=")[2].strip() for line in settings if line.partition("=")[0].strip() == "home"]
        return bool(home) and Path(home[0]).is_dir()

    def installed(self) -> dict[str, str]:
        """What is recorded: `torch` is the index it came from, other keys are requirements files with their hashes."""
        try:
            return dict(json.loads(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def ensure(self, request: Request, system: str) -> bool:
        """Make and install what is missing; True when something was installed."""
        usable = self.usable()
        installed = self.installed() if usable else {}
        index = request.torch_index or installed.get("torch") or default_index(system)
        wanted = {name: fingerprint(ROOT / name) for name in request.requirements}
        if not usable or installed.get("torch") != index:
            self.make()
            installed = {}
        if all(installed.get(name) == value for name, value in wanted.items()):
            return False
        self.busy.touch()
        if index != "pypi":
            self.pip("install", *torch_requirements(ROOT / "requirements.txt"), "--index-url", index)
        self.pip("install", *[word for name in wanted for word in ("-r", str(ROOT / name))])
        self.record.write_text(json.dumps({**installed, **wanted, "torch": index}, indent=1) + "\n", encoding="utf-8")
        self.busy.unlink()
        return True

    def make(self) -> None:
        """A fresh, empty environment in place of whatever is there."""
        if self.folder.exists():
            say(f"{self.folder.name} is unfinished, damaged or has another build of torch: making it anew")
        run([sys.executable, "-m", "venv", "--clear", str(self.folder)])

    def pip(self, *arguments: str) -> None:
        """Run the environment's pip and show what it prints; a failure it reports itself leaves nothing half done."""
        try:
            run([str(self.python), "-m", "pip", "--disable-pip-version-check", *arguments])
        except BootstrapError:
            self.busy.unlink()
            raise

    def variables(self) -> dict[str, str]:
        """The process environment with this one's programs first.

        Torch's threads on the CPU are told to sleep while they wait for each other. By default they spin, which makes
        training up to twenty times slower as soon as anything else wants one of the cores.
        """
        path = os.pathsep.join([str(self.scripts), os.environ.get("PATH", "")])
        variables = {"OMP_WAIT_POLICY": "passive", **os.environ, "PATH": path, "VIRTUAL_ENV": str(self.folder)}
        variables.pop("PYTHONHOME", None)
        return variables

    def resolve(self, command: list[str]) -> list[str]:
        """The command with its program's full path, this environment's programs first."""
        if command[0] in ("python", "python3"):
            return [str(self.python), *command[1:]]
        program = shutil.which(command[0], path=self.variables()["PATH"])
        if program is None:
            raise BootstrapError(f"{command[0]}: no such program, in {self.scripts} or elsewhere", 127)
        return [program, *command[1:]]


def fingerprint(path: Path) -> str:
    """Hash of a requirements file's text, the same whatever its line ends."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode("utf-8")).hexdigest()


def torch_requirements(path: Path) -> list[str]:
    """The lines of a requirements file that ask for torch and torchvision."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line.startswith("torch") and not line.startswith("torchmetrics")]


def say(text: str) -> None:
    """A line of our own, marked so that it is told from the commands' output."""
    print(f"bootstrap: {text}", flush=True)


def run(command: list[str]) -> None:
    """Show a command and run it to its end."""
    say("running " + subprocess.list2cmdline(command))
    code = subprocess.run(command, cwd=str(ROOT), check=False).returncode
    if code:
        raise BootstrapError(f"that failed with exit code {code}; the next call of this script tries it again", 1)


def hand_over(command: list[str], variables: dict[str, str]) -> int:
    """Become the command, so that signals, exit code and terminal are its own; on Windows, wait for it instead."""
    say("running " + subprocess.list2cmdline(command))
    if os.name != "nt":
        os.chdir(ROOT)
        os.execve(command[0], command, variables)
    # The console sends Ctrl-C to the child as well, which ends in its own way; this process only waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.call(command, cwd=str(ROOT), env=variables)


def commands(request: Request) -> list[list[str]]:
    """What the request comes to, in order; the last one takes this process's place."""
    if request.action == "test":
        return [["python", "-m", "pytest", *request.arguments]]
    if request.action == "run":
        return [request.arguments]
    train = ["python", "train.py", "-opt", str(QUICKSTART), *request.arguments]
    return [["python", str(Path("scripts", "prepare_sample.py"))], train]


def warn_of_unusable_card(environment: Environment) -> None:
    """After an installation, say loudly if torch cannot use the machine's card; train.py says it at every start."""
    code = "from traiNNer.utils.device_check import unusable_gpu_warning as check; print(check() or '', end='')"
    result = subprocess.run(
        [str(environment.python), "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    if result.stdout:
        print(result.stdout, flush=True)


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; returns the exit code."""
    system = platform.system()
    problem = unsupported(sys.version_info[:3], system, platform.machine(), sys.maxsize > 2**32)
    if problem is not None:
        raise BootstrapError(problem)
    request = parse(arguments, system)
    if request.action == "help":
        print(__doc__)
        return 0 if arguments else 2
    environment = Environment(ROOT / ".venv")
    if environment.ensure(request, system):
        warn_of_unusable_card(environment)
    *first, last = [environment.resolve(command) for command in commands(request)]
    for command in first:
        run(command)
    return hand_over(last, environment.variables())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BootstrapError as failure:
        print(f"bootstrap: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        print("bootstrap: interrupted; the next call repairs what was left unfinished", file=sys.stderr)
        sys.exit(INTERRUPTED)
