import io

import pytest

from dreamer.streams import Lossy, lossy


class Broken(io.StringIO):
    encoding = "ascii"

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        BrokenPipeError(),
        ValueError("I/O operation on closed file."),
        UnicodeEncodeError("ascii", "\u00e9", 0, 1, "no such character"),
    ],
)
def test_what_cannot_be_written_is_dropped(error):
    stream = Lossy(Broken(error))
    assert stream.write("four") == 4
    stream.writelines(["a", "b"])
    print("c", file=stream, flush=True)
    assert stream.encoding == "ascii"


def test_what_can_be_written_is():
    below = io.StringIO()
    stream = lossy(below)
    print("a", 1, file=stream, flush=True)
    stream.writelines(["b\n", "c\n"])
    assert below.getvalue() == "a 1\nb\nc\n"
    assert stream.isatty() is False


def test_other_errors_are_bugs():
    with pytest.raises(RuntimeError):
        Lossy(Broken(RuntimeError())).write("x")


def test_a_stream_that_python_was_started_without():
    assert lossy(None) is None
