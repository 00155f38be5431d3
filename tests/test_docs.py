"""The pages that are generated from the program are those of this program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_reference_pages_are_current() -> None:
    """In a process of its own: other tests register components."""
    command = [sys.executable, "scripts/option_reference.py", "--check"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
