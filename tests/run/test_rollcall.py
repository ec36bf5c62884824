import json
import socket
import threading
import time

import pytest

from dreamer.run import rollcall
from dreamer.run.rollcall import is_loopback, roll_call
from dreamer.trouble import PassingError


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def call_all(address, calls, seconds=20.0):
    """What each (count, index) is told: None, or the error."""
    told = {}

    def call(place, count, index):
        try:
            told[place] = roll_call(address, count, index, seconds)
        except ValueError as error:
            told[place] = str(error)

    threads = [
        threading.Thread(target=call, args=(place, *numbers))
        for place, numbers in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [told[place] for place in range(len(calls))]


def connect(address):
    """A connection to whoever will be listening soon."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except ConnectionRefusedError:
            time.sleep(0.01)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_everybody_comes(address, order):
    told = call_all(address, [(3, index) for index in order])
    assert told == [None] * 3


def test_one_alone_needs_nobody(address):
    assert roll_call(address, 1, 0, 5.0) is None


def test_everybody_learns_who_is_missing(address):
    told = call_all(address, [(4, 0), (4, 2)], seconds=1.0)
    line = (
        f"jax.coordinator={address}: 2 of 4 processes have come; missing: 1, 3"
    )
    assert told == [line, line]


def test_nobody_answers(address):
    (told,) = call_all(address, [(2, 1)], seconds=0.5)
    assert told.startswith(
        f"jax.coordinator={address}: process 0 does not answer"
    )


@pytest.mark.parametrize("index", [0, 1])
def test_who_is_late_may_be_there_the_next_time(address, index):
    with pytest.raises(PassingError):
        roll_call(address, 2, index, 0.5)


def test_a_wrong_number_will_be_wrong_the_next_time(address):
    host, _, port = address.rpartition(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(ValueError) as caught,
    ):
        roll_call(address, 2, 0, 0.5)
    assert not isinstance(caught.value, PassingError)


def test_two_of_one_number(address):
    told = call_all(address, [(3, 0), (3, 1), (3, 1)])
    assert all("two processes say that they are number 1" in x for x in told)


def test_of_two_minds(address):
    told = call_all(address, [(3, 0), (2, 1)])
    assert all("expects 2 processes, process 0 expects 3" in x for x in told)


def test_the_port_is_taken(address):
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        (told,) = call_all(address, [(2, 0)])
    assert "cannot listen there" in told


def test_strangers_and_those_who_left_do_not_count(address):
    told = []
    leader = threading.Thread(
        target=lambda: told.append(roll_call(address, 2, 0, 20.0))
    )
    leader.start()
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"", b'{"a": 1}\n', b"[1]\n"):
        caller = connect(address)
        caller.sendall(words)
        caller.close()
    assert leader.is_alive()
    assert roll_call(address, 2, 1, 20.0) is None
    leader.join(20)
    assert told == [None]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_one_that_comes_again_after_a_restart_is_the_same(address, order):
    told = []

    def call(index):
        told.append(roll_call(address, 3, index, 20.0))

    threads = [threading.Thread(target=call, args=(0,))]
    threads[0].start()
    with connect(address) as caller:
        caller.sendall(json.dumps([1, 3]).encode() + b"\n")
        time.sleep(0.2)  # so that it is counted before it goes
    for index in order:
        threads.append(threading.Thread(target=call, args=(index,)))
        threads[-1].start()
        time.sleep(0.2)
    for thread in threads:
        thread.join(30)
    assert told == [None] * 3


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("localhost:80", True),
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("node17:80", False),
        ("192.0.2.1:80", False),
        ("localhost.example.org:80", False),
    ],
)
def test_loopback_is_told_by_the_address_alone(address, near):
    assert is_loopback(address) == near


def test_only_a_loopback_address_is_served_alone():
    with rollcall._listen("127.0.0.1:0") as server:
        assert server.getsockname()[0] == "127.0.0.1"
    with rollcall._listen("node17:0") as server:
        assert server.getsockname()[0] in ("::", "0.0.0.0")
