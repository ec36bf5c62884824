"""Files and folders that a person names on a command line."""

import os
from collections.abc import Iterable
from pathlib import Path


def home(text: str) -> Path:
    """A path whose ~, which no shell has read in `--out=~/x`, is replaced."""
    return Path(os.path.expanduser(text))


def given(dirs: Iterable[Path], logdirs: Iterable[Path] | None) -> list[Path]:
    """Folders, named as DIR or as --logdir DIR.

    Raises:
      ValueError: there is none.
    """
    found = [*dirs, *(logdirs or [])]
    if not found:
        raise ValueError("the following arguments are required: DIR")
    return found
