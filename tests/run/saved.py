"""Small checkpoints, for tests to write, read and damage."""

import contextlib
import errno
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.run.checkpoint import Checkpoints
from tests.run import tiny

ARRAYS = {
    "learner": {
        "batch/deter": np.ones((2, 3), jnp.bfloat16),
        "batch/image": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "is_first": np.array([True, False]),
        "start": np.arange(2) + 7,
    },
    "driver": {
        "none": np.zeros((0, 4), np.float32),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "one": np.array(5, np.int64),
    },
    "envs": {},
}


def state(value):
    return tiny.State(
        weight=jnp.full(3, float(value)),
        updates=jnp.array(int(value), jnp.int32),
    )


def filled(count=21, **kwargs):
    replay = tiny.make_replay(**kwargs)
    for step in tiny.steps(count):
        replay.add(step)
    return replay


def contents(logdir):
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in logdir.rglob("*")
    }


def save(logdir, step, replay=None, arrays=ARRAYS, value=None):
    """A checkpoint, complete when this returns."""
    with contextlib.closing(Checkpoints(logdir)) as checkpoints:
        replay = replay or filled()
        value = step if value is None else value
        counters = {"policy_steps": step}
        checkpoints.save(step, state(value), replay, arrays, counters)
        checkpoints.wait()
        assert checkpoints.error is None
        assert checkpoints.saved == checkpoints.latest == step
    return replay


def restored(logdir, replay=None):
    """What is restored, and the reports."""
    with contextlib.closing(Checkpoints(logdir)) as checkpoints:
        replay = tiny.make_replay() if replay is None else replay
        result = checkpoints.restore(state(0.0), replay)
        assert checkpoints.saved == result[2]["policy_steps"]
        return *result, checkpoints.reports


def refused(logdir, match, like=None):
    before = contents(logdir)
    checkpoints = Checkpoints(logdir)
    with pytest.raises(ValueError, match=match) as error:
        checkpoints.restore(like or state(0.0), tiny.make_replay())
    checkpoints.close()
    assert str(error.value).isprintable()
    assert str(logdir) in str(error.value)
    assert contents(logdir) == before


def names(logdir):
    return {path.name for path in (logdir / "ckpt").iterdir()}


def listed(logdir):
    """Chunk files that some checkpoint names."""
    metas = (logdir / "ckpt").glob("*/meta.json")
    manifests = [json.loads(x.read_text())["meta"]["replay"] for x in metas]
    return {n for m in manifests for kind in m["files"].values() for n in kind}


def assert_nothing_left_over(logdir):
    assert not [path for path in logdir.rglob("*") if ".tmp" in path.name]
    assert {path.name for path in (logdir / "replay").iterdir()} == listed(
        logdir
    )


def full_from(monkeypatch, failing):
    """The disk is full from the n-th sync on; gives the list of syncs."""
    calls, fsync = [], os.fsync

    def full_disk(descriptor):
        calls.append(descriptor)
        if len(calls) >= failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    return calls
