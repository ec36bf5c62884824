"""What the agent's functions pass to one another, as plain dicts."""

import jax

Params = dict
"""Parameters: nested dicts of float32 arrays, as the modules are nested."""

Batch = dict[str, jax.Array]
"""Arrays by field or observation key, whose leading axes are the same."""

Metrics = dict[str, jax.Array]
"""Losses and statistics, () each, by the names of the authors' code."""
