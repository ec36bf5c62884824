"""How much RAM a replay buffer takes, and whether the machine has it.

The buffer commits memory only as it fills, so without this check a run that
asks for too much would be killed hours after its start.
"""

import math
import os
from pathlib import Path

import numpy as np

from dreamer.options import ConfigError
from dreamer.replay.ring import Spec

GB = 10**9


def bytes_per_step(spec: Spec) -> int:
    """Bytes that one step of one environment takes."""
    return sum(
        math.prod(shape) * np.dtype(dtype).itemsize
        for shape, dtype in spec.values()
    )


def fits_in_ram(
    capacity: int, step_bytes: int, beside: int = 0, sharing: int = 1
) -> None:
    """Checks, before anything is allocated, that a full buffer will fit.

    Args:
      capacity: Steps over all environments (`replay.size`, or the number of
        steps the run will take if that is less).
      step_bytes: Bytes of one step, as `bytes_per_step` returns them.
      beside: Bytes that the process needs for all else.
      sharing: Number of processes of the run on this host, each of which
        has as much in mind.

    Raises:
      ConfigError: More RAM is needed than is available; names both.
    """
    required = capacity * step_bytes
    available = available_ram() // sharing
    if required + beside > available:
        each = f" for each of {sharing} processes" if sharing > 1 else ""
        fitting = max(0, available - beside) // step_bytes
        raise ConfigError(
            f"replay.size: {capacity} steps of {step_bytes} bytes need"
            f" {required / GB:.1f} GB of RAM, and all else about"
            f" {beside / GB:.1f} GB, but {available / GB:.1f} GB are"
            f" available{each}; at most {fitting} steps fit"
        )


def available_ram(root: Path = Path("/")) -> int:
    """Bytes this process can still use: the machine's and its container's.

    `root` is where `proc` and `sys` are found.
    """
    limits = [_machine_ram(root)]
    for group in _memory_groups(root):
        limits.append(_group_ram(group))
    return max(0, min(limits))


def _machine_ram(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: all there is, for want of what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024


def _memory_groups(root: Path) -> list[Path]:
    """Control groups whose limits bind this process, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            base = root / "sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
        else:
            continue
        group = base / name.strip("/")
        # Inside a container the named group may not be visible; its limit
        # then stands at the base. Limits of parents bind as well.
        while group != base:
            groups.append(group)
            group = group.parent
        groups.append(base)
    return groups


def _group_ram(group: Path) -> float:
    """Bytes left below the limit of one group; infinite without a limit."""
    for limit_file, usage_file in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            limit = (group / limit_file).read_text().strip()
            usage = int((group / usage_file).read_text())
            stat = (group / "memory.stat").read_text().split()
        except OSError:
            continue
        if limit == "max":
            return math.inf
        # The file cache counts as used, yet the kernel gives it back.
        values = dict(zip(stat[::2], stat[1::2], strict=True))
        cache = int(values.get("inactive_file", 0))
        return int(limit) - (usage - cache)
    return math.inf
