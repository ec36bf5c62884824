"""Updates that devices share are those that one device makes.

On simulated devices, in processes of their own, since JAX counts its devices
when it starts.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.agent.layout import (
    LEAST,
    ONE_DEVICE,
    Layout,
    axis_to_divide,
    on_host,
)

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-P", "-m", "tests.agent.shared_updates"]


def run(*commands):
    """Programs side by side, until all have ended well."""
    env = dict(
        os.environ,
        PYTHONPATH=f"{ROOT}:{ROOT / 'scripts'}",
        JAX_DISABLE_MOST_OPTIMIZATIONS="true",  # compiles sooner
    )
    processes = [
        subprocess.Popen(
            [*PROGRAM, *map(str, command)],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "one.npz"
    run((path, "one", 1))
    return np.load(path)


def parts(found, prefix):
    return {k: found[k] for k in found if k.startswith(prefix)}


def compare(found, one):
    """To rounding: what devices add up, they add in another order."""
    for name, value in parts(one, "state/").items():
        change = value - one[name.replace("state", "before", 1)]
        error = np.linalg.norm(found[name] - value)
        assert error <= 1e-3 * np.linalg.norm(change), name
    for name, value in parts(one, "metrics/").items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-3, atol=1e-3, err_msg=name
        )


def compare_latents(latents, one):
    for name, value in parts(one, "latents/").items():
        found = np.concatenate([x[name] for x in latents])
        if name.endswith("stoch"):  # random draws
            np.testing.assert_array_equal(found, value)
        else:
            np.testing.assert_allclose(found, value, atol=1e-4)


@pytest.mark.slow
def test_eight_devices_make_the_updates_of_one(one, tmp_path):
    path = tmp_path / "eight.npz"
    run((path, "data", 8))
    found = np.load(path)
    compare(found, one)
    compare_latents([found], one)
    # Percentiles over the batch and counters, beside the parameters.
    assert {"state/return_range/low", "state/updates"} <= set(found)
    assert found["bytes/held"] == found["bytes/all"]
    # Gradients go round once; returns, for their percentiles, are small.
    params = found["bytes/params"]
    assert params <= found["collectives/all-reduce"] < 1.5 * params
    assert found["collectives/all-gather"] < 0.1 * params
    assert found["collectives/all-to-all"] == 0


@pytest.mark.long
def test_two_processes_with_a_part_each_make_the_updates_of_one(one, tmp_path):
    address = free_address()
    paths = [tmp_path / f"{i}.npz" for i in range(2)]
    run(
        *(
            (path, "fsdp", 4, address, 2, index)
            for index, path in enumerate(paths)
        )
    )
    found = [np.load(path) for path in paths]
    for each in found:
        compare(each, one)
        # An eighth, but for what is too small to divide.
        assert each["bytes/held"] < 0.4 * each["bytes/all"]
        params = each["bytes/params"]
        assert 0.5 * params < each["collectives/all-gather"] < 3 * params
    compare_latents(found, one)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((LEAST,), 0),
        ((LEAST - 8,), None),  # too small
        ((128, 1024), 1),  # the longer one
        ((1024, 128), 0),
        ((3, 3, 64, 257), 2),  # the one that can be divided
        ((257, 255), None),
        ((), None),
    ],
)
def test_large_arrays_are_divided_along_their_longest_axis(shape, axis):
    assert axis_to_divide(shape, 8) == axis


def test_without_fsdp_everything_is_whole():
    layout = Layout([jax.devices()[0]], fsdp=False)
    shapes = {"kernel": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}
    assert layout.shardings(shapes) == {"kernel": layout.replicated}


def test_arrays_go_to_the_devices_and_back():
    layout = Layout([jax.devices()[0]], fsdp=False)
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.int32(4)}
    placed = layout.place(tree)
    assert placed["a"].sharding == layout.replicated
    np.testing.assert_array_equal(on_host(placed["a"]), tree["a"])
    assert layout.to_one_device(placed)["b"] == 4
    key = layout.replicate_key(jax.random.key(3))
    draws = [jax.random.bits(x) for x in (key, jax.random.key(3))]
    assert draws[0] == draws[1]


def test_one_device_does_what_several_do():
    several = Layout([jax.devices()[0]], fsdp=True)

    def public(layout):
        return {name for name in dir(layout) if not name.startswith("_")}

    assert public(ONE_DEVICE) == public(several)
    tree = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3)}
    key = jax.random.key(3)
    for layout in (ONE_DEVICE, several):
        found = [layout.place(tree), layout.replicate(tree)]
        found += [layout.shard_batch(tree), layout.gather(found[0])]
        found += [layout.to_one_device(found[0])]
        found += [layout.gather_to_host(found[0])]
        for each in found:
            np.testing.assert_array_equal(each["a"], tree["a"])
        assert layout.gather_to_host(found[0], keep=False) is None
        assert layout.replicate_key(key) == key
        assert layout.size == 1
