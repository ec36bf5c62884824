"""The progress line: its numbers, with a terminal and without one."""

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest

from dreamer.run.progress import Progress, _fill, _number
from dreamer.streams import lossy


class Clock:
    """A clock that the test winds."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def make(policy_steps, updates, every=10.0):
    stream, clock = io.StringIO(), Clock()
    progress = Progress(policy_steps, updates, every, stream, clock)
    return progress, stream, clock


def test_line_and_its_numbers():
    progress, stream, clock = make(11_000, 2_000)
    progress.restart()
    progress.update(1_000, 4_000, 0, 0.0)
    clock.seconds += 20
    progress.update(2_000, 8_000, 500, 256.04, -20.5)
    # 50 steps/s leave 180 s, 25 updates/s leave 60 s: the longer one counts.
    assert stream.getvalue() == (
        "policy steps 2,000/11,000  frames 8,000  updates 500  ratio 256  "
        "score -20.5  50 steps/s  25 updates/s  3:00 left\n"
    )


def test_time_left_waits_for_the_first_update():
    progress, stream, clock = make(1_000, 100)
    progress.restart()
    progress.update(0, 0, 0, 0.0)
    clock.seconds += 10
    progress.update(500, 2_000, 0, 0.0)
    assert stream.getvalue().endswith("0 updates/s  - left\n")
    clock.seconds += 10
    progress.update(600, 2_400, 10, 1.0)
    # 90 updates at 10 in 20 seconds, longer than the steps.
    assert stream.getvalue().endswith("0.5 updates/s  3:00 left\n")


def test_time_left_waits_until_all_is_compiled():
    progress, stream, clock = make(1_000, 100)
    progress.update(0, 0, 0, 0.0)
    clock.seconds += 1000
    progress.update(500, 2_000, 1, 0.0)
    assert stream.getvalue().endswith("0.001 updates/s  - left\n")
    progress.restart()
    clock.seconds += 10
    progress.update(510, 2_040, 2, 0.0)
    clock.seconds += 10
    progress.update(600, 2_400, 12, 1.0)
    assert stream.getvalue().endswith("1 updates/s  1:28 left\n")
    progress.update(1_000, 4_000, 100, 1.0)
    progress.close()
    assert stream.getvalue().endswith("0:00 left\n")


def test_a_run_to_be_shorter_than_compiling_ends_with_nothing_left():
    progress, stream, clock = make(10, 3)
    progress.update(0, 0, 0, 0.0)
    clock.seconds += 1000
    progress.update(10, 40, 3, 0.0)
    assert stream.getvalue().endswith("0:00 left\n")


def test_time_left_without_training():
    progress, stream, clock = make(1_000, 0)
    progress.update(0, 0, 0, 0.0)
    clock.seconds += 10
    progress.update(500, 2_000, 0, 0.0)
    assert stream.getvalue().endswith("0:10 left\n")


def test_speed_is_that_of_the_last_minute():
    progress, stream, clock = make(100_000, 0)
    for policy_steps in (0, 50_000, *range(50_010, 50_100, 10)):
        progress.update(policy_steps, 0, 0, 0.0)
        clock.seconds += 10
    assert " 1 steps/s" in stream.getvalue().splitlines()[-1]


def test_without_a_terminal_one_line_per_interval():
    progress, stream, clock = make(1_000, 0)
    for policy_steps in range(100):
        progress.update(policy_steps, 0, 0, 0.0)
        clock.seconds += 1
    lines = stream.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == [
        f"{steps}/1,000" for steps in range(10, 100, 10)
    ]
    assert "\x1b" not in stream.getvalue()
    progress.close()
    progress.close()
    # The end shows where the run got to, once.
    lines = stream.getvalue().splitlines()
    assert lines[-1].startswith("policy steps 99/1,000")
    assert len(lines) == 10


def test_closed_without_any_update():
    progress, stream, _ = make(1_000, 0)
    progress.close()
    assert stream.getvalue() == ""


def test_print_leaves_markup_alone():
    progress, stream, _ = make(1, 1)
    progress.print("plan [bold]x[/bold] " + "long " * 60)
    assert stream.getvalue() == "plan [bold]x[/bold] " + "long " * 60 + "\n"


class Closed(io.StringIO):
    """A terminal whose window was closed."""

    def isatty(self):
        return True

    def write(self, text):
        raise BrokenPipeError


@pytest.fixture
def full():
    """A file on a full disk."""
    with contextlib.suppress(OSError), open("/dev/full", "w") as stream:
        yield stream


@pytest.mark.parametrize("kind", ["full", "closed", "terminal"])
def test_what_cannot_be_shown_does_no_harm(kind, full, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Closed() if kind == "terminal" else full, Clock()
    if kind == "closed":
        full.close()
    # As programs make their standard output.
    with Progress(1_000, 0, 1.0, lossy(stream), clock) as progress:
        progress.print("plan")
        for policy_steps in range(5):
            progress.update(policy_steps, 0, 0, 0.0)
            clock.seconds += 10


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.08912, "0.0891"), (12.345, "12.3"), (1234.5, "1,234")],
)
def test_number(value, text):
    assert _number(value) == text


def test_narrow_terminals_break_between_fields():
    fields = ["frames 1,000", "updates 5", "ratio 1", "score 3"]
    assert _fill(fields, 80) == "frames 1,000  updates 5  ratio 1  score 3"
    assert _fill(fields, 23) == "frames 1,000  updates 5\nratio 1  score 3"
    assert _fill(fields, 22) == "frames 1,000\nupdates 5  ratio 1\nscore 3"
    assert _fill(fields, 3) == "\n".join(fields)


SHOW = """
from dreamer.run.progress import Progress
now = iter(range(100))
with Progress(1000, 0, every=1e9, clock=lambda: next(now)) as progress:
    progress.update(0, 0, 0, 0.0)
    print("a line of somebody else's")
    progress.update(500, 2000, 0, 0.0, 3.0)
"""


def in_terminal(term):
    """What SHOW writes to a pseudo-terminal."""
    leader, follower = pty.openpty()
    environ = {**os.environ, "TERM": term, "COLUMNS": "140"}
    environ.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdout=follower, env=environ
    )
    os.close(follower)
    shown = b""
    try:
        while data := os.read(leader, 4096):
            shown += data
    except OSError:  # Linux reports the closed other end as an error.
        pass
    os.close(leader)
    assert process.wait() == 0
    return shown.decode()


def test_in_a_terminal_the_line_is_redrawn():
    shown = in_terminal("xterm")
    assert "policy steps 0/1,000" in shown
    assert "policy steps 500/1,000" in shown
    # Redrawn in place; the other line stays, above; the cursor comes back.
    assert "\r\x1b[2K" in shown
    assert "a line of somebody else's" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("500/1,000")


def test_a_dumb_terminal_gets_plain_lines():
    shown = in_terminal("dumb")
    assert "\x1b" not in shown
    assert "policy steps 500/1,000" in shown
