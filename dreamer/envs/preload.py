"""Loaded by the server that workers are forked from, and by nothing else.

Workers then begin with everything that they need, without JAX and its threads,
and deaf to the signals that the main process answers for all of them; see
`workers.py`. So does the server, without which no worker could be replaced.
"""

import signal

import dreamer.envs.make  # noqa: F401

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
