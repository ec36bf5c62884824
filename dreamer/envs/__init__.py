"""Environments, on NumPy alone: they run in workers that never load JAX.

`games.py` names the Atari games, `atari.py` is one Atari game as the paper
preprocesses it, `gym.py` adapts any Gymnasium environment, and `vector.py`
steps several of either side by side. Begin with `vector.py`.
"""
