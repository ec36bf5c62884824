"""Replay buffer: the steps a run has seen, and the batches it trains on.

Paper: "Mastering diverse control tasks through world models"
(arXiv 2301.04104v2), the replay buffer part of the methods. Everything here
is NumPy on the host; nothing here imports JAX.

Read in this order:

  ring.py    arrays that hold the newest steps of every environment
  guard.py   drawn batches stay intact until they are gathered
  replay.py  sampling, gathering batches, writing latents back
  disk.py    chunk files and checksums, so that a save costs what is new
  memory.py  bytes per step, and whether a buffer fits in RAM
"""

from dreamer.replay.disk import collect_garbage
from dreamer.replay.guard import Positions
from dreamer.replay.memory import (
    available_ram,
    bytes_per_step,
    fits_in_ram,
    required_ram,
)
from dreamer.replay.replay import Replay
from dreamer.replay.ring import Spec

__all__ = [
    "Positions",
    "Replay",
    "Spec",
    "available_ram",
    "bytes_per_step",
    "collect_garbage",
    "fits_in_ram",
    "required_ram",
]
