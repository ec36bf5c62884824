"""Environments, on NumPy alone: they run in workers that never load JAX.

`games.py` names the Atari games, `atari.py` is one Atari game as the paper
preprocesses it, on `emulator.py` and `screen.py`, `gym.py` adapts any
Gymnasium environment with `convert.py`, also of modules that `modules.py`
imports. `make.py` builds those of a task, `vector.py` steps several of them
side by side: `pool.py` replaces those that fail, `workers.py` runs them and
talks to them through `channel.py`, `host.py` is one of them seen from there.
`blob.py` is what a saved one is; `watched.py` adds pictures for people. Begin
with `make.py`.
"""
