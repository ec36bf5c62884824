"""Messages between two processes: whole, and never waited for long."""

import socket
import threading

import pytest

from dreamer.envs.channel import Channel, Deadline


@pytest.fixture
def ends():
    """The two ends of a channel, and their sockets."""
    pair = socket.socketpair()
    for sock in pair:
        sock.settimeout(0.05)
    yield [Channel(sock) for sock in pair], pair
    for sock in pair:
        sock.close()


@pytest.mark.parametrize("size", [0, 1, 2**16, 3_000_000])
def test_messages_arrive_whole(ends, size):
    (left, right), _ = ends
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)

    sender = threading.Thread(target=left.send, args=(b"a", data))
    sender.start()
    kind, found = right.receive(Deadline(30))
    assert (kind, bytes(found)) == (b"a", data)
    sender.join()
    right.send(b"b", b"short")
    kind, found = left.receive(Deadline(30))
    assert (kind, bytes(found)) == (b"b", b"short")


def test_nobody_waits_beyond_a_deadline(ends):
    (left, right), _ = ends
    with pytest.raises(TimeoutError):
        right.receive(Deadline(0.0))
    with pytest.raises(TimeoutError):  # nobody reads so much
        left.send(b"a", bytes(10_000_000), Deadline(0.1))


def test_an_end_that_is_gone_is_noticed(ends):
    (_, right), pair = ends
    pair[0].close()
    with pytest.raises(EOFError):
        right.receive()
    with pytest.raises(OSError):
        right.send(b"a", bytes(10))
