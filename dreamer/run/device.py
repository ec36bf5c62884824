"""Picks the device and the precision, and says what they mean for a run."""

import os
from pathlib import Path

import jax
import numpy as np

from dreamer.agent.layout import ONE_DEVICE, Layout, OneDevice
from dreamer.config import Config, JaxConfig
from dreamer.options import ConfigError
from dreamer.run.peers import ALONE, Peers, peers_here
from dreamer.run.rollcall import is_loopback, roll_call
from dreamer.trouble import PassingError

CACHE = "~/.cache/dreamer/jax"  # compiled programs, safe to delete
# XLA then uses only kernels that give the same bits every time, and does not
# pick them by timing them.
DETERMINISTIC = (
    "--xla_gpu_exclude_nondeterministic_ops=true",
    "--xla_gpu_autotune_level=0",
)


def join(config: JaxConfig) -> Peers:
    """Meets the other processes of the run; call it before `select_device`.

    Raises:
      PassingError: some processes did not come in time.
      ConfigError: nothing tells who they are, or they expect other numbers
        of processes.
    """
    if config.coordinator == "none":
        return ALONE
    _set_up(config)  # a backend starts here
    address, count, index, ids = config.coordinator, None, None, None
    if address == "auto":
        address, count, index, ids = _detected(config.join_timeout)
    else:
        count, index = config.processes, config.process
    roll_call(address, count, index, config.join_timeout)
    # JAX's preemption service would replace our SIGTERM handler.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        count,
        index,
        local_device_ids=ids,
        cluster_detection_method="deactivate",
        initialization_timeout=int(config.join_timeout) + 1,
        # Otherwise it would listen on every address of the host.
        coordinator_bind_address=address if is_loopback(address) else None,
    )
    return peers_here()


def _detected(seconds: float) -> tuple[str, int, int, list[int] | None]:
    """What JAX finds out of Slurm, Kubernetes, Open MPI and TPU pods.

    It has no public function that tells without starting.
    """
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        None,
        None,
        None,
        None,
        int(seconds) + 1,
    )
    address, count, index, ids = found
    if None in (address, count, index):
        raise ConfigError(
            "jax.coordinator=auto: found no Slurm step, Kubernetes job, Open"
            " MPI or TPU pod that this process belongs to; give host:port"
        )
    return address, count, index, _own_devices(ids)


def _own_devices(ids: list[int] | None) -> list[int] | None:
    """Devices of a process of a step, by number; None for all it can see.

    JAX gives a process the GPU of its number on the node. That is not there
    where Slurm shows each process its own GPU alone, and one of many where
    there is one process on the node.
    """
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    chosen = "JAX_LOCAL_DEVICE_IDS" in os.environ  # JAX reads that itself
    if chosen or tasks == "1" or (len(seen) == 1 and seen[0]):
        return None
    return ids


def make_layout(config: Config) -> Layout | OneDevice:
    """Which devices make the updates.

    Raises:
      ConfigError: there are not so many, or the batch cannot be divided.
    """
    wanted = config.jax.devices
    here: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        here.setdefault(device.process_index, []).append(device)
    fewest = min(map(len, here.values()))
    if wanted > fewest:
        kind = jax.devices()[0].platform
        raise ConfigError(
            f"jax.devices={wanted}: JAX finds {fewest} of kind {kind};"
            f" expected at most {fewest}, or 0 for all"
        )
    each = wanted or fewest
    devices = [x for process in sorted(here) for x in here[process][:each]]
    if config.batch_size % len(devices):
        raise ConfigError(
            f"jax.devices={wanted}: {len(devices)} devices cannot share"
            f" batch_size={config.batch_size} evenly; expected a multiple"
        )
    if len(devices) == 1:
        return ONE_DEVICE
    return Layout(devices, config.jax.fsdp)


def select_device(config: JaxConfig) -> np.dtype:
    """Sets JAX up; call it before anything touches a device.

    Compiled programs are kept in `JAX_COMPILATION_CACHE_DIR`, by default
    `~/.cache/dreamer/jax`; JAX keys them by program, versions and hardware.
    Several processes have no default, for they need a folder that all share.

    Returns:
      The compute dtype.

    Raises:
      ConfigError: the platform asked for is not there.
      PassingError: there is a GPU, and it does not start.
    """
    wanted = _set_up(config)
    try:
        backend = jax.default_backend()
    except (RuntimeError, AssertionError) as error:
        # An assertion without words where JAX has no such part, or where that
        # has failed to load and said so.
        reason = str(error).partition("\n")[0] or (
            'JAX is installed for CPUs only: pip install "jax[cuda12]"; or'
            " CUDA does not load"
        )
        if isinstance(error, RuntimeError) and has_gpu():
            raise PassingError(
                f"jax.platform={config.platform}: the GPU does not start"
                f" ({reason}); expected one that is free, or cpu"
            ) from error
        asked = f"jax.platform={config.platform}"
        if config.platform == "auto" and "JAX_PLATFORMS" in os.environ:
            asked = f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}"
        raise ConfigError(
            f"{asked}: JAX finds no such device ({reason}); expected cpu or a"
            " device of this machine"
        ) from error
    # JAX keeps to what it began with, should it have begun before.
    if wanted not in ("auto", "cuda" if backend == "gpu" else backend):
        raise ConfigError(
            f"jax.platform={config.platform}: JAX already runs on {backend}"
        )
    name = config.compute_dtype
    if name == "auto":
        name = "float32" if backend == "cpu" else "bfloat16"
    return jax.numpy.dtype(name)


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether NVIDIA's driver shows a GPU to this process."""
    return any(devices.glob("nvidia[0-9]*"))


def _set_up(config: JaxConfig) -> str:
    """Sets what JAX and XLA read when a backend starts.

    Returns:
      JAX's name of the platform that is asked for, or auto.
    """
    wanted = "cuda" if config.platform == "gpu" else config.platform
    if wanted != "auto":
        jax.config.update("jax_platforms", wanted)
    # Of several processes, the first alone writes programs there. One that
    # has to compile waits for all others, which may have found theirs.
    alone = config.coordinator == "none"
    if alone and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(CACHE).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache))
    # JAX's cache warns when it cannot be written; XLA's, which JAX puts beside
    # it, fails the compilation. That one also holds what was chosen by timing,
    # for deterministic runs too.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if config.deterministic:  # XLA reads its flags when it starts
        flags = os.environ.get("XLA_FLAGS", "").split()
        given = {flag.partition("=")[0] for flag in flags}
        flags += [x for x in DETERMINISTIC if x.partition("=")[0] not in given]
        os.environ["XLA_FLAGS"] = " ".join(flags)
    return wanted


def describe_devices(layout: Layout | OneDevice) -> str:
    """One line where several devices make the updates; otherwise nothing."""
    if layout.size == 1:
        return ""
    processes = jax.process_count()
    kept = "a part" if layout.fsdp else "a copy"
    among = f" of {processes} processes" if processes > 1 else ""
    return (
        f"{layout.size} devices{among} share each batch and hold {kept} of the"
        " parameters each."
    )


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
