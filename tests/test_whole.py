import errno
import os

import pytest

from dreamer.whole import write_whole


def test_a_new_text_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a b.txt"
    write_whole(path, "old")
    write_whole(path, "né\n")
    assert path.read_bytes() == b"n\xc3\xa9\n"
    assert os.listdir(tmp_path) == ["a b.txt"]


def test_a_name_that_is_not_unicode_does_not_stop_it(tmp_path):
    write_whole(tmp_path / "x", os.fsdecode(b"/logs/\xff"))
    assert (tmp_path / "x").read_text() == "/logs/?"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()]
)
def test_what_fails_leaves_the_old_text_alone(
    tmp_path, monkeypatch, call, error
):
    path = tmp_path / "x"
    write_whole(path, "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)) as raised:
        write_whole(path, "new")
    assert getattr(raised.value, "filename", str(path)) == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "x", []

    def fsync(descriptor):
        synced.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, "12345")
    assert synced == [(5, False)]
    write_whole(path, "soon outdated", sync=False)
    assert len(synced) == 1
