"""Modules that people bring along, imported for what they register.

`--env.import my_env` names them, and so does `--task gym_my_env:Mine-v0`. They
are sought in the current folder first, as `python -m` does, however this
program was started. examples/README.md says how to write one, and
`gym.py`, to be read next, makes what they have registered.
"""

import importlib
import os
import sys
import textwrap
import traceback
from pathlib import Path

from dreamer.options import ConfigError, did_you_mean


def import_module(name: str, where: str) -> None:
    """Imports a module, unless that has happened.

    Args:
        name: the module's name with dots, as after Python's `import`.
        where: the setting that names it; begins the message of an error.

    Raises:
        ConfigError: if there is none of that name, or if it fails.
    """
    try:
        folder = os.getcwd()
        if sys.path[:1] != [folder]:
            sys.path.insert(0, folder)
        importlib.import_module(name)
    # A script may end itself with SystemExit, which would end ours.
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        if missing and f"{name}.".startswith(f"{missing}."):
            near = did_you_mean(name, [x.stem for x in Path().glob("*.py")])
            raise ConfigError(
                f"{where}: no module named {missing!r} in {folder} or among"
                f" the installed packages{near}"
            ) from None
        raise ConfigError(f"{where}: {_explain(error)}") from None


def _explain(error: BaseException) -> str:
    """An error in one line, with the line of the module that it came from."""
    text = f"{type(error).__name__}: {error}"
    stack = traceback.extract_tb(error.__traceback__)
    # Of modules that import one another, the innermost.
    for frame in [x for x in stack if x.name == "<module>"][-1:]:
        text += f" ({Path(frame.filename).name}, line {frame.lineno})"
    return textwrap.shorten(text, 500)
