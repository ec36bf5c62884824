"""The logger: the authors' form, every output, disks that fail."""

import errno
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from tests.run.logs import ALL, assert_same, events, log, make, rows, scalars

ROOT = Path(__file__).resolve().parents[2]


def test_form_of_the_files(tmp_path):
    logger = make(tmp_path / "new" / "run")
    logger.scalars(400, {"train/loss/dyn": np.float32(1.5), "fps/policy": 7})
    logger.episode(800, score=-21.0, length=764)
    logger.scalars(900, {})
    logger.close()
    assert (tmp_path / "new/run/metrics.jsonl").read_text() == (
        '{"step": 400, "train/loss/dyn": 1.5, "fps/policy": 7.0}\n'
        '{"step": 800, "episode/score": -21.0, "episode/length": 764.0}\n'
    )
    assert (tmp_path / "new/run/scores.jsonl").read_text() == (
        '{"step": 800, "episode/score": -21.0}\n'
    )


def test_lines_are_there_at_once(tmp_path):
    logger = make(tmp_path)
    logger.scalars(4, {"a": 1.0})
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 4, "a": 1.0}]
    logger.close()


def test_each_line_is_one_write(tmp_path):
    writes = []
    logger = make(tmp_path)
    logger.truncate_after(0)
    file = logger._metrics[0].file
    handle = file._file

    class Noted:
        def __getattr__(self, name):
            return getattr(handle, name)

        def write(self, data):
            writes.append(bytes(data))
            return handle.write(data)

    file._file = Noted()
    logger.scalars(4, {f"metric{i}": i / 3 for i in range(5000)})
    assert len(writes) == 1
    assert writes[0].endswith(b"}\n")
    logger.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite_is_null(tmp_path, value):
    logger = make(tmp_path)
    logger.scalars(4, {"a": value, "b": 2.0})
    logger.close()
    expected = [{"step": 4, "a": None, "b": 2.0}]
    assert rows(tmp_path / "metrics.jsonl") == expected


def test_tensorboard(tmp_path):
    logger = make(tmp_path, ("tensorboard",))
    logger.scalars(400, {"train/loss/dyn": 1.5})
    logger.episode(800, 3.0, 10)
    logger.flush()
    logger.close()
    assert scalars(tmp_path) == [
        (400, "train/loss/dyn", 1.5),
        (800, "episode/score", 3.0),
        (800, "episode/length", 10.0),
    ]
    assert not (tmp_path / "metrics.jsonl").exists()
    assert len(rows(tmp_path / "scores.jsonl")) == 1


def test_event_files_follow_on_each_other_by_name(tmp_path, monkeypatch):
    """Whatever the clock says, on this machine or on the one before."""
    monkeypatch.setattr(time, "time", lambda: 2e9)
    (tmp_path / "events.out.tfevents.profile-empty").touch()
    for frames in (4, 8, 12):
        logger = make(tmp_path, ("tensorboard",))
        logger.scalars(frames, {"a": 1.0})
        logger.close()
        monkeypatch.setattr(time, "time", lambda: 1e9)
    (tmp_path / "events.out.tfevents.profile-empty").unlink()
    assert [step for step, _, _ in scalars(tmp_path)] == [4, 8, 12]


def test_tensorboard_that_is_open_forgets_what_was_cut_off(tmp_path):
    logger = make(tmp_path, ("tensorboard",))
    logger.truncate_after(400)
    logger.scalars(404, {"a": 1.0})
    logger.close()
    first, start, _ = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert start.session_log.status == SessionLog.START
    assert start.step == 401


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_full_disk(small_disk, tmp_path, capfd):
    """Rows wait in memory, and all are there when there is room again."""
    threads = threading.active_count()
    logger = make(small_disk, ALL)
    logger.truncate_after(0)
    log(logger, 4, 400)
    assert logger.error is None
    with pytest.raises(OSError, match="No space"):
        (small_disk / "fill").write_bytes(bytes(2**20))
    log(logger, 400, 4000)  # more than fits into the files' last blocks
    logger.flush()
    logger.sync()
    assert logger.error.errno == errno.ENOSPC
    written = len(rows(small_disk / "metrics.jsonl")), len(scalars(small_disk))
    assert 100 < min(written) < max(written) < 1400
    (small_disk / "fill").unlink()
    log(logger, 4000, 4004)
    assert logger.error is None
    logger.close()
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")
    expected = make(tmp_path / "large", ALL)
    expected.truncate_after(0)
    log(expected, 4, 4004)
    expected.close()
    assert_same(small_disk, tmp_path / "large")


FULL = """
import resource, sys
from pathlib import Path
from dreamer.config import Config
from dreamer.run.logger import Logger

# Python ignores SIGXFSZ: a write beyond the limit is an error.
logger = Logger(Path(sys.argv[1]), Config(), ("jsonl", "tensorboard"))
logger.truncate_after(0)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for frames in range(100):
    logger.episode(frames, 1.0, 10)
    logger.sync()
    logger.flush()
print(logger.error.strerror)
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
logger.close()
print(logger.error)
"""


@pytest.mark.parametrize("again", [[], ["again"]], ids=["stays", "passes"])
def test_files_that_may_not_grow(tmp_path, again):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), *again],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert first == os.strerror(errno.EFBIG)
    assert (last == "None") == bool(again)
    steps = [row["step"] for row in rows(tmp_path / "scores.jsonl")]
    assert steps == list(range(100 if again else len(steps)))
    assert len(steps) > 10
    steps = [x[0] for x in scalars(tmp_path) if x[1] == "episode/score"]
    assert steps == list(range(100 if again else len(steps)))


def test_close_cannot_raise_either(tmp_path):
    logger = make(tmp_path / "run", ALL)
    (tmp_path / "run").rmdir()
    logger.episode(4, 1.0, 10)
    logger.sync()
    logger.flush()
    logger.close()
    assert logger.error.errno == errno.ENOENT


def test_a_sync_is_one_of_every_file(tmp_path, monkeypatch):
    synced, fsync = set(), os.fsync

    def note(descriptor):
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    logger = make(tmp_path, ALL)
    logger.episode(4, 1.0, 10)
    monkeypatch.setattr(os, "fsync", note)
    logger.sync()
    assert synced >= set(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3
    logger.close()
