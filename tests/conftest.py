"""Settings of every test: JAX on the CPU, strict about shapes.

Tests marked `gpu` start programs that use one, see test_gpu.py; everything
else runs on the CPU also where there is a GPU.
"""

import importlib.util
import os
import shutil
import subprocess

import pytest


def no_gpu() -> str:
    """Why GPU tests cannot run here, or nothing if they can."""
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        return "JAX is installed without CUDA"
    if shutil.which("nvidia-smi") is None:
        return "there is no NVIDIA driver"
    driver = subprocess.run(
        ["nvidia-smi", "-L"], capture_output=True, text=True, check=False
    )
    if driver.returncode or "GPU " not in driver.stdout:
        return "the NVIDIA driver lists no GPU"
    return ""


NO_GPU = no_gpu()
os.environ["JAX_PLATFORMS"] = "cpu"  # before the first import of JAX

import jax  # noqa: E402

# (B,) silently added to (B, T) as (T,) is a bug that trains.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where there is none."""
    if NO_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"no GPU: {NO_GPU}"))
