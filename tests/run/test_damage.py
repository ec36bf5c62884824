"""Damaged checkpoints are noticed, and an older one or a part is used."""

import errno
import json
import os
import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.replay import Positions, files
from dreamer.run import archive
from dreamer.trouble import may_pass
from tests.run import tiny
from tests.run.saved import (
    ARRAYS,
    assert_nothing_left_over,
    contents,
    filled,
    full_from,
    names,
    refused,
    restored,
    save,
    state,
)

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture
def two(tmp_path):
    """Two checkpoints whose chunks are all different."""
    save(tmp_path, 10)
    save(tmp_path, 20)
    return tmp_path


def own_files(logdir, step):
    """Every file that one checkpoint alone consists of."""
    folder = logdir / "ckpt" / str(step)
    manifest = json.loads((folder / "meta.json").read_text())["meta"]["replay"]
    chunks = [n for kind in manifest["files"].values() for n in kind]
    return [
        *sorted(folder.iterdir()),
        *(logdir / "replay" / n for n in chunks),
    ]


def assert_older_one_is_used(logdir, path):
    replay = tiny.make_replay()
    new_state, _, counters, reports = restored(logdir, replay)
    assert counters == {"policy_steps": 10}
    assert float(new_state.weight[0]) == 10.0
    tiny.assert_equal(tiny.contents(replay), tiny.contents(filled()))
    [report] = reports
    assert "checkpoint 20 is damaged" in report
    assert str(path) in report
    assert report.endswith("checkpoint 10 is used instead")
    assert "\n" not in report


def test_any_flipped_byte_or_truncation_is_noticed(two):
    rng = random.Random(0)
    for path in own_files(two, 20):
        whole = path.read_bytes()
        size = len(whole)
        for position in {0, size - 1, *rng.choices(range(size or 1), k=6)}:
            if size:
                flipped = bytearray(whole)
                flipped[position] ^= 1 << rng.randrange(8)
                path.write_bytes(flipped)
                assert_older_one_is_used(two, path)
        for damaged in (whole[:-1], whole[: size // 2], b"", whole + b"0"):
            if damaged != whole:
                path.write_bytes(damaged)
                assert_older_one_is_used(two, path)
        path.unlink()
        assert_older_one_is_used(two, path)
        os.mkfifo(path)  # opening it for reading would never end
        assert_older_one_is_used(two, path)
        path.unlink()
        path.write_bytes(whole)
    assert restored(two)[2:] == ({"policy_steps": 20}, [])


@pytest.mark.parametrize("name", ["meta.json", "state.arrays"])
def test_a_file_server_that_is_away_damages_nothing(two, monkeypatch, name):
    path = two / "ckpt" / "20" / name

    def away(file, *mode):
        if file == path:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(file))
        return open(file, *mode)

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", away, raising=False)
        with pytest.raises(OSError, match="Stale") as caught:
            restored(two, tiny.make_replay())
    assert may_pass(caught.value)
    _, _, counters, reports = restored(two, tiny.make_replay())
    assert (counters, reports) == ({"policy_steps": 20}, [])


@pytest.mark.parametrize("name", ["meta.json", "state.arrays"])
def test_a_file_of_somebody_else_is_not_damaged(two, monkeypatch, name):
    path = two / "ckpt" / "20" / name

    def forbidden(file, *mode):
        if file == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return open(file, *mode)

    monkeypatch.setattr(files, "open", forbidden, raising=False)
    with pytest.raises(ConfigError) as caught:
        restored(two, tiny.make_replay())
    assert str(caught.value) == f"{path}: Permission denied"
    assert (two / "ckpt" / "20").exists()


def test_every_byte_of_the_meta_file_counts(two):
    whole = (two / "ckpt" / "20" / "meta.json").read_bytes()
    body = archive._unseal(whole)
    assert json.loads(whole)["meta"] == json.loads(body)
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(ValueError, match="another checksum"):
            archive._unseal(bytes(flipped))


def test_after_going_back_the_damaged_one_is_replaced(two, open_):
    path = two / "ckpt" / "20" / "state.arrays"
    path.write_bytes(path.read_bytes()[:-1])
    checkpoints, replay = open_(two), tiny.make_replay()
    checkpoints.restore(state(0.0), replay)
    assert checkpoints.saved == 10
    for steps, left in (
        (15, {"10", "15"}),
        (20, {"15", "20"}),
        (25, {"20", "25"}),
    ):
        counters = {"policy_steps": steps}
        checkpoints.save(steps, state(steps), replay, {}, counters)
        checkpoints.wait()
        assert checkpoints.error is None
        assert names(two) == left
    assert_nothing_left_over(two)
    assert restored(two, tiny.make_replay())[3] == []


def test_a_run_may_reach_the_same_step_after_going_back(two, open_):
    path = two / "ckpt" / "20" / "meta.json"
    path.write_text("{")
    checkpoints, replay = open_(two), tiny.make_replay()
    checkpoints.restore(state(0.0), replay)
    checkpoints.save(20, state(21), replay, {}, {"policy_steps": 20})
    checkpoints.close()
    assert checkpoints.error is None
    assert names(two) == {"10", "20"}
    assert_nothing_left_over(two)
    assert float(restored(two)[0].weight[0]) == 21.0


def test_the_damaged_one_stays_until_another_is_complete(two, open_):
    path = two / "ckpt" / "20" / "state.arrays"
    path.write_bytes(b"")
    checkpoints, replay = open_(two), tiny.make_replay()
    checkpoints.restore(state(0.0), replay)
    before = contents(two)
    with pytest.MonkeyPatch.context() as patch:
        full_from(patch, 3)
        checkpoints.save(15, state(15), replay, {}, {})
        checkpoints.wait()
    assert checkpoints.error is not None
    assert contents(two) == before


def test_a_damaged_older_checkpoint_stops_no_run(two):
    (two / "ckpt" / "20" / "meta.json").write_text("{")
    before = set((two / "replay").iterdir())
    save(two, 30)
    assert names(two) == {"20", "30"}
    # Nobody knows which files the older one needs.
    assert before <= set((two / "replay").iterdir())
    save(two, 40)
    assert names(two) == {"30", "40"}
    assert_nothing_left_over(two)


@pytest.mark.parametrize("step", [10, 20])
def test_a_link_that_leads_nowhere_stops_no_run(two, step):
    """As where somebody moved a checkpoint, and then lost it."""
    shutil.rmtree(two / "ckpt" / str(step))
    (two / "ckpt" / str(step)).symlink_to(two / "nowhere")
    assert restored(two)[2]["policy_steps"] == 30 - step
    for new in (20, 30, 40):
        save(two, new)
    assert {x for x in names(two) if x.isdigit()} == {"30", "40"}


@pytest.fixture
def shared(tmp_path, open_):
    """Two checkpoints that share chunks: time 29 and 33, chunks of 8."""
    checkpoints, replay = open_(tmp_path), filled(29)
    checkpoints.save(10, state(10), replay, {}, {"policy_steps": 10})
    for step in tiny.steps(4, 29):
        replay.add(step)
    checkpoints.save(20, state(20), replay, ARRAYS, {"policy_steps": 20})
    checkpoints.close()
    return tmp_path, replay


@pytest.mark.parametrize("kind", ["fields", "latents"])
@pytest.mark.parametrize("chunk", [16, 24])
def test_of_a_chunk_that_all_need_the_newer_steps_are_kept(
    shared, open_, kind, chunk
):
    logdir, replay = shared
    span = {16: "16-24", 24: "24-32"}[chunk]
    for path in (logdir / "replay").glob(f"{kind}-1-{chunk}-*"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    # The older one needs the second chunk only up to 29: another file.
    checkpoints, again = open_(logdir), tiny.make_replay()
    _, arrays, counters = checkpoints.restore(state(0.0), again)
    assert counters == {"policy_steps": 20}
    assert arrays.keys() == ARRAYS.keys()
    assert again._oldest == chunk + 8
    assert all(start >= chunk + 8 for _, start in again._queue)
    window = Positions(np.array([0, 1]), np.array([29, 29]))
    if again.windows:
        tiny.assert_equal(again.gather(window), replay.gather(window))
    lines = checkpoints.reports
    assert f"{kind}-1-{span}" in lines[0]
    lost = 2 * (chunk + 8 - 13)
    assert f"it is used without the oldest {lost} steps" in lines[0]
    assert lines[1].startswith("checkpoint 10 is damaged")
    # The run goes on, and its next checkpoint is whole.
    for step in tiny.steps(20, 33):
        again.add(step)
        if again.windows:
            drawn = again.draw(3)
            assert drawn.start.min() >= again._oldest
            again.gather(drawn)
    checkpoints.save(30, state(30), again, {}, {"policy_steps": 30})
    checkpoints.wait()
    other = tiny.make_replay()
    assert restored(logdir, other)[3] == []
    tiny.assert_equal(tiny.contents(other), tiny.contents(again))


def test_with_the_newest_chunk_all_steps_may_be_lost(tmp_path, open_):
    save(tmp_path, 10)  # time 21
    for path in (tmp_path / "replay").glob("latents-0-16-*"):
        path.unlink()
    checkpoints, again = open_(tmp_path), tiny.make_replay()
    checkpoints.restore(state(0.0), again)
    assert len(again) == again.windows == 0
    assert not again._queue
    assert "without the oldest 40 steps" in checkpoints.reports[0]
    for count in range(9):
        counters = {"policy_steps": 20 + count}
        checkpoints.save(20 + count, state(1.0), again, {}, counters)
        checkpoints.wait()
        assert checkpoints.error is None
        other = tiny.make_replay()
        assert restored(tmp_path, other)[2:] == (counters, [])
        assert len(other) == 2 * count
        again.add(next(tiny.steps(1, count)))


def test_when_nothing_can_be_used_all_damage_is_named(two):
    for step in (10, 20):
        (two / "ckpt" / str(step) / "state.arrays").unlink()
    refused(two, r"whole: 20 \(.*20/state\.arrays.*; 10 \(.*10/state")


def test_another_format_is_refused_at_once(two, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(archive, "FORMAT", 3)
        save(two, 30)
    refused(two, "30: this checkpoint has format 3, and .* reads format 2")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (jnp.zeros(4), r"'weight' is float32\[3\] in it, float32\[4\] here"),
        (
            jnp.zeros(3, int),
            r"'weight' is float32\[3\] in it, int32\[3\] here",
        ),
        ({"a": jnp.zeros(3)}, r"'weight' is float32\[3\] in it, none here"),
    ],
)
def test_an_agent_of_other_sizes_is_refused_at_once(two, weight, message):
    like = state(0.0).replace(weight=weight)
    words = "20: .* holds other parameters than this agent has: "
    refused(two, words + message, like)


def test_a_replay_of_another_make_is_refused_at_once(two, open_):
    replay = tiny.make_replay(length=4)
    with pytest.raises(ValueError, match="length is 3 in the checkpoint, 4"):
        open_(two).restore(state(0.0), replay)
