"""Train a network: `python train.py -opt options/train/ParagonSR2/quickstart.yml`."""

import sys

from traiNNer.cli import ending_with_message, parse_train


def main() -> int:
    """Parse the command line, check everything, train; returns the exit code."""
    arguments = parse_train(sys.argv[1:])

    def program() -> int:
        from traiNNer.run import train  # torch is imported here, after the command line has been read

        return train(arguments)

    return ending_with_message(program)


if __name__ == "__main__":
    sys.exit(main())
