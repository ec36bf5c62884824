"""Shares of this machine: a GPU or a part of one, or some of its cores.

Next: local.py, which runs one run at a time in each.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from dreamer.options import ConfigError, cut, shown

CORES = 2  # of a run without a GPU, if the person does not say how many runs
MEMORY = 0.9  # of a GPU that runs may take together; its driver needs some


@dataclass(frozen=True)
class Slot:
    """Where one run at a time has its place.

    Attributes:
      number: Number of the slot, from 0.
      label: Name of the slot for a person.
      env: Environment variables of the run.
      cores: Cores that the run is bound to; none stands for all.
    """

    number: int
    label: str
    env: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()

    def bind(self, process: int) -> None:
        """Binds a process that has just started, before it starts threads."""
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process, self.cores)


def asked_for(
    flags: argparse.Namespace, platforms: Iterable[str]
) -> list[Slot]:
    """The slots of a command line.

    Args:
      flags: Flags of the command line, see flags.py.
      platforms: `jax.platform` of its runs.

    Raises:
      ConfigError: there are no such GPUs, or a flag has no effect.
    """
    if set(platforms) <= {"cpu", "tpu"}:
        gpus, why = [], f"--jax.platform is {','.join(sorted(platforms))}"
    else:
        gpus = flags.gpus or find_gpus()
        why = "none is seen here; --gpus names those to use"
    given = {"--gpus": flags.gpus, "--per-gpu": flags.per_gpu}
    for name, value in given.items():
        if value is not None and not gpus:
            raise ConfigError(
                f"{name} {shown(value)}: expected where runs use a GPU; {why}"
            )
    return make_slots(gpus, flags.per_gpu or 1, flags.jobs)


def find_gpus() -> list[str]:
    """GPUs that a run here would see, as CUDA_VISIBLE_DEVICES names them.

    Raises:
      ConfigError: that names one twice.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        words = [x.strip() for x in chosen.split(",") if x.strip()]
        # CUDA's rule: -1 ends the list.
        seen = list(takewhile(lambda x: not x.startswith("-"), words))
        if len(set(seen)) < len(seen):
            raise ConfigError(
                f"CUDA_VISIBLE_DEVICES={cut(chosen)}: expected each GPU once"
            )
        return seen
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "-L"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    count = sum(line.startswith("GPU ") for line in listed)
    return [str(number) for number in range(count)]


def make_slots(
    gpus: Sequence[str], per_gpu: int, jobs: int | None
) -> list[Slot]:
    """A slot for every run at a time; neighbours are on different GPUs.

    Args:
      gpus: GPUs to be used; where there are none, the cores are.
      per_gpu: Number of runs that share a GPU.
      jobs: Number of runs at a time; by default, what the machine suggests.

    Raises:
      ConfigError: more runs at a time than there are shares of GPUs.
    """
    if not gpus:
        return _of_cores(jobs)
    most = len(gpus) * per_gpu
    if jobs is not None and jobs > most:
        raise ConfigError(
            f"--jobs {jobs}: expected at most {most}, --per-gpu {per_gpu} on"
            f" {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
        )
    return [
        Slot(number, f"GPU {gpus[number % len(gpus)]}", env)
        for number in range(jobs or most)
        for env in [_of_gpu(gpus[number % len(gpus)], per_gpu)]
    ]


def _of_gpu(gpu: str, per_gpu: int) -> dict[str, str]:
    return {
        "CUDA_VISIBLE_DEVICES": gpu,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi numbers them
        # JAX would go on with the CPU where CUDA does not start.
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cuda"),
        "XLA_CLIENT_MEM_FRACTION": f"{MEMORY / per_gpu:.3f}",
    }


def _of_cores(jobs: int | None) -> list[Slot]:
    """Disjoint cores; where there are too few of them, one each in turn."""
    cores = usable_cores()
    jobs = jobs or max(1, len(cores) // CORES)
    found = []
    for number in range(jobs):
        # Cores j, j + jobs, ... would split pairs that share a cache.
        low, high = (len(cores) * x // jobs for x in (number, number + 1))
        mine = tuple(cores[low:high]) or (cores[number % len(cores)],)
        words = ",".join(map(str, mine))
        label = f"core{'s' if len(mine) > 1 else ''} {words}"
        found.append(Slot(number, label, {}, mine))
    return found


def usable_cores() -> list[int]:
    """Their numbers; made-up ones where processes cannot be bound to them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
