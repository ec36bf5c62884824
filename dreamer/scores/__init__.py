"""Scores of runs: read, averaged over seeds, tabulated and drawn.

`python -m dreamer.plot` is the command. `runs.py` finds and reads scores,
`published.py` has the numbers to compare with, `curves.py` averages over
seeds, `aggregate.py` over games, `table.py` and `figures.py` show the result.
`evaluation.py` and `evaluation_file.py` are for `python -m dreamer.evaluate`.
The protocols are those of "Mastering diverse control tasks through world
models" (arXiv 2301.04104v2), sections on Atari. Nothing here imports JAX.
"""
