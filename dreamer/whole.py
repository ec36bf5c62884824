"""Text files that are whole or absent, whatever happens meanwhile."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, text: str, *, sync: bool = True) -> None:
    """Writes a file under another name and gives it its own at the end.

    Args:
      path: of the file; one that is there is replaced.
      text: written as UTF-8; what that cannot hold becomes "?".
      sync: whether it shall survive a power cut a moment later, too, instead
        of being empty then.

    Raises:
      OSError: the disk does not take it; names the path. What was there
        before is still there, and nothing else.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.write(text.encode("utf-8", "replace"))
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):  # writes and syncs do not tell of what
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
