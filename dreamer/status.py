"""How a run is doing, in a small file that anyone may read at any time.

`<logdir>/status.json` is replaced as a whole, at most every `BEAT` seconds
while the run goes on, and once more when it ends:

    state         "running", "done", "interrupted" or "failed"
    error         why it failed, in one line; else null
    time          when this was written, seconds since 1970
    beat          seconds until it is written again, if all is well, at most
    host, pid     which process writes it
    began         when that process started
    began_steps   policy steps at that time
    policy_steps, steps    done, and of the whole run
    frames, updates, score as logged; score is null before an episode ended

A number that is not finite, which JSON does not have, is null as well.
A run that was killed still says "running", but at a time long gone.  Needs
nothing but Python, so that schedulers' and containers' checks are light.
"""

import contextlib
import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamer.whole import write_whole

FILE = "status.json"
BEAT = 10.0  # seconds between two of them, while steps or updates go on
SILENCE = 900.0  # seconds after which a run that says nothing has stopped
LARGEST = 100_000  # bytes of the file that are looked at


class Status:
    """Writes the file; a disk that refuses it does not end the run.

    Args:
      logdir: of the run, which this process has taken.
      steps: policy steps of the whole run.
      policy_steps: done before.
    """

    def __init__(self, logdir: Path, steps: int, policy_steps: int) -> None:
        self._path = logdir / FILE
        self._due = 0.0
        self._values: dict[str, Any] = {
            "state": "running",
            "error": None,
            "time": 0.0,
            "beat": BEAT,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": time.time(),
            "began_steps": policy_steps,
            "policy_steps": policy_steps,
            "steps": steps,
            "frames": None,
            "updates": None,
            "score": None,
        }

    def beat(self, **values: Any) -> None:
        """Writes how far the run is, if it is time."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + BEAT
            self.write("running", **values)

    @contextlib.contextmanager
    def beating(self, **values: Any) -> Iterator[None]:
        """Beats from a thread while the caller waits, say for a slow disk.

        Nothing else may write meanwhile.
        """
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                self.write("running", **values)

        thread = threading.Thread(target=beat, name="status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def write(
        self, state: str, error: str | None = None, **values: Any
    ) -> None:
        """Writes at once, keeping what `values` do not change."""
        self._values |= {"state": state, "error": error, **values}
        self._values["time"] = time.time()
        with contextlib.suppress(OSError):
            values = {k: _plain(v) for k, v in self._values.items()}
            text = json.dumps(values) + "\n"
            write_whole(self._path, text, sync=False)  # soon outdated


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else None


def read(logdir: Path) -> dict[str, Any] | None:
    """What the file says, and for how long it has: "silent", in seconds.

    Nothing but "state" and "time" is sure to be there, or to be what `Status`
    writes.  None where there is no file that can be read.
    """
    try:
        with (logdir / FILE).open("rb") as file:
            values = json.loads(file.read(LARGEST))
        silent = time.time() - float(values["time"])
        if not (math.isfinite(silent) and values["state"]):
            return None
        return {**values, "silent": silent}
    except (
        OSError,
        ValueError,
        OverflowError,
        KeyError,
        TypeError,
        RecursionError,
    ):
        return None
