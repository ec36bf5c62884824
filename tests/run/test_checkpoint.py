"""Checkpoints: whole or absent, two of them, nothing left behind."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.run import checkpoint
from dreamer.run.checkpoint import Checkpoints
from tests.run import tiny


@pytest.fixture
def open_():
    opened = []

    def make(logdir):
        opened.append(Checkpoints(logdir))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def state(value):
    return tiny.State(
        weight=jnp.full(3, value), updates=jnp.array(int(value), jnp.int32)
    )


def files(logdir):
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in logdir.rglob("*")
    }


def restored(logdir):
    checkpoints = Checkpoints(logdir)
    try:
        return checkpoints.restore(state(0.0), tiny.make_replay())
    finally:
        checkpoints.close()


def test_opening_touches_nothing(tmp_path, open_):
    checkpoints = open_(tmp_path / "run")
    assert checkpoints.latest is None
    checkpoints.close()
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="there is no checkpoint"):
        checkpoints.restore(state(0.0), tiny.make_replay())


def test_what_is_saved_comes_back(tmp_path, open_):
    checkpoints, replay = open_(tmp_path), tiny.make_replay()
    for step in tiny.steps(9):
        replay.add(step)
    batch = {
        "deter": np.ones((2, 3), jnp.bfloat16),
        "image": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "is_first": np.array([True, False]),
    }
    pending = {"batch": batch, "env": np.arange(2), "start": np.arange(2) + 7}
    counters = {"policy_steps": 18, "score": None, "ratio": {"given": 3}}
    checkpoints.save(18, state(5.0), replay, pending, counters)
    checkpoints.close()

    again = tiny.make_replay()
    new_state, new_pending, new_counters = open_(tmp_path).restore(
        state(0.0), again
    )
    tiny.assert_equal(new_state, state(5.0))
    tiny.assert_equal(new_pending, pending)
    assert new_pending["batch"]["deter"].dtype == jnp.bfloat16
    assert new_pending["env"].dtype == np.int64
    assert new_counters == counters
    tiny.assert_equal(tiny.contents(again), tiny.contents(replay))


def test_a_restored_state_does_not_compile_an_update_anew(tmp_path, open_):
    checkpoints = open_(tmp_path)
    checkpoints.save(1, state(5.0), tiny.make_replay(), None, {})
    checkpoints.close()
    new_state, pending, _ = restored(tmp_path)
    assert pending is None
    assert not new_state.weight.committed


def test_newest_two_are_kept_and_only_their_replay_files(tmp_path, open_):
    checkpoints, replay = open_(tmp_path), tiny.make_replay()
    for index in range(1, 5):
        for step in tiny.steps(5, 5 * index):
            replay.add(step)
        checkpoints.save(index, state(float(index)), replay, None, {})
    checkpoints.close()
    names = {path.name for path in (tmp_path / "ckpt").iterdir()}
    assert names == {"3", "4"}
    listed = set()
    for name in names:
        text = (tmp_path / "ckpt" / name / "meta" / "metadata").read_text()
        for entries in json.loads(text)["replay"]["files"].values():
            listed |= {entry["name"] for entry in entries}
    assert {path.name for path in (tmp_path / "replay").iterdir()} == listed
    assert float(restored(tmp_path)[0].weight[0]) == 4.0


def test_a_save_that_was_killed_is_as_if_it_had_not_begun(tmp_path, open_):
    checkpoints = open_(tmp_path)
    checkpoints.save(10, state(1.0), tiny.make_replay(), None, {})
    checkpoints.close()
    torn = tmp_path / "ckpt" / "20.orbax-checkpoint-tmp-17"
    torn.mkdir()
    (torn / "state").write_text("half of it")

    checkpoints = open_(tmp_path)
    assert checkpoints.latest == 10
    assert float(restored(tmp_path)[0].weight[0]) == 1.0
    assert torn.exists()
    checkpoints.save(20, state(2.0), tiny.make_replay(), None, {})
    checkpoints.close()
    assert not torn.exists()
    assert float(restored(tmp_path)[0].weight[0]) == 2.0


def test_a_save_does_not_see_what_becomes_of_a_donated_state(tmp_path, open_):
    checkpoints = open_(tmp_path)
    # Large enough that it is still being written when it is overwritten.
    big = {"weight": jnp.zeros(4_000_000)}
    update = jax.jit(lambda x: {"weight": x["weight"] + 1}, donate_argnums=0)
    checkpoints.save(1, big, tiny.make_replay(), None, {})
    for _ in range(20):
        big = update(big)
    jax.block_until_ready(big)
    checkpoints.close()
    saved, *_ = open_(tmp_path).restore(big, tiny.make_replay())
    assert not np.asarray(saved["weight"]).any()


def refused(logdir, match, like=None):
    before = files(logdir)
    checkpoints = Checkpoints(logdir)
    with pytest.raises(ValueError, match=match) as error:
        checkpoints.restore(like or state(0.0), tiny.make_replay())
    checkpoints.close()
    assert "\n" not in str(error.value)
    assert str(logdir) in str(error.value)
    assert files(logdir) == before


@pytest.fixture
def saved(tmp_path, open_):
    checkpoints, replay = open_(tmp_path), tiny.make_replay()
    for step in tiny.steps(9):
        replay.add(step)
    checkpoints.save(18, state(5.0), replay, None, {"score": 1.0})
    checkpoints.close()
    return tmp_path


def test_another_format_is_refused(saved, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    refused(saved, "has format 1, and this version reads format 2")


def test_an_agent_of_other_sizes_is_refused(saved):
    weight = jnp.zeros(4)
    refused(saved, "not of this agent", state(0.0).replace(weight=weight))


@pytest.mark.parametrize("text", ["{", "", "[]", '{"replay": {}}'])
def test_damaged_counters_are_refused(saved, text):
    (saved / "ckpt" / "18" / "meta" / "metadata").write_text(text)
    refused(saved, "damaged")


def test_a_missing_state_is_refused(saved):
    for path in (saved / "ckpt" / "18" / "state").rglob("*"):
        if path.is_file():
            path.unlink()
    refused(saved, "damaged")


def test_a_damaged_replay_file_is_refused(saved):
    path = sorted((saved / "replay").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    refused(saved, "damaged")


def test_a_refused_restore_leaves_unknown_files_alone(saved):
    (saved / "replay" / ("fields-0-0-9-" + "0" * 32 + ".chunk")).touch()
    (saved / "ckpt" / "18" / "meta" / "metadata").write_text("{")
    refused(saved, "damaged")


def test_a_damaged_older_checkpoint_stops_no_run(saved, open_):
    (saved / "ckpt" / "18" / "meta" / "metadata").write_text("{")
    checkpoints = open_(saved)
    before = set((saved / "replay").iterdir())
    checkpoints.save(20, state(6.0), tiny.make_replay(), None, {})
    checkpoints.close()
    assert before <= set((saved / "replay").iterdir())
    assert float(restored(saved)[0].weight[0]) == 6.0


def test_a_write_that_fails_is_reported(tmp_path, open_):
    (tmp_path / "replay").write_text("in the way")
    with pytest.raises(OSError):
        open_(tmp_path).save(1, state(1.0), tiny.make_replay(), None, {})
    assert not list(Path(tmp_path / "ckpt").iterdir())
