"""One training step: networks, losses and the arithmetic of an update. Networks are in archs, the loop is in trainer.py."""
