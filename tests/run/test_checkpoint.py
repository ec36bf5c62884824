"""Checkpoints: whole or absent, two of them, nothing left behind."""

import contextlib
import errno
import itertools
import json
import os
import resource
import shutil
import subprocess
import threading
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dreamer.replay import Positions, disk, files
from dreamer.run import checkpoint
from dreamer.run.checkpoint import Checkpoints
from tests.run import tiny
from tests.run.saved import (
    ARRAYS,
    assert_nothing_left_over,
    contents,
    filled,
    full_from,
    listed,
    names,
    restored,
    save,
    state,
)

pytestmark = pytest.mark.usefixtures("small_chunks")


def test_opening_touches_nothing(tmp_path, open_):
    checkpoints = open_(tmp_path / "run")
    assert checkpoints.latest is checkpoints.saved is None
    checkpoints.wait()
    checkpoints.close()
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="there is no checkpoint"):
        checkpoints.restore(state(0.0), tiny.make_replay())


def test_what_is_saved_comes_back(tmp_path):
    counters = {"policy_steps": 18, "score": None, "ratio": {"given": 3}}
    replay = filled()
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(18, state(5.0), replay, ARRAYS, counters)
        counters["ratio"]["given"] = 4
    again = tiny.make_replay()
    new_state, arrays, new_counters, reports = restored(tmp_path, again)
    tiny.assert_equal(new_state, state(5.0))
    assert arrays.keys() == ARRAYS.keys()
    for owner, group in ARRAYS.items():
        assert list(arrays[owner]) == list(group)
        for name, array in group.items():
            assert arrays[owner][name].dtype == array.dtype
            assert arrays[owner][name].shape == array.shape
            np.testing.assert_array_equal(arrays[owner][name], array)
            assert arrays[owner][name].flags.writeable
    assert new_counters == {**counters, "ratio": {"given": 3}}
    assert reports == []
    tiny.assert_equal(tiny.contents(again), tiny.contents(replay))


def test_numpy_alone_reads_the_weights(tmp_path):
    save(tmp_path, 18, value=5.0)
    folder = tmp_path / "ckpt" / "18"
    meta = json.loads((folder / "meta.json").read_text())["meta"]
    read = {}
    for owner in ("state", "learner"):
        with open(folder / f"{owner}.arrays", "rb") as stream:
            for name, _, shape in meta["files"][owner]["arrays"]:
                read[name] = np.load(stream, allow_pickle=False)
                assert list(read[name].shape) == shape
            assert not stream.read()
    np.testing.assert_array_equal(read["weight"], np.full(3, 5, np.float32))
    deter = read["batch/deter"].view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(deter, ARRAYS["learner"]["batch/deter"])


def test_a_restored_state_does_not_compile_an_update_anew(tmp_path):
    save(tmp_path, 1, arrays={})
    new_state, arrays, *_ = restored(tmp_path)
    assert arrays == {}
    assert not new_state.weight.committed


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_saving_a_step_again_replaces_it(tmp_path, open_, killed_after):
    """At no instant there is none of them."""
    save(tmp_path, 10, value=1)
    renamed, rename = [], Path.rename

    def die(path, target):
        if path.parent.name == "ckpt":
            if len(renamed) == killed_after:
                raise KeyboardInterrupt
            renamed.append(path)
        return rename(path, target)

    checkpoints = open_(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", die)
        checkpoints.save(10, state(2), filled(), {}, {"policy_steps": 10})
        with contextlib.suppress(KeyboardInterrupt):
            checkpoints.wait()
    assert open_(tmp_path).latest == 10
    value = 2 if killed_after == 2 else 1
    new_state, _, counters, reports = restored(tmp_path)
    assert (counters, reports) == ({"policy_steps": 10}, [])
    assert float(new_state.weight[0]) == value
    save(tmp_path, 10, value=3)
    assert names(tmp_path) == {"10"}
    assert_nothing_left_over(tmp_path)
    assert float(restored(tmp_path)[0].weight[0]) == 3.0


def test_arrays_of_no_numbers_are_refused_at_once(tmp_path, open_):
    arrays = {"driver": {"x": np.array(["text"])}}
    with pytest.raises(ValueError, match="array x: no file holds"):
        open_(tmp_path).save(1, state(1.0), filled(), arrays, {})
    assert not list(tmp_path.iterdir())


def test_newest_two_are_kept_and_only_their_replay_files(tmp_path, open_):
    checkpoints, replay = open_(tmp_path), tiny.make_replay()
    for index in range(1, 5):
        for step in tiny.steps(5, 5 * index):
            replay.add(step)
        counters = {"policy_steps": index}
        checkpoints.save(index, state(index), replay, {}, counters)
    checkpoints.close()
    assert names(tmp_path) == {"3", "4"}
    assert_nothing_left_over(tmp_path)
    assert float(restored(tmp_path)[0].weight[0]) == 4.0


def test_a_save_that_was_killed_is_as_if_it_had_not_begun(tmp_path):
    save(tmp_path, 10)
    torn = tmp_path / "ckpt" / "20.tmp"
    torn.mkdir()
    (torn / "state.arrays.tmp").write_text("half of it")
    old = tmp_path / "ckpt" / "5.old.tmp"
    shutil.copytree(tmp_path / "ckpt" / "10", old)
    orphan = tmp_path / "replay" / f"fields-0-0-8-{'0' * 32}.chunk"
    for path in (orphan, orphan.with_name(orphan.name + ".tmp")):
        path.write_text("half")
    mine = tmp_path / "ckpt" / "notes.tmp"
    mine.write_text("of a person")
    link = tmp_path / "ckpt" / "7.tmp"
    link.symlink_to(tmp_path / "ckpt" / "10")

    assert float(restored(tmp_path)[0].weight[0]) == 10.0
    assert torn.exists()
    save(tmp_path, 20)
    assert names(tmp_path) == {"10", "20", "notes.tmp", "7.tmp"}
    mine.unlink()
    link.unlink()
    assert_nothing_left_over(tmp_path)


# Saving in the background


@pytest.fixture
def slow_disk(monkeypatch):
    """Files are written when the event is set."""
    go_on = threading.Event()
    write = files.write_arrays

    def wait(path, arrays):
        assert go_on.wait(30)
        return write(path, arrays)

    monkeypatch.setattr(files, "write_arrays", wait)
    monkeypatch.setattr(disk, "write_arrays", wait)
    yield go_on
    go_on.set()


def test_a_save_does_not_see_what_happens_later(tmp_path, open_, slow_disk):
    checkpoints, replay = open_(tmp_path), filled()
    big = {"weight": jnp.zeros(100_000)}
    update = jax.jit(lambda x: {"weight": x["weight"] + 1}, donate_argnums=0)
    arrays = {"envs": {"x": np.zeros(5)}}
    before = tiny.contents(replay)
    queue, rng = list(replay._queue), replay._rng.bit_generator.state
    checkpoints.save(1, big, replay, arrays, {"policy_steps": 1})
    assert checkpoints.saved is None
    for _ in range(20):
        big = update(big)
    jax.block_until_ready(big)
    arrays["envs"]["x"][:] = 1
    positions = Positions(np.array([0]), np.array([3]))
    deter = np.full((1, 3, 3), 9, jnp.bfloat16)
    stoch = np.full((1, 3, 2), 9, np.uint8)
    replay.write_back(positions, {"deter": deter, "stoch": stoch})
    for step in tiny.steps(30, 21):  # all that was saved is overwritten
        replay.add(step)
    replay.gather(replay.draw(20))
    slow_disk.set()
    checkpoints.wait()
    assert checkpoints.saved == 1

    again = tiny.make_replay()
    saved, arrays, _ = open_(tmp_path).restore(big, again)
    assert not np.asarray(saved["weight"]).any()
    assert not arrays["envs"]["x"].any()
    tiny.assert_equal(tiny.contents(again), before)
    assert list(again._queue) == queue
    assert again._rng.bit_generator.state == rng
    # The next save knows what the write-back changed during the first.
    checkpoints.save(2, big, replay, {}, {})
    checkpoints.wait()
    again = tiny.make_replay()
    open_(tmp_path).restore(big, again)
    tiny.assert_equal(tiny.contents(again), tiny.contents(replay))


def test_a_further_save_waits_for_the_one_before(tmp_path, open_, slow_disk):
    checkpoints = open_(tmp_path)
    checkpoints.save(1, state(1.0), filled(), {}, {})
    held_up = checkpoints.paused
    threading.Timer(0.2, slow_disk.set).start()
    checkpoints.save(2, state(2.0), filled(), {}, {})
    assert checkpoints.saved == 1
    assert checkpoints.paused - held_up > 0.1
    checkpoints.close()
    assert checkpoints.saved == 2


def test_copies_wait_while_too_much_is_unwritten(
    tmp_path, open_, slow_disk, monkeypatch
):
    monkeypatch.setattr(checkpoint, "QUEUE_BYTES", 1)
    checkpoints, replay = open_(tmp_path), filled()
    saving = threading.Thread(
        target=checkpoints.save,
        args=(1, state(1.0), replay, ARRAYS, {"policy_steps": 1}),
    )
    saving.start()
    saving.join(0.5)
    assert saving.is_alive()  # until the disk goes on
    slow_disk.set()
    saving.join(30)
    assert not saving.is_alive()
    assert checkpoints.paused > 0
    checkpoints.close()
    again = tiny.make_replay()
    assert restored(tmp_path, again)[2] == {"policy_steps": 1}
    tiny.assert_equal(tiny.contents(again), tiny.contents(replay))


def test_what_a_checkpoint_names_is_on_disk_before_it(tmp_path, monkeypatch):
    """As after a power failure: only what was synced is there."""
    events, fsync = [], os.fsync

    def logged(rename):
        def log_rename(path, target):
            events.append(("rename", str(path), str(target)))
            rename(path, target)

        return log_rename

    def log_fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append(("sync", path, None))
        fsync(descriptor)

    monkeypatch.setattr(os, "rename", logged(os.rename))
    monkeypatch.setattr(os, "replace", logged(os.replace))
    monkeypatch.setattr(os, "fsync", log_fsync)
    save(tmp_path, 10)
    last = ("rename", f"{tmp_path}/ckpt/10.tmp", f"{tmp_path}/ckpt/10")
    before = events[: events.index(last)]
    for index, (kind, path, target) in enumerate(before):
        if kind == "rename":
            assert ("sync", path, None) in before[:index]
            folder = str(Path(target).parent)
            assert ("sync", folder, None) in before[index:]
    renamed = {target for kind, _, target in before if kind == "rename"}
    files = {str(x) for x in (tmp_path / "replay").iterdir()}
    for path in (tmp_path / "ckpt" / "10").iterdir():
        files.add(f"{tmp_path}/ckpt/10.tmp/{path.name}")
    assert renamed == files
    assert ("sync", str(tmp_path), None) in before
    assert events[-1] == ("sync", f"{tmp_path}/ckpt", None)


def test_other_errors_are_raised_by_the_next_call(tmp_path, open_):
    checkpoints = open_(tmp_path)
    checkpoints.save(1, state(1.0), filled(), {}, {"not": {"json"}})
    with pytest.raises(TypeError, match="JSON"):
        checkpoints.save(2, state(2.0), filled(), {}, {})
    checkpoints.save(3, state(3.0), filled(), {}, {"policy_steps": 3})
    checkpoints.close()
    assert names(tmp_path) == {"3"}
    assert_nothing_left_over(tmp_path)


# Failing writes


def test_a_full_disk_at_any_moment_harms_nothing(tmp_path):
    """Every sync of a save fails once, and all that follow it."""
    failing = 0
    while failing is not None:
        failing += 1
        logdir = tmp_path / str(failing)
        replay = save(logdir, 10)
        before = contents(logdir)
        for step in tiny.steps(9, 21):
            replay.add(step)
        with contextlib.closing(Checkpoints(logdir)) as checkpoints:
            args = (state(20), replay, ARRAYS, {"policy_steps": 20})
            with pytest.MonkeyPatch.context() as patch:
                calls = full_from(patch, failing)
                checkpoints.save(20, *args)
                checkpoints.wait()
            if len(calls) < failing:
                assert checkpoints.error is None
                break
            assert checkpoints.error.errno == errno.ENOSPC
            assert "\n" not in str(checkpoints.error)
            assert checkpoints.saved == 10
            # The last sync is of the name that a whole checkpoint just got.
            whole = 20 if names(logdir) == {"10", "20"} else 10
            assert (contents(logdir) == before) == (whole == 10)
            assert restored(logdir)[2] == {"policy_steps": whole}
            checkpoints.save(20, *args)
            checkpoints.wait()
            assert checkpoints.error is None
            assert checkpoints.saved == 20
        again = tiny.make_replay()
        assert restored(logdir, again)[2] == {"policy_steps": 20}
        tiny.assert_equal(tiny.contents(again), tiny.contents(replay))
        assert_nothing_left_over(logdir)
    assert failing > 15


def test_what_could_not_be_removed_is_removed_later(tmp_path, open_):
    def stay(path):
        raise OSError(errno.EROFS, "Read-only file system")

    def hesitate(path, rmtree=shutil.rmtree):
        time.sleep(0.1)
        rmtree(path)

    replay = save(tmp_path, 10)
    checkpoints = open_(tmp_path)
    args = (state(20), replay, ARRAYS, {"policy_steps": 20})
    checkpoints.save(15, *args)
    checkpoints.wait()
    for step in tiny.steps(9, 21):
        replay.add(step)
    with pytest.MonkeyPatch.context() as patch:
        full_from(patch, 10)
        patch.setattr(shutil, "rmtree", stay)
        checkpoints.save(20, *args)
        checkpoints.wait()
    assert checkpoints.error.errno == errno.ENOSPC
    assert names(tmp_path) == {"10", "15", "20.tmp"}
    left = {path.name for path in (tmp_path / "replay").iterdir()}
    assert left > listed(tmp_path)  # complete chunks of the failed attempt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", hesitate)
        checkpoints.save(20, *args)
        checkpoints.wait()
    assert checkpoints.error is None
    assert names(tmp_path) == {"15", "20"}
    assert_nothing_left_over(tmp_path)
    again = tiny.make_replay()
    assert restored(tmp_path, again)[2:] == ({"policy_steps": 20}, [])
    tiny.assert_equal(tiny.contents(again), tiny.contents(replay))


@pytest.mark.parametrize("name", ["ckpt", "replay"])
def test_a_file_in_the_way_is_an_error_that_may_end(tmp_path, open_, name):
    checkpoints = open_(tmp_path)
    (tmp_path / name).write_text("in the way")
    for _ in range(2):
        checkpoints.save(1, state(1.0), filled(), {}, {})
        checkpoints.wait()
        assert isinstance(checkpoints.error, FileExistsError)
        assert checkpoints.saved is None
    (tmp_path / name).unlink()
    checkpoints.save(1, state(1.0), filled(), {}, {"policy_steps": 1})
    checkpoints.close()
    assert checkpoints.error is None
    assert restored(tmp_path)[2] == {"policy_steps": 1}


def test_files_may_not_grow_for_a_while(tmp_path):
    """A real limit of the system, in a write and not in a sync."""
    replay = save(tmp_path, 10, filled(9))
    for step in tiny.steps(9, 9):
        replay.add(step)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"envs": {"x": np.zeros(100_000)}}
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            checkpoints.save(20, state(20), replay, big, {"policy_steps": 20})
            checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert checkpoints.error.errno == errno.EFBIG
        assert "envs.arrays" in str(checkpoints.error)
    assert names(tmp_path) == {"10"}
    assert_nothing_left_over(tmp_path)
    save(tmp_path, 20, replay, big)
    assert restored(tmp_path)[1]["envs"]["x"].shape == (100_000,)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_is_full_and_has_room_again(small_disk, open_):
    replay = save(small_disk, 10)
    used = shutil.disk_usage(small_disk).used
    checkpoints = open_(small_disk)
    filler = small_disk / "filler"
    room = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(room - 30_000))
    for _ in range(3):
        for step in tiny.steps(5, 21):
            replay.add(step)
        big = {"envs": {"x": np.zeros(10_000)}}
        checkpoints.save(20, state(20), replay, big, {"policy_steps": 20})
        checkpoints.wait()
        assert checkpoints.error.errno == errno.ENOSPC
        assert_nothing_left_over(small_disk)
    assert restored(small_disk)[2] == {"policy_steps": 10}
    filler.unlink()
    assert shutil.disk_usage(small_disk).used == used
    command = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(command, check=True)
    checkpoints.save(20, state(20), replay, {}, {"policy_steps": 20})
    checkpoints.wait()
    assert checkpoints.error.errno == errno.EROFS
    command[2] = "remount,rw"
    subprocess.run(command, check=True)
    checkpoints.save(20, state(20), replay, {}, {"policy_steps": 20})
    checkpoints.wait()
    assert checkpoints.error is None
    assert restored(small_disk)[2] == {"policy_steps": 20}


def test_what_saves_hold_up_adds_up(tmp_path, open_, monkeypatch):
    clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(checkpoint, "time", clock)
    checkpoints = open_(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), filled(), {}, {})
    assert checkpoints.paused == 3
