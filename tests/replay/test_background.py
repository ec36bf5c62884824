import errno
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dreamer.replay.background import Background


@pytest.fixture
def background():
    background = Background(limit=100)
    yield background
    background.close()


def full(values):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_parts_are_taken_at_once_and_written_in_order(background):
    go_on, written = threading.Event(), []
    source = [1]

    def write(values):
        assert go_on.wait(30)
        written.append(values)
        return values[0]

    first = background.put(10, source.copy, write)
    source[0] = 2
    second = background.put(10, source.copy, write)
    last = background.last(lambda: written.append("last"))
    assert not first.done()
    go_on.set()
    last.result(30)
    assert (first.result(), second.result()) == (1, 2)
    assert written == [[1], [2], "last"]


def test_copies_wait_for_room(background):
    go_on, taken = threading.Event(), []

    def put(size):
        background.put(
            size, lambda: taken.append(size), lambda _: go_on.wait(30)
        )

    put(60)
    put(40)
    with ThreadPoolExecutor(1) as caller:
        third = caller.submit(put, 1)
        with pytest.raises(TimeoutError):
            third.result(0.1)
        assert taken == [60, 40]
        go_on.set()
        third.result(30)
    # Larger than the limit, and yet written when nothing else is.
    put(1000)
    assert taken == [60, 40, 1, 1000]


def test_after_a_failure_nothing_is_copied_until_begun_anew(background):
    go_on = threading.Event()
    first = background.put(60, list, lambda _: go_on.wait(30) and full(_))
    second = background.put(10, list, lambda _: pytest.fail("written"))
    with ThreadPoolExecutor(1) as caller:
        # Waits for room, and is told that there is no use in it.
        third = caller.submit(
            background.put, 90, lambda: pytest.fail("copied"), full
        )
        go_on.set()
        third = third.result(30)
    for future in (first, second, third):
        with pytest.raises(OSError, match="No space"):
            future.result(30)
    background.begin()
    assert background.put(100, list, len).result(30) == 0


def test_a_copy_that_fails_takes_no_room(background):
    def take():
        raise MemoryError

    for _ in range(3):
        with pytest.raises(MemoryError):
            background.put(90, take, full)


def test_an_error_does_not_keep_the_copies(background):
    copy = np.zeros(10)
    reference = weakref.ref(copy)
    held = [copy]
    del copy

    def write(values):
        full(values)

    future = background.put(10, held.pop, write)
    error = future.exception(30)
    background.last(gc.collect).result(30)
    assert error.errno == errno.ENOSPC
    assert reference() is None
