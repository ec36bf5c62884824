"""Timers by a clock of the test's own, and real signals."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from dreamer.run.when import StopSignal, Timer


def test_timer():
    now = 100.0
    timer = Timer(10.0, clock=lambda: now)
    due = []
    for now in (100, 109, 110, 111, 119, 135, 140, 145):  # noqa: B007
        due.append(timer.due())
    assert due == [False, False, True, False, False, True, False, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.received
        os.kill(os.getpid(), number)
        assert stop.received
    assert signal.getsignal(number) == before


def test_a_second_interrupt_ends_at_once():
    code = """
import os, signal
from dreamer.run.when import StopSignal
with StopSignal() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    print(stop.received, flush=True)
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("nothing delays it")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGINT
    assert done.stdout == b"True\n"
    assert done.stderr == b""


def test_termination_again_and_then_an_interrupt_do_not_end_at_once():
    with StopSignal() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        assert stop.received


@pytest.fixture
def hangup():
    """Sets what a closed terminal does, which nohup may have changed."""
    before = signal.getsignal(signal.SIGHUP)
    yield partial(signal.signal, signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_noted_where_it_counts(hangup):
    hangup(signal.SIG_DFL)
    with StopSignal():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    with StopSignal(hangup=True) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_nohup_is_kept(hangup):
    hangup(signal.SIG_IGN)
    with StopSignal(hangup=True) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.received
