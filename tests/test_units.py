"""Numbers with units in words."""

import pytest

from dreamer.units import duration, in_bytes


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (9, "1 MB"),
        (25e6, "25 MB"),
        (1.34e9, "1.3 GB"),
        (82e9, "82.0 GB"),
        (1.96e12, "2.0 TB"),
    ],
)
def test_bytes(number, text):
    assert in_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (90061, "1d 1:01:01"),
        (float("nan"), "-"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
