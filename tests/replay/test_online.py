"""The online queue alone: what goes in when, and out in which order."""

from dreamer.replay.online import OnlineQueue


def queue_at(time, envs=2, window=3):
    queue = OnlineQueue(envs, window)
    for step in range(1, time + 1):
        queue.step(step)
    return queue


def test_windows_go_in_when_they_are_complete():
    assert list(queue_at(2)) == []
    assert list(queue_at(3)) == list(queue_at(5)) == [(0, 0), (1, 0)]
    assert list(queue_at(6)) == [(0, 0), (1, 0), (0, 3), (1, 3)]
    assert len(queue_at(6)) == 4


def test_the_oldest_are_taken_first_and_once():
    queue = queue_at(6)
    assert queue.take(3) == [(0, 0), (1, 0), (0, 3)]
    assert queue.take(3) == [(1, 3)]
    assert queue.take(3) == []
    assert not queue


def test_windows_that_start_too_early_are_dropped():
    queue = queue_at(9)
    queue.drop_before(0)
    assert len(queue) == 6
    queue.drop_before(1)
    assert list(queue) == [(0, 3), (1, 3), (0, 6), (1, 6)]
    queue.drop_before(7)
    assert not queue


def test_it_goes_on_from_what_it_held():
    queue = queue_at(9)
    queue.take(1)
    again = OnlineQueue(2, 3)
    again.restore(list(queue))
    assert again == queue
    again.step(12)
    assert list(again) == [*queue, (0, 9), (1, 9)]
    again.clear()
    assert not again
