"""Whether the run in this container is well: exit code 0, or 1 if it is not.

A run holds its `<logdir>/lock` open, so that the logdir is found whatever the
command was and however many runs share the volume; `status.json` beside it
says when the run was last heard of. Read ../dreamer/status.py next.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dreamer.status import FILE, SILENCE, read


def main() -> int:
    """Prints a line for each run, which `docker inspect` shows."""
    found = sorted(set(logdirs()))
    if not found:
        print("no run has begun")
    reports = [report(logdir) for logdir in found]
    for _, line in reports:
        print(line)
    return 0 if found and all(well for well, _ in reports) else 1


def logdirs(processes: Path = Path("/proc")) -> Iterator[Path]:
    """Of the runs that processes which may be looked at have open."""
    for link in processes.glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            path = Path(os.readlink(link))
            if path.name == "lock" and (path.parent / FILE).is_file():
                yield path.parent


def report(logdir: Path) -> tuple[bool, str]:
    """Whether a run is well, and a line about it."""
    values = read(logdir)
    if values is None:
        return False, f"{logdir}: {FILE} cannot be read"
    line = (
        f"{logdir}: {values['state']}, {values.get('policy_steps')} of"
        f" {values.get('steps')} policy steps, heard of"
        f" {values['silent']:.0f} s ago"
    )
    if values["state"] == "failed":
        return False, f"{line}: {values.get('error')}"
    return values["silent"] <= SILENCE, line


if __name__ == "__main__":
    sys.exit(main())
