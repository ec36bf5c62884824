"""Replay buffer: the steps a run has seen, and the batches it trains on.

Paper: "Mastering diverse control tasks through world models"
(arXiv 2301.04104v2), the replay buffer part of the methods. Everything here
is NumPy on the host; nothing here imports JAX.

Read in this order:

  ring.py    arrays that hold the newest steps of every environment
  guard.py   drawn batches stay intact until they are gathered
  online.py  windows of new steps, to be drawn first
  replay.py  sampling, gathering batches, writing latents back
  memory.py  bytes per step, and whether a buffer fits in RAM

and of what lies on disk:

  background.py  a thread that writes what another copied
  files.py       arrays in files, whole or absent, with checksums
  disk.py        chunk files, so that a save costs what is new
  manifest.py    what a checkpoint says of a replay, checked
"""

from dreamer.replay.disk import collect_garbage
from dreamer.replay.files import Damaged
from dreamer.replay.guard import Positions
from dreamer.replay.manifest import listed
from dreamer.replay.memory import (
    available_ram,
    bytes_per_step,
    fits_in_ram,
)
from dreamer.replay.replay import Replay
from dreamer.replay.ring import Spec

__all__ = [
    "Damaged",
    "Positions",
    "Replay",
    "Spec",
    "available_ram",
    "bytes_per_step",
    "collect_garbage",
    "fits_in_ram",
    "listed",
]
