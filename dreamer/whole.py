"""Files that are whole or absent, whatever happens meanwhile."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"  # after the name of a file that is being written


@contextlib.contextmanager
def new_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file that gets its name at the end, when it is whole.

    Args:
      path: of the file; one that is there is replaced.
      sync: whether it shall survive a power cut a moment later, too, instead
        of being empty then.

    Raises:
      OSError: from the context too; the disk does not take it; names the
        path. What was there before is still there then, and nothing else: a
        full disk is not made fuller.
    """
    unfinished = path.with_name(path.name + TEMPORARY)
    try:
        unfinished.unlink(missing_ok=True)  # of one that was killed
        with open(unfinished, "xb") as stream:
            yield stream
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # Writes and syncs do not tell of what.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_whole(path: Path, text: str, *, sync: bool = True) -> None:
    """A `new_file` of text, as UTF-8.

    Characters that it cannot encode become "?".

    Raises:
      OSError: as there.
    """
    with new_file(path, sync=sync) as stream:
        stream.write(text.encode("utf-8", "replace"))
