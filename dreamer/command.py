"""The command line of programs that have flags of their own.

`dreamer.train` takes settings (`settings.py`); `plot.py`, `report.py`,
`evaluate.py` and `sweeps/flags.py` begin with this. All of them `say` in one
line what is wrong.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from dreamer.options import ConfigError, did_you_mean, one_line, shown


class Parser(argparse.ArgumentParser):
    """Refuses by an exception, which the program makes one line of.

    Args:
      command: What a person types before the flags.
      description: Text that `--help` prints as it is.
      usage: First line of `--help`, where that is not all the flags.
    """

    def __init__(
        self, command: str, description: str, usage: str | None = None
    ) -> None:
        super().__init__(
            prog=command,
            usage=usage,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,
    ) -> Any:
        """The flags of a command line, all of which must be known.

        Raises:
          ConfigError: A flag is wrong or unknown.
        """
        flags, rest = self.parse_known_args(args, namespace)
        for word in rest:
            if word.startswith("--"):
                unknown_flag(word[2:].partition("=")[0], self.names())
        if rest:
            self.error(f"{shown(rest[0])}: expected no such argument")
        return flags

    def parse_known_args(
        self,
        args: Sequence[str] | None = None,
        namespace: Any = None,
    ) -> tuple[Any, list[str]]:
        """As of any parser, which makes a list, not text, of `--flag=--`.

        Raises:
          ConfigError: A flag is wrong.
        """
        words = sys.argv[1:] if args is None else args
        for word in words:
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"{shown(word)}: expected another value than --")
        return super().parse_known_args(words, namespace)

    def names(self) -> list[str]:
        """All flags, without their dashes."""
        words = [x for action in self._actions for x in action.option_strings]
        return [x[2:] for x in words if x.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """Called where flags are wrong.

        Raises:
          ConfigError: Always.
        """
        raise ConfigError(message.removeprefix("argument "))


def unknown_flag(
    name: str, known: Iterable[str], kind: str = "flag"
) -> NoReturn:
    """Refuses a flag, with the nearest of those that there are.

    Args:
      name: Unknown flag, without its dashes.
      known: Flags that may be meant, without their dashes.
      kind: Word for what `known` holds.

    Raises:
      ConfigError: Always.
    """
    hint = did_you_mean(name, known) or "; --help lists them"
    raise ConfigError(f"--{shown(name)}: unknown {kind}{hint}")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The `type` of a flag: reads a whole number from `low` to `high`."""

    def read(text: str) -> int:
        number = int(text) if re.fullmatch("[0-9]{1,18}", text) else low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"{shown(text)}: expected a whole number from {low} to {high}"
            )
        return number

    return read


def say(program: str, error: str | Exception) -> None:
    """Prints what is wrong to stderr, in one line that begins with a program.

    Of an `OSError`, that is the file and the reason.
    """
    if isinstance(error, OSError):
        error = f"{error.filename or '?'}: {error.strerror or error}"
    print(f"{program}: {one_line(str(error))}", file=sys.stderr)
