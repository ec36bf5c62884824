"""What ran here, with what, and on what: one line for each start of a run.

`<logdir>/starts.jsonl` holds what is needed to repeat a run beside its
settings, which are in `config.yaml`. What cannot be found out is null: a
record is of help, and is no reason for a run to fail.
"""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

import dreamer
from dreamer.run.append import AppendedFile

FILE = "starts.jsonl"
SOURCE = Path(dreamer.__file__).resolve().parent.parent
SECONDS = 3.0  # for each program that is asked; git on a slow network disk
# Environment variables that change what a run computes, or tell which job it
# was. Never all of them: some are secrets.
PREFIXES = ("JAX_", "XLA_")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "LIBTPU_INIT_ARGS",
    "TPU_VISIBLE_CHIPS",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "PBS_JOBID",
    "LSB_JOBID",
)


def record(logdir: Path, policy_steps: int) -> None:
    """Appends a line to `starts.jsonl`; call it once JAX has its devices.

    Args:
      logdir: of the run; exists.
      policy_steps: where the run goes on; 0 for a new one.

    Raises:
      OSError: the line could not be written.
    """
    line = json.dumps(describe_start(policy_steps)).encode() + b"\n"
    file = AppendedFile(logdir / FILE)
    file.append(line)
    file.close()
    if file.error is not None:
        raise file.error


def describe_start(policy_steps: int) -> dict[str, Any]:
    """The contents of a line."""
    looks: dict[str, Callable[[], Any]] = {
        "command": lambda: shlex.join(sys.orig_argv),  # with python -m
        "working_directory": os.getcwd,
        "dreamer_version": lambda: dreamer.__version__,
        # An image has no checkout; its build may tell.
        "git_revision": lambda: (
            os.environ.get("DREAMER_REVISION") or _git("rev-parse", "HEAD")
        ),
        "git_uncommitted_changes": lambda: bool(
            _git("status", "--porcelain", "--untracked-files=no")
        ),
        "python_version": platform.python_version,
        "operating_system": _operating_system,
        "kernel": platform.release,
        "host": socket.gethostname,
        "cpu": _cpu,
        "cpu_cores": os.cpu_count,
        "cpu_cores_usable": lambda: len(os.sched_getaffinity(0)),
        "ram_gib": _ram,
        "jax_backend": jax.default_backend,
        "devices": lambda: Counter(x.device_kind for x in jax.devices()),
        "device_runtime": lambda: jax.devices()[0].client.platform_version,
        "nvidia_driver": _nvidia_driver,
        "environment_variables": _variables,
        "package_versions": _packages,
    }
    found = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    found |= {"policy_steps": policy_steps}
    return found | {name: _known(look) for name, look in looks.items()}


def _known(look: Callable[[], Any]) -> Any:
    """What is found; None where looking fails, in whatever way."""
    try:
        return look()
    except Exception:
        return None


def _output(*command: str) -> str:
    """What a program prints. Raises if it is missing, fails or is slow."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return done.stdout.strip()


def _git(*arguments: str) -> str:
    # An installed package is in no checkout, though a folder above may be.
    if not (SOURCE / ".git").exists():
        raise FileNotFoundError
    # Without locks: it shall not get in the way of whoever works there.
    where = ("git", "--no-optional-locks", "-C", str(SOURCE))
    return _output(*where, *arguments)


def _operating_system() -> str:
    if platform.system() == "Linux":
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.platform()


def _cpu() -> str:
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.machine()


def _ram() -> float:
    pages = os.sysconf("SC_PHYS_PAGES")
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _nvidia_driver() -> str:
    text = Path("/proc/driver/nvidia/version").read_text()
    return re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)[1]


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name in VARIABLES or name.startswith(PREFIXES)
    }


def _packages() -> dict[str, str | None]:
    """Versions of everything that is installed, where Python finds it."""
    found: dict[str, str | None] = {}
    for package in importlib.metadata.distributions():
        about = package.metadata  # which is read and parsed at every access
        # The first of a name is what is imported; damaged ones have no name.
        if name := about.get("Name"):
            found.setdefault(name, about.get("Version"))
    return dict(sorted(found.items()))
