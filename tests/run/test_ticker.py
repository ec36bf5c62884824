"""The line that tells how far something is."""

import io

from dreamer.run.ticker import Ticker


class Terminal(io.StringIO):
    def isatty(self):
        return True


def tick(stream, times):
    now = iter([0.0, *times])
    asked = []
    with Ticker(stream, lambda: next(now)) as ticker:
        for time in times:
            ticker.show(lambda time=time: asked.append(time) or f"at {time}")
        ticker.print("an event")
    return asked


def test_elsewhere_a_line_now_and_then():
    stream = io.StringIO()
    assert tick(stream, [1.0, 9.9, 10.0, 12.0, 25.0]) == [10.0, 25.0]
    assert stream.getvalue() == "at 10.0\nat 25.0\nan event\n"


def test_in_a_terminal_one_line_that_is_taken_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    assert tick(stream, [0.1, 0.6, 0.7, 1.2]) == [0.6, 1.2]
    assert "at 1.2" in stream.getvalue()
    assert "an event\n" in stream.getvalue()
