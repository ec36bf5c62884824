"""Device and precision: what is asked for, or one line that says why not."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent.layout import ONE_DEVICE
from dreamer.config import Config, JaxConfig
from dreamer.options import ConfigError
from dreamer.run import device
from dreamer.run.device import (
    DETERMINISTIC,
    _detected,
    _own_devices,
    describe_device,
    describe_devices,
    has_gpu,
    make_layout,
    select_device,
)
from dreamer.run.peers import ALONE
from dreamer.trouble import PassingError


@pytest.fixture(autouse=True)
def same_jax_afterwards():
    names = ("jax_platforms", "jax_compilation_cache_dir")
    names += ("jax_persistent_cache_enable_xla_caches",)
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("backend", "asked", "dtype"),
    [
        ("cpu", "auto", jnp.float32),
        ("gpu", "auto", jnp.bfloat16),
        ("tpu", "auto", jnp.bfloat16),
        ("cpu", "bfloat16", jnp.bfloat16),
        ("gpu", "float32", jnp.float32),
    ],
)
def test_precision(backend, asked, dtype, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = JaxConfig(compute_dtype=asked)
    assert select_device(config) == np.dtype(dtype)


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_gpu_is_another_name_for_cuda(name, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    select_device(JaxConfig(platform=name))
    assert jax.config.jax_platforms == "cuda"


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("Unknown backend: 'tpu'\nand much more"), AssertionError()],
)
def test_a_device_that_is_not_there(failure, monkeypatch):
    def fail():
        raise failure

    monkeypatch.setattr(jax, "default_backend", fail)
    with pytest.raises(ConfigError, match=r"jax\.platform=tpu: ") as error:
        select_device(JaxConfig(platform="tpu"))
    assert "\n" not in str(error.value)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ConfigError, match="JAX_PLATFORMS=cuda: JAX finds"):
        select_device(JaxConfig())


def test_a_gpu_that_does_not_start_may_do_so_later(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda': busy\nmore")

    monkeypatch.setattr(jax, "default_backend", fail)
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    with pytest.raises(PassingError) as error:
        select_device(JaxConfig())
    line = str(error.value)
    assert line.startswith("jax.platform=auto: the GPU does not start (")
    assert "'cuda': busy)" in line
    (tmp_path / "nvidiactl").touch()  # also of a driver without a GPU
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu(tmp_path)


def test_processes_meet_after_flags_and_platform_are_set(monkeypatch):
    found = {}

    def initialize(*_, **__):  # a backend may start from here on
        found["flags"] = os.environ["XLA_FLAGS"]
        found["platform"] = jax.config.jax_platforms

    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    monkeypatch.setattr(device, "roll_call", lambda *_: None)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(device, "peers_here", lambda: ALONE)
    at = dict(coordinator="localhost:1", processes=1, process=0)
    device.join(JaxConfig(platform="gpu", deterministic=True, **at))
    assert found["platform"] == "cuda"
    assert found["flags"].split() == ["--xla_mine=1", *DETERMINISTIC]


def test_another_device_than_jax_began_with(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(ConfigError, match="JAX already runs on cpu"):
        select_device(JaxConfig(platform="tpu"))


def test_one_device_computes_alone():
    config = Config(jax=JaxConfig(devices=1))
    assert make_layout(config) is ONE_DEVICE
    assert describe_devices(ONE_DEVICE) == ""


def test_more_devices_than_there_are():
    count = len(jax.devices())
    config = Config(jax=JaxConfig(devices=count + 1))
    with pytest.raises(ConfigError, match=f"devices={count + 1}: JAX finds"):
        make_layout(config)


def test_devices_that_cannot_share_the_batch(monkeypatch):
    devices = [SimpleNamespace(process_index=0, platform="cpu")] * 3
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(ConfigError, match="3 devices cannot share batch_size"):
        make_layout(Config(jax=JaxConfig(devices=3)))


def test_compiled_programs_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    select_device(JaxConfig())
    kept = jax.config.jax_compilation_cache_dir
    assert kept == str(tmp_path / ".cache/dreamer/jax")
    assert jax.config.jax_persistent_cache_enable_xla_caches == "none"
    jax.config.update("jax_compilation_cache_dir", None)
    select_device(JaxConfig(coordinator="auto"))  # not where each has its own
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    select_device(JaxConfig())
    assert jax.config.jax_compilation_cache_dir == "elsewhere"


def test_the_warning_about_a_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    line = describe_device(np.dtype(np.float32))
    assert "\n" not in line
    assert "CPU" in line
    assert "slower" in line
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "slower" not in describe_device(np.dtype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", DETERMINISTIC),
        ("--xla_gpu_autotune_level=2", ["--xla_gpu_autotune_level=2"]),
    ],
)
def test_deterministic_sets_flags_beside_those_that_are_set(
    monkeypatch, before, after
):
    monkeypatch.setenv("XLA_FLAGS", before)
    select_device(JaxConfig())
    assert os.environ["XLA_FLAGS"] == before
    select_device(JaxConfig(deterministic=True))
    flags = os.environ["XLA_FLAGS"].split()
    assert set(flags) == {*after, DETERMINISTIC[0]}


def test_flags_are_ones_that_this_jax_knows():
    # XLA ends a process whose flags it does not know.
    code = "import jax; print(jax.numpy.ones(3).sum())"
    env = os.environ | {"XLA_FLAGS": " ".join(DETERMINISTIC)}
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr


def test_a_slurm_step_is_found(monkeypatch):
    """By a function of JAX that is not public: see that it is there."""
    step = {
        "SLURM_JOB_ID": "70000",
        "SLURM_STEP_NODELIST": "node[17-18]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
    }
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    address, count, index, ids = _detected(5.0)
    assert address.startswith("node17:")
    assert (count, index, ids) == (4, 3, [1])


@pytest.mark.parametrize(
    ("name", "value", "ids"),
    [
        ("SLURM_STEP_TASKS_PER_NODE", "8(x2)", [1]),
        ("SLURM_STEP_TASKS_PER_NODE", "1(x2)", None),
        ("SLURM_STEP_TASKS_PER_NODE", "1", None),
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3", [1]),
        ("CUDA_VISIBLE_DEVICES", "", [1]),
        ("CUDA_VISIBLE_DEVICES", "3", None),
        ("JAX_LOCAL_DEVICE_IDS", "2,3", None),
    ],
)
def test_which_gpus_a_process_of_a_step_takes(monkeypatch, name, value, ids):
    for other in ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_TASKS_PER_NODE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    assert _own_devices([1]) == ids


def test_nothing_to_find(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"jax\.coordinator=auto: found no"):
        _detected(5.0)
