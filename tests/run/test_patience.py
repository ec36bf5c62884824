"""Patience with a full disk, by a clock of the test's own."""

import errno
from pathlib import Path

import pytest

from dreamer.run.patience import RETRY, Patience, WriteError

FULL = OSError(errno.ENOSPC, "No space left on device")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def patience(clock, seconds=100.0):
    return Patience(Path("run"), seconds, clock)


def test_news_are_told_once(clock):
    disk = patience(clock)
    assert disk.watch(None, 5) is None
    line = disk.watch(FULL, 5)
    assert line.startswith("logdir=run cannot be written: No space left on")
    assert "100 s" in line
    assert "the checkpoint of policy step 5 is whole" in line
    assert disk.failing
    clock.now += 99
    assert disk.watch(FULL, 5) is None
    assert disk.watch(None, 9) == "logdir=run can be written again"
    assert not disk.failing
    assert disk.watch(None, 9) is None


def test_it_ends_after_failing_all_the_time(clock):
    disk = patience(clock)
    disk.watch(FULL, None)
    clock.now += 60
    disk.watch(None, None)
    clock.now += 60
    assert "no checkpoint yet" in disk.watch(FULL, None)
    clock.now += 99
    disk.watch(FULL, None)
    clock.now += 1
    with pytest.raises(WriteError, match="for 100 s: No space") as caught:
        disk.watch(FULL, 7)
    assert "policy step 7 is whole" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tries_are_spread(clock):
    disk = patience(clock)
    assert not disk.try_again()
    disk.watch(FULL, 0)
    tries = []
    for _ in range(2 * int(RETRY)):
        clock.now += 1
        tries.append(disk.try_again())
    assert tries.count(True) == 2
    assert tries[int(RETRY) - 1]
