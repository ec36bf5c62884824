"""Picks the device and the precision, and says what they mean for a run."""

import os
from pathlib import Path

import jax
import numpy as np

from dreamer.config import JaxConfig

CACHE = "~/.cache/dreamer/jax"  # compiled programs, safe to delete


def select_device(config: JaxConfig) -> np.dtype:
    """Sets JAX up; call it before anything touches a device.

    Compiled programs are kept in `JAX_COMPILATION_CACHE_DIR`, by default
    `~/.cache/dreamer/jax`; JAX keys them by program, versions and hardware.

    Returns:
      The compute dtype.

    Raises:
      ValueError: the platform asked for is not there.
    """
    if config.platform != "auto":
        name = "cuda" if config.platform == "gpu" else config.platform
        jax.config.update("jax_platforms", name)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(CACHE).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    try:
        backend = jax.default_backend()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"jax.platform={config.platform}: JAX finds no such device"
            f" ({reason}); allowed here: auto, cpu"
        ) from error
    name = config.compute_dtype
    if name == "auto":
        name = "float32" if backend == "cpu" else "bfloat16"
    return jax.numpy.dtype(name)


def describe_device(dtype: np.dtype) -> str:
    """One line: what computes, and a warning where that will be slow."""
    device = jax.devices()[0]
    where = f"Runs on {device.device_kind} with JAX {jax.__version__}"
    if jax.default_backend() == "cpu":
        return (
            "No accelerator found: runs on the CPU in"
            f" {dtype}, tens to hundreds of times slower than a GPU; size1m"
            " and the preset `quick` are made for that."
        )
    return f"{where}, {dtype}."
