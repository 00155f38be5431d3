"""One training step: networks with their optimizers, losses, EMA. Networks are in archs, the loop is in trainer.py."""
