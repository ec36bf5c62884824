"""Saving: rows come first, and processes save and restore together."""

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from dreamer.replay import disk, files
from dreamer.run.append import AppendedFile
from dreamer.run.archive import _seal, read_meta
from dreamer.run.patience import RETRY
from tests.run import tiny
from tests.run.logs import rows
from tests.run.processes import starter
from tests.run.saved import assert_nothing_left_over, filled

pytestmark = pytest.mark.usefixtures("small_chunks")

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def start(tmp_path):
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def ill(monkeypatch):
    """A list of processes whose disks take no arrays."""
    broken, write = [], files.write_arrays

    def fail(path, arrays):
        if int("processes" in path.parts) in broken:
            raise FULL
        return write(path, arrays)

    monkeypatch.setattr(files, "write_arrays", fail)
    monkeypatch.setattr(disk, "write_arrays", fail)
    return broken


@pytest.fixture
def no_rows(monkeypatch):
    """A list that says why no row can be written, if it holds anything."""
    reasons, write = [], AppendedFile._write

    def fail(file):
        if reasons:
            raise reasons[0]
        write(file)

    monkeypatch.setattr(AppendedFile, "_write", fail)
    return reasons


# Of several processes, the disk of one


@pytest.mark.parametrize("index", [0, 1])
def test_a_bad_disk_leaves_what_all_have(start, ill, index):
    run, other = start(2), 1 - index
    for step in (10, 20):
        run.each("save", step)
    assert run.saved == [[10, 20]] * 2
    ill.append(index)
    for step in (30, 40, 50):
        run.each("save", step)
        assert run.all[index].checkpoints.error is FULL
    assert run.saved[index] == [10, 20]
    assert run.saved[other] == [20, 40, 50]
    # Killed now, they go on together from the last that both have.
    again = start(2)
    assert again.each("restore") == [20, 20]
    again.each("save", 25)
    assert again.saved[index] == [10, 20]
    assert again.saved[other] == [20, 25]
    ill.clear()
    again.each("save", 35)
    assert again.saved[index] == [20, 35]
    assert again.saved[other] == [20, 25, 35]
    again.each("save", 45)
    assert again.saved == [[35, 45]] * 2
    for process in again.all:
        assert_nothing_left_over(process.folder)


def test_of_all_that_are_well_two_are_kept(start):
    run = start(3)
    for step in (10, 20, 30, 40):
        run.each("save", step)
    assert run.saved == [[30, 40]] * 3


def test_nothing_new_is_saved_only_where_a_save_failed(start, ill):
    run = start(2)
    ill.append(1)
    run.each("save", 10)
    assert run.saved == [[10], []]
    ill.clear()
    for _ in range(2):
        run.each("save", 10)
        assert run.saved == [[10], [10]]
    names = [x.name for x in (run.all[0].folder / "replay").iterdir()]
    run.each("save", 10)
    assert names == [x.name for x in (run.all[0].folder / "replay").iterdir()]


# Damage to the files of one


def damage(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])


def chunk(folder, step, kind, number):
    """A file of the replay, of this checkpoint alone."""
    meta = read_meta(folder / "ckpt" / str(step))
    return folder / "replay" / list(meta["replay"]["files"][kind])[number]


@pytest.fixture
def two(start):
    """The folders of two processes that have checkpoints 10 and 20."""
    run = start(2)
    for step in (10, 20):
        run.each("save", step)
    return [process.folder for process in run.all]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    "where",
    [
        lambda folder: chunk(folder, 20, "fields", -1),
        lambda folder: folder / "ckpt/20/envs.arrays",
        lambda folder: folder / "ckpt/20/meta.json",
    ],
    ids=["replay", "arrays", "meta"],
)
def test_all_go_back_behind_damage_of_one(start, two, index, where):
    path = where(two[index])
    damage(path)
    run = start(2)
    assert run.each("restore") == [10, 10]
    for process in run.all:
        whole = tiny.contents(filled())
        tiny.assert_equal(tiny.contents(process.replay), whole)
        [report] = process.checkpoints.reports
        assert report.startswith("checkpoint 20 is damaged (")
        assert report.endswith("; checkpoint 10 is used instead")
        assert "\n" not in report
    assert str(path) in run.all[index].checkpoints.reports[0]
    run.each("save", 15)
    assert run.saved == [[10, 15]] * 2
    assert start(2).each("restore") == [15, 15]


def test_who_is_not_to_blame_says_whose_part_it_is(start, two):
    damage(two[1] / "ckpt/20/envs.arrays")
    run = start(2)
    run.each("restore")
    [report] = run.all[0].checkpoints.reports
    assert "20 is damaged (the part of process 1); checkp" in report


def test_of_a_damaged_replay_all_lose_the_same(start, two):
    (two[0] / "ckpt/10/envs.arrays").unlink()
    damage(chunk(two[1], 20, "latents", 1))  # steps 8 to 16
    run = start(2)
    assert run.each("restore") == [20, 20]
    whole = filled()
    for process in run.all:
        replay = process.replay
        assert replay._oldest == 16
        assert replay._time == whole._time
        assert 0 < replay.windows < whole.windows
        assert all(start >= 16 for _, start in replay._queue)
        report = process.checkpoints.reports[0]
        assert "it is used without the oldest 30 steps" in report
    run.each("save", 30)
    assert start(2).each("restore") == [30, 30]


def test_where_none_is_whole_all_say_so(start, two):
    (two[0] / "ckpt/10/envs.arrays").unlink()
    (two[1] / "ckpt/20/envs.arrays").unlink()
    errors = start(2).each("restore")
    for error, folder in zip(errors, two, strict=True):
        assert isinstance(error, ValueError)
        line = str(error)
        assert line.startswith(f"{folder}/ckpt: no checkpoint is whole: 20 (")
        assert "; 10 (" in line


def test_what_one_process_refuses_all_refuse(start, two):
    (two[1] / "ckpt/20/meta.json").write_bytes(_seal(b'{"format": 3}'))
    errors = start(2).each("restore")
    assert str(errors[0]) == (
        f"{two[0]}/ckpt/20: process 1 cannot use its part of this checkpoint"
    )
    assert "this checkpoint has format 3" in str(errors[1])


def test_one_without_checkpoints_is_no_reason_to_wait(start, two, tmp_path):
    errors = start(3).each("restore")
    assert all("process 2 has no checkpoint" in str(x) for x in errors)


@pytest.mark.parametrize("index", [0, 1])
def test_killed_when_they_wrote_their_first_all_begin_anew(
    start, ill, tmp_path, index
):
    run = start(2)
    folders = [process.folder for process in run.all]
    ill.append(index)
    run.each("save", 10)
    ill.clear()
    assert run.saved[index] == [] != run.saved[1 - index]
    # One that never was here has nothing to begin anew.
    for error in start(2).each("common"):
        assert f"process {index} has no checkpoint, though" in str(error)
    for folder in folders:
        (folder / "lock").touch()
    again = start(2)
    assert again.each("common") == [[], []]
    assert again.saved == [[], []]
    [report] = again.all[1 - index].checkpoints.reports
    assert report.startswith("checkpoint 10 is not of all processes, which")
    assert again.all[index].checkpoints.reports == []
    # What does not count stays until all have another one.
    assert start(2).each("common") == [[], []]
    again.each("save", 5)
    assert again.saved == [[5], [5]]
    assert start(2).each("common") == [[5], [5]]
    for process in again.all:
        assert_nothing_left_over(process.folder)


def test_a_lost_part_of_a_run_is_not_begun_anew(start, two):
    shutil.rmtree(two[1] / "ckpt")
    for folder in two:
        (folder / "lock").touch()
    errors = start(2).each("common")
    assert all("process 1 has no checkpoint" in str(x) for x in errors)


# Rows that wait for the disk


@pytest.mark.parametrize("count", [1, 2])
def test_no_checkpoint_counts_on_rows_that_are_not_on_disk(
    start, no_rows, count
):
    run = start(count)
    run.each("save", 10)
    leader = run.all[0]
    no_rows.append(FULL)
    leader.logger.scalars(12, {"a": 1.0})
    run.each("save", 12)
    assert run.saved == [[10]] * count
    turns = run.each("turn")
    assert "cannot be written: No space" in turns[0][0]
    assert "the checkpoint of policy step 10 is whole" in turns[0][0]
    assert [save for _, save in turns] == [False] * count
    assert run.each("standing") == [[True, False]] * count
    run.clock.now += RETRY
    assert run.each("turn") == [(None, False)] * count
    no_rows.clear()
    assert run.each("turn") == [(None, False)] * count  # not yet again
    run.clock.now += RETRY
    assert run.each("turn") == [(None, True)] * count
    run.each("save", 14)
    assert run.saved == [[10, 14]] * count
    assert rows(leader.folder / "metrics.jsonl") == [{"step": 12, "a": 1.0}]
    turns = run.each("turn")
    assert "can be written again" in turns[0][0]
    assert [save for _, save in turns] == [False] * count
    assert run.each("standing") == [[False, False]] * count


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_put_off_is_saved_as_soon_as_rows_are_on_disk(
    start, no_rows, count
):
    run = start(count)
    no_rows.append(FULL)
    run.all[0].logger.scalars(12, {"a": 1.0})
    run.each("save", 12)
    no_rows.clear()
    run.all[0].logger.scalars(13, {"a": 1.0})
    assert run.all[0].logger.error is None
    run.each("turn")
    assert run.each("standing") == [[True, True]] * count
    run.each("save", 12)  # though nothing was done since
    assert run.saved == [[12]] * count


@pytest.mark.parametrize("count", [1, 2])
def test_a_save_that_failed_is_tried_again_by_all(start, ill, count):
    run, last = start(count), count - 1
    ill.append(last)
    run.each("save", 10)
    assert run.saved[last] == []
    run.each("turn")
    ill.clear()
    run.clock.now += RETRY
    assert [save for _, save in run.each("turn")] == [True] * count
    run.each("save", 12)
    assert [x[-1] for x in run.saved] == [12] * count
    assert "can be written again" in run.each("turn")[last][0]


def test_it_is_time_to_save_by_the_clock_of_the_leader(start):
    run = start(2)
    for leader, other in ((True, False), (False, True)):
        with ThreadPoolExecutor(2) as pool:
            told = pool.map(
                lambda process, due: process.saver.agree(False, due),
                run.all,
                (leader, other),
            )
        assert list(told) == [(False, leader)] * 2
