"""How a program is to refuse bad input: one line, exit code 2, no file."""

import contextlib
import io
import os
import warnings

from hypothesis import HealthCheck
from hypothesis import settings as example_settings

from dreamer.options import LONGEST


class Accepted(BaseException):
    """The run would begin: its settings and logdir are in order."""


def examples(count):
    """A fixed list of examples, however slow the machine is."""
    return example_settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def files(folder):
    """What is there, with contents; links as they are."""
    return {
        path: os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def outcome(program, main, argv, folder):
    """The one line of a refusal, or '' if the input is right."""
    before = files(folder)
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with streams[0], streams[1], warnings.catch_warnings():
        warnings.simplefilter("error")  # they would be lines of their own
        try:
            code = main(argv)
        except Accepted:
            code = 0
        except SystemExit as end:
            code = end.code
    assert files(folder) == before
    line = err.getvalue()
    if code in (0, None):
        assert line == ""
        return ""
    assert code == 2, line
    assert out.getvalue() == ""
    assert line.startswith(f"{program}: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable(), line
    assert len(line) < LONGEST + 100
    return line
