"""What changes a training while it runs: state machines that observe and decide; a manager does it."""
