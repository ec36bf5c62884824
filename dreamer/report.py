"""Writes a page about a run: `python -m dreamer.report LOGDIR`.

One file, `report.html`, that opens in a browser without a network: what was
run, what came of it and what the world model dreams. `dreamer/pages/` does
the work; its `__init__.py` is what to read next.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamer.command import Parser, say
from dreamer.options import ConfigError, one_line
from dreamer.pages.index import INDEX, entry, index
from dreamer.pages.page import write_page
from dreamer.pages.read import CONFIG, read
from dreamer.places import given, home, walk
from dreamer.whole import write_whole

PROGRAM = "dreamer.report"
DESCRIPTION = f"""\
Writes report.html into the folder of a run. Given a folder with runs in it,
at any depth, writes one into each of them, and {INDEX} with a table of all.
A run may be going on meanwhile.
"""


def main(argv: Sequence[str]) -> int:
    """Writes all pages and prints where they are.

    Returns:
      0, or 1 if some of the runs in a folder have no page, or a folder in it
      cannot be looked into.

    Raises:
      SystemExit: Code 2, after one line, if there is nothing to write.
    """
    parser = Parser(f"python -m {PROGRAM}", DESCRIPTION)
    parser.add_argument(
        "dirs",
        metavar="DIR",
        nargs="*",
        type=home,
        help="a logdir, or a folder with logdirs in it",
    )
    parser.add_argument(
        "--logdir",
        metavar="DIR",
        action="append",
        type=home,
        help="the same as DIR",
    )
    try:
        flags = parser.parse_args(argv)
        dirs = given(flags.dirs, flags.logdir)
        runs = {folder: find(folder) for folder in dirs}
        return max([_write(folder, *x) for folder, x in runs.items()])
    except (OSError, ConfigError) as error:
        say(PROGRAM, error)
        raise SystemExit(2) from None


def find(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The run that a folder is, or those below it.

    Returns:
      Folders of runs; and why folders cannot be looked into, by their names.

    Raises:
      ConfigError: There is no run.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    closed: dict[str, str] = {}
    places = walk(folder, CONFIG, closed)
    found = [place for place, names in places if CONFIG in names]
    if not found:
        none = f"{folder}: holds no run, expected {CONFIG} in it"
        raise ConfigError(next(iter(closed.values()), none))
    return found, {os.path.relpath(x, folder): y for x, y in closed.items()}


def _write(
    folder: Path, runs: Sequence[Path], closed: Mapping[str, str]
) -> int:
    """The page of a run, or those of the runs in a folder and their index."""
    if runs == [folder]:
        print(one_line(f"Written: {write_page(read(folder))}"))
        return 0
    entries, failed = [], dict(closed)
    for run in runs:
        try:
            found = read(run)
            print(one_line(f"Written: {write_page(found)}"))
            entries.append(entry(found, folder))
        except (ValueError, OSError) as error:
            failed[os.path.relpath(run, folder)] = one_line(str(error))
    if not entries:
        raise ConfigError(next(iter(failed.values())))
    for reason in failed.values():
        say(PROGRAM, reason)
    path = folder / INDEX
    write_whole(path, index(folder, entries, failed))
    print(one_line(f"Written: {path}"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
