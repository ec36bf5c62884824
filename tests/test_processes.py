"""Runs of several devices and processes, on this machine's loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamer import status
from dreamer.run.archive import read_meta
from dreamer.run.shelf import saved_steps
from dreamer.settings import load
from dreamer.train import FAILED, INTERRUPTED, REFUSED
from dreamer.train_ratio import schedule

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--configs", "debug", "--task", "gym_CartPole-v1"]
FLAGS += ["--run.envs", "2", "--run.save_every", "1e9"]
# The least that is divided among devices, see layout.py.
FLAGS += ["--agent.dyn.rssm.deter", "256", "--agent.dyn.rssm.hidden", "64"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled programs, shared by the tests."""
    default = str(tmp_path_factory.mktemp("cache"))
    return os.environ.get("JAX_COMPILATION_CACHE_DIR", default)


def start(cache, logdir, *flags, steps=400, devices=1):
    flag = f"--xla_force_host_platform_device_count={devices}"
    env = dict(
        os.environ,
        JAX_COMPILATION_CACHE_DIR=cache,
        JAX_PLATFORMS="cpu",
        JAX_DISABLE_MOST_OPTIMIZATIONS="true",  # compiles sooner
        XLA_FLAGS=flag,
        PYTHONPATH=str(ROOT),
    )
    command = [sys.executable, "-P", "-m", "dreamer.train", *FLAGS]
    command += ["--logdir", logdir, "--run.steps", steps, *flags]
    return subprocess.Popen(
        list(map(str, command)),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(cache, logdir, steps, *flags):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    meet = ["--jax.coordinator", address, "--jax.processes", 2, *flags]
    return [
        start(cache, logdir, *meet, "--jax.process", index, steps=steps)
        for index in range(2)
    ]


def ends(*processes, code=0):
    """What they printed, once all have ended with this exit code."""
    outputs = [process.communicate(timeout=400) for process in processes]
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == code, out + err
    return outputs


def wait_for(logdir, processes, holds):
    """Until status.json, once there is one, says so."""
    while not ((found := status.read(logdir)) and holds(found)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


def rows(logdir):
    lines = (logdir / "scores.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def counters(logdir):
    steps = max(saved_steps(logdir / "ckpt"))
    return read_meta(logdir / "ckpt" / str(steps))["counters"]


def test_two_processes_stop_and_go_on_together(cache, tmp_path):
    logdir, second = tmp_path / "run", tmp_path / "run" / "processes" / "1"
    divided = ["--jax.fsdp", "true"]
    processes = start_two(cache, logdir, 100_000, *divided)
    wait_for(logdir, processes, lambda x: (x["updates"] or 0) > 2)
    processes[1].send_signal(signal.SIGTERM)  # the one that does not lead
    (out, _), (other_out, _) = ends(*processes, code=INTERRUPTED)
    assert "Interrupted" in out
    assert "policy steps" in out
    assert "policy steps" not in other_out  # one speaks for all
    assert status.read(logdir)["state"] == "interrupted"
    # Both have the same checkpoint, and the parameters are written once.
    assert saved_steps(logdir / "ckpt") == saved_steps(second / "ckpt")
    (steps,) = saved_steps(second / "ckpt")
    files = {x.name for x in (second / "ckpt" / str(steps)).iterdir()}
    assert "learner.arrays" in files
    assert "state.arrays" not in files
    assert not (second / "scores.jsonl").exists()
    scored = rows(logdir)
    assert {row["step"] for row in scored}

    # Another number of processes cannot use their replays.
    ((_, said),) = ends(start(cache, logdir, steps=100_000), code=REFUSED)
    assert said.count("\n") == 1
    assert "envs" in said or "processes" in said

    # When one is killed, the other says so and ends.
    processes = start_two(cache, logdir, 100_000)
    wait_for(logdir, processes, lambda x: x["policy_steps"] > steps)
    processes[1].kill()
    processes[1].communicate()
    ((_, said),) = ends(processes[0], code=FAILED)
    assert "another process of this run is gone" in said
    assert "Traceback" not in said
    assert status.read(logdir)["state"] == "failed"

    more = steps + 100
    ends(*start_two(cache, logdir, more))
    assert saved_steps(second / "ckpt") == {steps, more}
    # Both go back behind damage to the part of one.
    path = second / "ckpt" / str(more) / "envs.arrays"
    path.write_bytes(path.read_bytes()[:-1])
    (out, _), (other_out, _) = ends(*start_two(cache, logdir, more))
    for said in (out, other_out):
        assert f"checkpoint {more} is damaged (" in said
        assert f"checkpoint {steps} is used instead" in said
    assert f"Continues at policy step {steps:,} " in out
    assert saved_steps(second / "ckpt") == {steps, more}
    assert status.read(logdir)["state"] == "done"
    assert rows(logdir)[: len(scored)] == scored
    planned = schedule(load([*FLAGS, "--run.steps", str(more)]))
    found = counters(logdir)
    assert found["policy_steps"] == more
    assert found["owed"] == 0
    report = json.loads((logdir / "status.json").read_text())
    assert report["updates"] == planned.total_updates

    # As if killed when one of them had not written its first.
    shutil.rmtree(second / "ckpt")
    shutil.rmtree(logdir / "ckpt" / str(steps))
    (out, _), _ = ends(*start_two(cache, logdir, 100))
    assert f"checkpoint {more} is not of all processes" in out
    assert saved_steps(logdir / "ckpt") == saved_steps(second / "ckpt")
    assert saved_steps(logdir / "ckpt") == {100}
    assert all(0 < row["step"] <= 100 for row in rows(logdir))


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_devices(cache, tmp_path):
    logdir = tmp_path / "run"
    shared = ["--jax.devices", 2, "--jax.fsdp", "true"]
    first = start(cache, logdir, *shared, steps=200, devices=2)
    ((out, _),) = ends(first)
    assert "2 devices" in out
    ((out, _),) = ends(start(cache, logdir))
    assert "Continues at policy step 200" in out
    found = json.loads((logdir / "status.json").read_text())
    assert found["policy_steps"] == 400
    assert (
        found["updates"]
        == schedule(load([*FLAGS, "--run.steps", "400"])).total_updates
    )


def test_each_process_says_why_it_refuses(cache, tmp_path):
    logdir = tmp_path / "run"
    processes = start_two(cache, logdir, 400, "--batch_size", 5)
    for _, err in ends(*processes, code=REFUSED):
        said = [x for x in err.splitlines() if x.startswith("dreamer.train")]
        assert said == [
            "dreamer.train: batch_size=5: expected a multiple of the 2"
            " processes"
        ]
        assert "Traceback" not in err
    assert not logdir.exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--jax.devices", 3], "jax.devices=3: JAX finds 2 of kind cpu"),
        (
            ["--jax.devices", 2, "--batch_size", 3],
            "jax.devices=2: 2 devices cannot share batch_size=3",
        ),
        (["--jax.coordinator", "auto"], "jax.coordinator=auto: found no"),
    ],
)
def test_what_cannot_be_shared_is_refused(cache, tmp_path, flags, said):
    logdir = tmp_path / "run"
    process = start(cache, logdir, *flags, devices=2)
    ((_, err),) = ends(process, code=REFUSED)
    assert said in err
    assert err.count("\n") == 1
    assert not logdir.exists()


def test_one_that_finds_no_other_may_do_so_the_next_time(cache, tmp_path):
    logdir = tmp_path / "run"
    flags = ["--jax.coordinator", "127.0.0.1:9", "--jax.processes", 2]
    flags += ["--jax.process", 1, "--jax.join_timeout", 0.5]
    ((_, err),) = ends(start(cache, logdir, *flags), code=FAILED)
    assert "process 0 does not answer" in err
    assert err.count("\n") == 1
    assert not logdir.exists()
