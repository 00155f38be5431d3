"""A second process that takes memory until it is told to stop.

python tests/automations/memory_hog.py 500       # MiB; ends when its input does
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def memory_taken(mebibytes: int) -> Generator[int]:
    """Another process holds so many MiB, in every page of them, while the block runs; its number."""
    command = [sys.executable, __file__, str(mebibytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "taken\n":
                raise RuntimeError(f"{mebibytes} MiB could not be taken")
            yield process.pid
        finally:
            process.kill()


def main() -> None:
    """Take it, say so, and wait for the end of the input."""
    held = bytearray(int(sys.argv[1]) * 2**20)
    held[::4096] = b"x" * len(range(0, len(held), 4096))  # a page that was never written takes nothing
    sys.stdout.write("taken\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
