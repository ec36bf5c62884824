"""Reads the part of Docker's language that docker/Dockerfile is written in.

Strict: what it does not know, a misspelt word too, is an error and not passed
over, so that replay.py never leaves out something that Docker would do.
Read replay.py next.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What may stand before the rest of an instruction.
FLAGS = {
    "COPY": {"from"},
    "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"},
}
KNOWN = {
    *("FROM", "ARG", "RUN", "COPY", "ENV", "LABEL", "WORKDIR", "USER"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


class DockerfileError(ValueError):
    """Something that this reader does not know; one line."""


@dataclass(frozen=True)
class Step:
    """One instruction.

    Attributes:
      line: where it begins, from 1.
      name: in capitals.
      flags: as in --from=packages.
      text: the rest, lines joined.
    """

    line: int
    name: str
    flags: Mapping[str, str]
    text: str

    def words(self) -> list[str]:
        """The rest, split as a shell does."""
        return shlex.split(self.text)

    def command(self) -> list[str]:
        """The rest as the words of a command: exec form, after any CMD.

        Raises:
          DockerfileError: it is in shell form, which puts a shell between a
            program and the signals that are sent to it.
        """
        try:
            words = json.loads(self.text.removeprefix("CMD "))
        except ValueError:
            words = None
        if not isinstance(words, list) or not all(
            isinstance(word, str) for word in words
        ):
            raise DockerfileError(
                f"line {self.line}: {self.name}: expected exec form, as in"
                ' ["program", "argument"]'
            )
        return words


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next.

    Attributes:
      base: the image or the stage that it begins with.
      name: as later stages call it.
      steps: what follows.
    """

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)


def read(path: Path, given: Mapping[str, str]) -> list[Stage]:
    """The stages of a Dockerfile.

    Args:
      path: of the file.
      given: values for its ARGs, as by --build-arg.

    Raises:
      DockerfileError: something in it is not known.
    """
    globals_: dict[str, str] = {}
    stages: list[Stage] = []
    declared: set[str] = set()
    for step in steps(path.read_text("utf-8")):
        if step.name == "ARG":
            declared.add(step.text.partition("=")[0])
        if step.name == "FROM":
            stages.append(_stage(step, globals_))
        elif stages:
            stages[-1].steps.append(step)
        elif step.name == "ARG":
            globals_ |= argument(step, given)
        else:
            raise DockerfileError(f"line {step.line}: expected FROM first")
    for name in given:
        if name not in declared:
            raise DockerfileError(
                f"build argument {name}: unknown, expected one of"
                f" {', '.join(sorted(declared))}"
            )
    return stages


def steps(text: str) -> Iterator[Step]:
    """The instructions of a file, comments left out."""
    begun, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        begun = begun or number
        more = line.rstrip().endswith("\\")
        joined += line.rstrip().removesuffix("\\") + (" " if more else "")
        if not more:
            yield _step(begun, joined)
            begun, joined = 0, ""
    if begun:
        raise DockerfileError(f"line {begun}: ends with \\ and then nothing")


def _step(line: int, joined: str) -> Step:
    name, _, text = joined.strip().partition(" ")
    if name not in KNOWN:
        raise DockerfileError(f"line {line}: {name}: expected an instruction")
    flags = {}
    while text.lstrip().startswith("--"):
        flag, _, text = text.lstrip().partition(" ")
        key, _, value = flag[2:].partition("=")
        if key not in FLAGS.get(name, ()) or not value:
            raise DockerfileError(f"line {line}: {name} {flag}: unknown flag")
        flags[key] = value
    if not text.strip():
        raise DockerfileError(f"line {line}: {name}: expected more")
    return Step(line, name, flags, text.strip())


def _stage(step: Step, values: Mapping[str, str]) -> Stage:
    words = step.words()
    if len(words) == 3 and words[1] == "AS":
        return Stage(fill(words[0], values, step), words[2])
    if len(words) != 1:
        raise DockerfileError(
            f"line {step.line}: FROM: expected IMAGE or IMAGE AS NAME"
        )
    return Stage(fill(words[0], values, step), "")


def argument(step: Step, given: Mapping[str, str]) -> dict[str, str]:
    """What an ARG is, if it is anything."""
    name, equals, default = step.text.partition("=")
    if name in given:
        return {name: given[name]}
    return {name: default} if equals else {}


def fill(text: str, values: Mapping[str, str], step: Step) -> str:
    """A text with $NAME and ${NAME} filled in.

    Raises:
      DockerfileError: a name has no value. Docker would take ''.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise DockerfileError(f"line {step.line}: ${name} has no value")
        return values[name]

    return VARIABLE.sub(value, text)
