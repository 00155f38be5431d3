"""Test a network: `python test.py -opt options/test/my.yml` validates or upscales the test sets of an option file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from traiNNer.cli import ending_with_message


def parse(argv: Sequence[str]) -> Path:
    """Read the command line; wrong use ends with exit code 2, as argparse does it."""
    parser = argparse.ArgumentParser(
        prog="test.py",
        description="Run a network on the test sets of an option file. With ground truth it is measured against it and "
        "against bicubic enlargement; without, images are upscaled. Results are in results/<name>/.",
        epilog="Example: python test.py -opt options/test/my.yml",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="option file (YAML); the same as -opt FILE")
    parser.add_argument("-opt", "--opt", type=Path, metavar="FILE", help="option file (YAML). Example: -opt my.yml")
    found = parser.parse_args(argv)
    if (found.opt is None) == (found.file is None):
        parser.error("give the option file once: test.py -opt FILE, or test.py FILE")
    return found.opt or found.file


def main() -> int:
    """Parse the command line, check everything, run; returns the exit code."""
    option_file = parse(sys.argv[1:])

    def program() -> int:
        from traiNNer.evaluation import evaluate  # torch is imported here, after the command line has been read

        return evaluate(option_file)

    return ending_with_message(program)


if __name__ == "__main__":
    sys.exit(main())
