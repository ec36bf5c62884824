"""The command line of programs that have flags of their own.

`dreamer.train` takes settings (`config.py`); `plot.py`, `report.py` and
`evaluate.py` begin with this.
"""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Refuses by an exception, which the program makes one line of.

    Args:
      program: as after `python -m`.
      description: printed by `--help` as it is.
    """

    def __init__(self, program: str, description: str) -> None:
        super().__init__(
            prog=f"python -m {program}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Called where flags are wrong.

        Raises:
          ValueError: always.
        """
        raise ValueError(message.removeprefix("argument "))
