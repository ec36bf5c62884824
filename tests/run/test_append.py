"""Appended records: whole, in order, none lost, whatever the disk does."""

import errno
import os
from io import FileIO

import pytest

from dreamer.run import append as append_module
from dreamer.run.append import KEPT, AppendedFile


class Disk:
    """Stands in for what the operating system says to a file's writes."""

    def __init__(self, monkeypatch):
        self.error = None  # of opening and writing
        self.sync_error = None
        self.room = None  # bytes until a write is cut short
        fsync = os.fsync

        def opened(path, mode):
            if self.error:
                raise self.error
            return Handle(self, FileIO(path, mode))

        def synced(number):
            if self.sync_error:
                raise self.sync_error
            fsync(number)

        monkeypatch.setattr(append_module, "FileIO", opened)
        monkeypatch.setattr(os, "fsync", synced)


class Handle:
    def __init__(self, disk, file):
        self._disk, self._file = disk, file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if self._disk.error:
            raise self._disk.error
        if self._disk.room is not None:
            if not self._disk.room:
                raise OSError(errno.ENOSPC, "full")
            data = data[: self._disk.room]
            self._disk.room -= len(data)
        return self._file.write(data)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


READ_ONLY = OSError(errno.EROFS, "read-only")


def lines(first, last):
    return [b"line %d\n" % i for i in range(first, last)]


def append(file, first, last):
    for line in lines(first, last):
        file.append(line)


def test_nothing_is_touched_before_the_first_record(tmp_path):
    file = AppendedFile(tmp_path / "file")
    file.flush()
    file.sync()
    file.close()
    assert not os.listdir(tmp_path)


def test_goes_on_after_the_last_whole_line(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"line 0\nline 1\nli")
    file = AppendedFile(path)
    append(file, 2, 4)
    assert path.read_bytes() == b"".join(lines(0, 4))


def test_open_says_what_is_wrong(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        AppendedFile(tmp_path / "file").open()


@pytest.mark.parametrize("before", [0, 2])
def test_waits_while_nothing_can_be_written(tmp_path, disk, before):
    path = tmp_path / "file"
    path.write_bytes(b"")
    file = AppendedFile(path)
    append(file, 0, before)
    disk.error = READ_ONLY
    append(file, before, 5)
    file.flush()
    file.sync()
    assert file.error is READ_ONLY
    assert path.read_bytes() == b"".join(lines(0, before))
    disk.error = None
    append(file, 5, 6)
    assert file.error is None
    assert path.read_bytes() == b"".join(lines(0, 6))


def test_part_of_a_record_is_cut_off(tmp_path, disk):
    path = tmp_path / "file"
    file = AppendedFile(path)
    disk.room = 17  # two lines and three bytes
    append(file, 0, 3)
    assert file.error.errno == errno.ENOSPC
    assert path.read_bytes() == b"".join(lines(0, 2))
    disk.room = None
    file.flush()
    assert file.error is None
    assert path.read_bytes() == b"".join(lines(0, 3))


def test_opened_anew_after_an_error(tmp_path, disk):
    """A server that was restarted may not know old handles."""
    file = AppendedFile(tmp_path / "file")
    append(file, 0, 1)
    stale = file._file
    disk.error = READ_ONLY
    append(file, 1, 2)
    disk.error = None
    append(file, 2, 3)
    assert stale.closed
    assert (tmp_path / "file").read_bytes() == b"".join(lines(0, 3))


def test_part_that_could_not_be_cut_off_is_cut_off_later(
    tmp_path, disk, monkeypatch
):
    path = tmp_path / "file"
    file = AppendedFile(path)
    disk.room = 17

    def truncate(self, end):
        raise READ_ONLY

    with monkeypatch.context() as context:
        context.setattr(Handle, "truncate", truncate, raising=False)
        append(file, 0, 4)
    assert path.read_bytes() == b"".join(lines(0, 2)) + b"lin"
    disk.room = None
    append(file, 4, 5)
    assert path.read_bytes() == b"".join(lines(0, 5))


@pytest.mark.parametrize(
    "lost", [b"line 0\nline 1\nlin", b"line 0\nline 1\n" + bytes(14), b""]
)
def test_a_failed_sync_keeps_what_the_disk_may_have_lost(tmp_path, disk, lost):
    path = tmp_path / "file"
    file = AppendedFile(path)
    append(file, 0, 2)
    file.sync()
    append(file, 2, 4)
    disk.sync_error = OSError(errno.EDQUOT, "quota")
    file.sync()
    assert file.error is disk.sync_error
    path.write_bytes(lost)  # by a file system that could not write it out
    append(file, 4, 5)
    assert file.error is disk.sync_error, "a write alone proves nothing"
    disk.sync_error = None
    file.flush()
    assert file.error is None
    first = 0 if lost else 2  # what was synced is not kept
    assert path.read_bytes() == b"".join(lines(first, 5))


def test_sync_reaches_the_disk_and_the_folder(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def note(number):
        synced.append(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", note)
    file = AppendedFile(tmp_path / "file")
    append(file, 0, 2)
    assert not synced
    file.sync()
    inodes = [path.stat().st_ino for path in (tmp_path / "file", tmp_path)]
    assert synced == inodes
    file.sync()
    append(file, 2, 3)
    file.close()
    assert synced[2:] == inodes[:1]


def test_memory_is_bounded_while_the_disk_works(tmp_path):
    file = AppendedFile(tmp_path / "file")
    append(file, 0, 3 * KEPT)
    assert len(file._kept) <= KEPT
    file.close()
    assert (tmp_path / "file").read_bytes() == b"".join(lines(0, 3 * KEPT))


def test_interrupted_after_a_write_that_was_made(tmp_path, monkeypatch):
    """Ctrl-C may come between a write and its being noted."""
    path = tmp_path / "file"
    file = AppendedFile(path)
    append(file, 0, 1)
    handle = file._file

    class Interrupted:
        def __getattr__(self, name):
            return getattr(handle, name)

        def write(self, data):
            handle.write(data)
            raise KeyboardInterrupt

    file._file = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        append(file, 1, 2)
    file._file = handle
    file.close()
    assert path.read_bytes() == b"".join(lines(0, 2))


def test_a_file_that_somebody_removed_is_made_again(tmp_path):
    path = tmp_path / "file"
    file = AppendedFile(path)
    append(file, 0, 2)
    path.unlink()
    file._close()
    append(file, 2, 3)
    assert path.read_bytes() == b"".join(lines(0, 3))
