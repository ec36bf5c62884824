"""Files and folders that a person names on a command line."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from dreamer.options import ConfigError


def home(text: str) -> Path:
    """A path whose ~, which no shell has read in `--out=~/x`, is replaced.

    The `type` of a flag. An empty text, as of a shell's variable that is not
    set, would be the current folder.

    Raises:
      ArgumentTypeError: The text is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("expected a path, and it is empty")
    return Path(os.path.expanduser(text))


def given(dirs: Iterable[Path], logdirs: Iterable[Path] | None) -> list[Path]:
    """Folders, named as DIR or as --logdir DIR.

    Raises:
      ConfigError: There is none.
    """
    found = [*dirs, *(logdirs or [])]
    if not found:
        raise ConfigError("the following arguments are required: DIR")
    return found
