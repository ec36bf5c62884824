#!/usr/bin/env python
"""What an update makes a GPU do, read from its program, without a GPU.

    python scripts/gpu_program.py --configs atari100k size12m

Presets and flags as in training.  XLA compiles the update for an H200 that
need not be there and whose figures are below, and from the program come the
kernels that an update starts, loop by loop, and its memory.  On a GPU, an
update of a small model takes about as long as starting its kernels, some two
microseconds each; one of a large model as long as its arithmetic, whose floor
is printed too.  Which algorithms cuDNN and cuBLAS take is decided by trying
them on a real GPU, so that there counts may differ a little.

Needs JAX's CUDA plug-in, which it names the command for, but no driver.
Next: count_work.py, bench.py update for measured times.
"""

import importlib.util
import os
import sys
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # the plug-in's remarks

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from bench_agent import agent_for, update_shapes  # noqa: E402
from count_work import count_flops, count_launches  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from dreamer.agent import convolve  # noqa: E402
from dreamer.config import Config  # noqa: E402
from dreamer.settings import load_or_exit  # noqa: E402

PEAK = 989e12  # operations per second, dense bfloat16 (NVIDIA, H200 SXM)
PLUGIN = "jax_plugins.xla_cuda12"
# An H200 as XLA describes devices: figures of NVIDIA's data sheet and of the
# compute capability 9.0 in the CUDA programming guide.
TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  device_memory_size: 141000000000
  l2_cache_size: 52428800
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""


def main(argv: list[str]) -> int:
    """Command line; returns the exit code."""
    if "--help" in argv or "-h" in argv or not argv:
        print(__doc__)
        return 0
    config = load_or_exit(argv, "gpu_program")
    if missing := missing_plugin():
        print(f"gpu_program: {missing}", file=sys.stderr)
        return 2
    jax.config.update("jax_platforms", "cpu")
    compiled, flops = compile_update(config)
    report(compiled, flops)
    return 0


def missing_plugin() -> str:
    """Why there is no compiler for GPUs, or nothing."""
    try:
        found = importlib.util.find_spec(PLUGIN)
    except ModuleNotFoundError:
        found = None
    if found:
        return ""
    version = f"=={jax.__version__}"
    return (
        "JAX's CUDA plug-in is not installed: pip install --no-deps"
        f" jax-cuda12-plugin{version} jax-cuda12-pjrt{version}"
        " nvidia-cuda-nvcc-cu12"
    )


def compile_update(config: Config) -> tuple[jax.stages.Compiled, int]:
    """The update in bfloat16 for `TARGET`, and its counted operations."""
    target = topologies.get_topology_desc(
        "h200", "cuda", target_config=TARGET, topology="1x1x1"
    )
    device = jax.sharding.SingleDeviceSharding(target.devices[0])
    # What is chosen by the backend goes by the device that is compiled for.
    with mock.patch.object(convolve, "on_one_cpu", return_value=False):
        agent = agent_for(config, np.dtype(jnp.bfloat16))
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
            update_shapes(agent, config),
        )
        flops = count_flops(agent.update, *shapes)
        return agent.update.trace(*shapes).lower().compile(), flops


def report(compiled: jax.stages.Compiled, flops: int) -> None:
    """Prints what there is to know."""
    memory = compiled.memory_analysis()
    loops, outside = count_launches(compiled.as_text())
    total = outside + sum(times * kernels for times, kernels, _ in loops)
    print(
        f"operations  {flops / 1e12:.2f} TFLOP, {flops / PEAK * 1e3:.1f} ms"
        f" at the {PEAK / 1e12:.0f} TFLOP/s of an H200 in bfloat16"
    )
    print(
        f"memory      {memory.argument_size_in_bytes / 1e9:.2f} GB of state"
        f" and batch, {memory.temp_size_in_bytes / 1e9:.2f} GB beside it"
    )
    print(f"kernels     {total:,} started by an update")
    for times, kernels, name in loops:
        name = name.removeprefix("jit(_update)/").removesuffix("/while")
        print(f"  {times:4} x {kernels:<5} {name}")
    print(f"         {outside:<5} outside of loops")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
