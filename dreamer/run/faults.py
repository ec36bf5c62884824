"""Why a run failed, in one line: above all, out of memory and what to do.

Host memory ends as Python's `MemoryError`, device memory as an error of XLA
whose wording depends on the device, its allocator and the library that asked.
Where Linux has overcommitted memory, it kills the process without a word
instead; the checks before the first step (plan.py, ../replay/memory.py)
are against that.
"""

import errno
import os
import re

import jax

from dreamer.config import Config
from dreamer.options import one_line
from dreamer.presets import presets
from dreamer.units import in_bytes

# "allocate 4770354232 bytes", "allocate 8.00GiB", "request for 2.99GiB",
# NumPy's "allocate 7.45 GiB", and NCCL's "CUDA calloc async 1024 bytes".
AMOUNT = re.compile(
    r"(?:allocat\w*|[cm]?alloc(?: async)?|request for) ([\d.]+) ?"
    r"(bytes|[KMGTPE])",
    re.IGNORECASE,
)
# What a program needs on a TPU: "Used 21.95G of 15.48G hbm".
USED = re.compile(r"Used ([\d.]+)([KMGTPE]) of ([\d.]+)([KMGTPE])")
BYTES = {"bytes": 1} | {x: 1024**i for i, x in enumerate("KMGTPE", 1)}
# Of CUDA and of its libraries, when nothing was left for their own needs.
CUDA = (
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "the resource allocation failed",
    "dnn_support != nullptr",
    "without BLAS support",
    "Cuda failure 2 'out of memory'",
    "Cuda failure 'out of memory'",
    "Failed to CUDA",
)
# Of NCCL, Gloo and JAX's own service, when another process is gone.
LEFT = re.compile(r"gloo|nccl|connection (?:reset|closed|refused)", re.I)
# RESOURCE_EXHAUSTED too, but for memory within a chip, by no fault of ours.
ON_CHIP = re.compile("shared memory|vmem|smem", re.IGNORECASE)
TRACEBACK = "Traceback (most recent call last):\n"
FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def brief(text: str) -> str:
    """A message in one line; of a traceback in it, what was raised.

    Args:
      text: Message of any length; below its first line, perhaps, a traceback.
    """
    before, found, rest = text.partition(TRACEBACK)
    last = rest.rpartition(TRACEBACK)[2]
    # Frames are indented; a message of several lines comes after its type.
    raised = (x for x in last.splitlines() if x and not x[0].isspace())
    if found and (what := next(raised, None)):
        first = before.partition("\n")[0]
        text = f"{first} {what}"
    return one_line(" ".join(text.split()))


def explain(error: BaseException, config: Config) -> str | None:
    """One line if memory ran out or a process is gone; nothing otherwise."""
    message = str(error)
    # First: NCCL tells of memory too, which no other process can give.
    if memory := _memory(error, message, config):
        return memory
    if jax.distributed.is_initialized() and LEFT.search(message):
        return (
            "another process of this run is gone; start all of them again with"
            f" the same commands ({message.splitlines()[0][:200]})"
        )
    return None


def _memory(error: BaseException, message: str, config: Config) -> str | None:
    """The line of an error that tells of memory; nothing of another."""
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return f"out of memory: {_what(message)}; {_host(config)}"
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return None
    exhausted = message.startswith("RESOURCE_EXHAUSTED")
    if exhausted and ON_CHIP.search(message):
        return None
    if not exhausted and not any(words in message for words in CUDA):
        return None
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        advice = f"{_device(config)}; or {_host(config)}"
        return f"out of memory: {_what(message)}; {advice}"
    line = f"out of device memory: {_what(message)} on {device}"
    stats = device.memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        line += f", where JAX may use {in_bytes(limit)}"
    line += f"; {_device(config)}"
    if device.platform == "gpu":
        line += "; end other programs on this GPU"
        if not any(name in os.environ for name in FRACTIONS):
            line += f", set {FRACTIONS[0]}=0.9 (by default 0.75)"
    return line


def _what(message: str) -> str:
    if found := USED.search(message):
        number, unit, limit, its_unit = found.groups()
        needed, there = _size(number, unit), _size(limit, its_unit)
        return f"a program needs {needed} ({there} available)"
    if found := AMOUNT.search(message):
        return f"an allocation of {_size(*found.groups())} failed"
    return "an allocation failed"


def _size(number: str, unit: str) -> str:
    unit = unit.lower() if len(unit) > 1 else unit.upper()
    return in_bytes(float(number.rstrip(".")) * BYTES[unit])


def _host(config: Config) -> str:
    size, envs = config.replay.size, config.run.envs
    return f"reduce replay.size={size} or run.envs={envs}"


def _device(config: Config) -> str:
    batch, length = config.batch_size, config.batch_length
    line = f"reduce batch_size={batch} or batch_length={length}"
    smaller = _smaller(config)
    return f"{line}, or take the preset {smaller}" if smaller else line


def _smaller(config: Config) -> str | None:
    """The largest preset of a model smaller than this one."""
    key = "agent.dyn.rssm.deter"
    deter = {
        name: layer.values[key]
        for name, layer in presets().items()
        if name.startswith("size") and key in layer.values
    }
    own = config.agent.dyn.rssm.deter
    names = [name for name in deter if deter[name] < own]
    return max(names, key=deter.__getitem__, default=None)
