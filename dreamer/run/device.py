"""Picks the device and the precision, and says what they mean for a run."""

import os
from pathlib import Path

import jax
import numpy as np

from dreamer.config import JaxConfig

CACHE = "~/.cache/dreamer/jax"  # compiled programs, safe to delete
# XLA then uses only kernels that give the same bits every time, and does not
# pick them by timing them.
DETERMINISTIC = (
    "--xla_gpu_exclude_nondeterministic_ops=true",
    "--xla_gpu_autotune_level=0",
)


def select_device(config: JaxConfig) -> np.dtype:
    """Sets JAX up; call it before anything touches a device.

    Compiled programs are kept in `JAX_COMPILATION_CACHE_DIR`, by default
    `~/.cache/dreamer/jax`; JAX keys them by program, versions and hardware.

    Returns:
      The compute dtype.

    Raises:
      ValueError: the platform asked for is not there.
    """
    wanted = "cuda" if config.platform == "gpu" else config.platform
    if wanted != "auto":
        jax.config.update("jax_platforms", wanted)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(CACHE).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if config.deterministic:  # XLA reads its flags when it starts
        flags = os.environ.get("XLA_FLAGS", "").split()
        given = {flag.partition("=")[0] for flag in flags}
        flags += [x for x in DETERMINISTIC if x.partition("=")[0] not in given]
        os.environ["XLA_FLAGS"] = " ".join(flags)
    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        # An assertion without words where JAX is installed for CPUs only.
        reason = str(error).partition("\n")[0] or "none is installed"
        raise ValueError(
            f"jax.platform={config.platform}: JAX finds no such device"
            f" ({reason}); expected auto, cpu or a device of this machine"
        ) from error
    # JAX keeps to what it began with, should it have begun before.
    if wanted not in ("auto", "cuda" if backend == "gpu" else backend):
        raise ValueError(
            f"jax.platform={config.platform}: JAX already runs on {backend}"
        )
    name = config.compute_dtype
    if name == "auto":
        name = "float32" if backend == "cpu" else "bfloat16"
    return jax.numpy.dtype(name)


def describe_device(dtype: np.dtype) -> str:
    """One line: what computes, and a warning where that will be slow."""
    if jax.default_backend() == "cpu":
        return (
            f"No accelerator in use: runs on the CPU in {dtype}, tens to"
            " hundreds of times slower than a GPU; size1m and the preset"
            " `quick` are made for that."
        )
    kind = jax.devices()[0].device_kind
    return f"Runs on {kind} in {dtype}, JAX {jax.__version__}."
