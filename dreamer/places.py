"""Files and folders that a person names on a command line."""

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dreamer.options import ConfigError, one_line


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


def walk(
    top: Path, marker: str, closed: dict[str, str]
) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, in order, with the names of their files.

    Links to folders are followed, after all else, but not to where this has
    been, nor to a folder around the first. A folder comes once.

    Args:
      top: Folder to begin with.
      marker: Name of a file; nothing below a folder that has it is looked at.
      closed: Dict that gets the reason, by path, for each folder that cannot
        be looked into, such as a disk's lost+found.
    """

    def note(error: OSError) -> None:
        reason = f"{error.filename}: {error.strerror}"
        closed[error.filename] = one_line(reason)

    seen = set(top.resolve().parents)
    starts = [top]
    for start in starts:
        for name, inside, names in os.walk(start, onerror=note):
            place = Path(name)
            real = place.resolve()
            if real in seen:
                inside.clear()
                continue
            seen.add(real)
            if marker in names:
                inside.clear()
            inside.sort()
            starts += filter(Path.is_symlink, map(place.joinpath, inside))
            yield place, names


def given(dirs: Iterable[Path], logdirs: Iterable[Path] | None) -> list[Path]:
    """Folders, named as DIR or as --logdir DIR.

    Raises:
      ConfigError: There is none.
    """
    found = [*dirs, *(logdirs or [])]
    if not found:
        raise ConfigError("the following arguments are required: DIR")
    return found
