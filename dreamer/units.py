"""Numbers with units, as a person reads them: bytes and time."""

import math


def in_bytes(number: float) -> str:
    """1.3 GB, or 25 MB where that says more; 2.0 TB."""
    if number >= 1e12:
        return f"{number / 1e12:.1f} TB"
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{math.ceil(number / 1e6)} MB"


def duration(seconds: float) -> str:
    """1:02:03 or 4:05, with days before it where there are any."""
    if math.isnan(seconds):
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour}:{minute:02}:{second:02}"
    if hour:
        return f"{hour}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}"
