"""One training loop for any number of players, its checkpoints and its batches."""

from pyro_gan.training.batches import Batches
from pyro_gan.training.checkpoint import CheckpointError, Stateful
from pyro_gan.training.loop import NonFiniteLoss, Player, train

__all__ = ["Batches", "CheckpointError", "NonFiniteLoss", "Player", "Stateful", "train"]
