"""Logs of resumed runs: no row twice, none missing, foreign files refused."""

import os
import struct
import tracemalloc

import pytest

from dreamer.run import logger as logger_module
from tests.run.logs import ALL, assert_same, log, make, rows, scalars


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A logdir whose run was never interrupted."""
    logdir = tmp_path_factory.mktemp("undisturbed")
    logger = make(logdir, ALL)
    logger.truncate_after(0)
    log(logger, 4, 100)
    logger.close()
    return logdir


def interrupted(logdir):
    """A run that saved at 40 frames, logged more, and was killed."""
    logger = make(logdir, ALL)
    logger.truncate_after(0)
    log(logger, 4, 44)
    logger.sync()
    log(logger, 44, 64)
    # Between the rows of the run that goes on: nothing may be left of it.
    logger.scalars(65, {"train/a": -1.0, "train/once": -1.0})
    for name in ("metrics.jsonl", "scores.jsonl"):
        with (logdir / name).open("ab") as file:
            file.write(b'{"step": 68, "tr')


def resume(logdir):
    logger = make(logdir, ALL)
    logger.truncate_after(40)
    log(logger, 44, 100)
    logger.close()


def test_resumed_like_undisturbed(tmp_path, undisturbed):
    interrupted(tmp_path)
    resume(tmp_path)
    assert_same(tmp_path, undisturbed)
    assert len(list(tmp_path.iterdir())) == 4  # two of them event files


def test_resumed_after_a_power_cut(tmp_path, undisturbed):
    """What was not synced may be zeros, also with whole lines after it."""
    interrupted(tmp_path)
    for name in ("metrics.jsonl", "scores.jsonl"):
        content = (tmp_path / name).read_bytes()
        start = content.index(b'{"step": 48') + 4
        zeros = content[:start] + bytes(30) + content[start + 30 :]
        (tmp_path / name).write_bytes(zeros)
    resume(tmp_path)
    assert_same(tmp_path, undisturbed)


def test_resumed_where_a_file_is_missing(tmp_path, undisturbed):
    interrupted(tmp_path)
    (tmp_path / "scores.jsonl").unlink()
    resume(tmp_path)
    for name, first in (("metrics.jsonl", 4), ("scores.jsonl", 48)):
        expected = rows(undisturbed / name)
        expected = [row for row in expected if row["step"] >= first]
        assert rows(tmp_path / name) == expected


def test_truncates_outputs_that_are_off_now(tmp_path, undisturbed):
    interrupted(tmp_path)
    logger = make(tmp_path, ())
    logger.truncate_after(40)
    logger.close()
    metrics = rows(tmp_path / "metrics.jsonl")
    assert metrics == [
        row for row in rows(undisturbed / "metrics.jsonl") if row["step"] <= 40
    ]
    assert max(step for step, _, _ in scalars(tmp_path)) == 40


def test_killed_while_truncating(tmp_path, undisturbed, monkeypatch):
    class Killed(BaseException):
        pass

    for calls in range(10):
        logdir = tmp_path / str(calls)
        interrupted(logdir)
        before = {x: x.read_bytes() for x in logdir.iterdir()}
        kept = logger_module.kept_bytes(logdir, 40)
        done = iter(range(100))

        def fsync(number, done=done, calls=calls):
            if next(done) == calls:
                raise Killed

        with monkeypatch.context() as context:
            context.setattr(os, "fsync", fsync)
            try:
                make(logdir, ALL).truncate_after(40)
            except Killed:
                killed = True
            else:
                killed = False
        if killed:  # each file is as it was, or done
            for path, content in before.items():
                assert path.read_bytes() in (content, content[: kept[path]])
        resume(logdir)
        assert_same(logdir, undisturbed)
        if not killed:
            break
    assert calls == 3, "one for each file"


@pytest.mark.parametrize(
    "line", ["hello", "[1]", '{"a": 1}', '{"step": "4"}', "[" * 99999, ""]
)
def test_rows_that_are_not_ours_are_refused(tmp_path, line):
    good = '{"step": 4, "episode/score": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_text(good + good)
    (tmp_path / "scores.jsonl").write_text(good + line + "\n")
    with pytest.raises(ValueError, match=r"scores\.jsonl: line 2 ") as error:
        make(tmp_path).truncate_after(0)
    assert "\n" not in str(error.value)
    assert (tmp_path / "metrics.jsonl").read_text() == good + good
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_event_files_stay(tmp_path):
    interrupted(tmp_path)
    path = next(tmp_path.glob("events.*"))
    torn, zeros = path.read_bytes()[:-3], path.read_bytes()[:100] + bytes(99)
    other = b"\x03" + bytes(11) + b"not an event"
    for content in (torn[:300], zeros, other, b"hello"):
        path.write_bytes(content)
        make(tmp_path).truncate_after(40)
        assert path.read_bytes() == content


def test_an_event_file_may_be_larger_than_memory(tmp_path):
    """The films of days: read one by one."""
    film = b"GIF89a" + struct.pack("<HH", 4, 4) + bytes(10**6)
    logger = make(tmp_path, ALL)
    for frames in range(20):
        logger.video(frames, "report/openloop/image", tmp_path, film)
    logger.close()
    path = next(tmp_path.glob("events.*"))
    tracemalloc.start()
    kept = logger_module.kept_bytes(tmp_path, 12)[path]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept == pytest.approx(13 * 10**6, rel=0.01)
    assert peak < 4 * 10**6


def test_continues_files_and_removes_a_torn_line(tmp_path):
    first = make(tmp_path)
    first.episode(4, 1.0, 10)
    first.close()
    for name in ("metrics.jsonl", "scores.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 8, "episode/sc')
    second = make(tmp_path)
    second.episode(12, 2.0, 10)
    second.close()
    for name in ("metrics.jsonl", "scores.jsonl"):
        assert [row["step"] for row in rows(tmp_path / name)] == [4, 12]


def test_a_file_that_is_one_torn_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 8')
    logger = make(tmp_path)
    logger.truncate_after(8)
    logger.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_truncate_after(tmp_path):
    first = make(tmp_path)
    for frames in (4, 8, 12):
        first.episode(frames, float(frames), 10)
    first.close()
    second = make(tmp_path)
    second.truncate_after(8)
    second.episode(12, 99.0, 10)
    second.close()
    assert rows(tmp_path / "scores.jsonl") == [
        {"step": 4, "episode/score": 4.0},
        {"step": 8, "episode/score": 8.0},
        {"step": 12, "episode/score": 99.0},
    ]
    steps = [row["step"] for row in rows(tmp_path / "metrics.jsonl")]
    assert steps == [4, 8, 12]
    assert sorted(os.listdir(tmp_path)) == ["metrics.jsonl", "scores.jsonl"]
