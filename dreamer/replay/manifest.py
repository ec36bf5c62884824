"""Manifest: what a checkpoint says of a replay, beside its chunk files.

It is JSON and may come from anyone: everything is checked before it is used,
so that it is either refused or a replay that could have been saved.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamer.options import ConfigError
from dreamer.replay.disk import KINDS, ChunkFile
from dreamer.replay.files import Damaged
from dreamer.replay.ring import Spec

FORMAT = 2
_LATEST = 2**62  # times are 64 bit


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything with which a replay goes on exactly.

    Attributes:
      oldest: Time of the first step held.
      time: Time of the next step to add.
      queue: Windows (env, start) to be served first, oldest first.
      rng: Generator of the uniform draws.
      files: Files of each of `KINDS`.
    """

    oldest: int
    time: int
    queue: list[tuple[int, int]]
    rng: np.random.Generator
    files: dict[str, list[ChunkFile]]

    def to_json(self) -> dict[str, Any]:
        """What `parse` reads."""
        return {
            "oldest": self.oldest,
            "time": self.time,
            "queue": [list(entry) for entry in self.queue],
            "rng": self.rng.bit_generator.state,
            "files": {
                kind: {file.name: file.crc32 for file in files}
                for kind, files in self.files.items()
            },
        }

    @classmethod
    def parse(cls, value: Any, envs: int, window: int) -> "Manifest":
        """Checks a manifest.

        Args:
          value: JSON of any kind.
          envs: Number of environments.
          window: Steps of one window.

        Raises:
          Damaged: No replay gives such a manifest.
        """
        time = _number(value, "time", 0, _LATEST)
        oldest = _number(value, "oldest", 0, time)
        files = _files(value)
        if any(file.env >= envs for kind in KINDS for file in files[kind]):
            raise Damaged(f"replay has files of more than {envs} environments")
        if any(file.stop > time for kind in KINDS for file in files[kind]):
            raise Damaged(f"replay has files of steps after {time}")
        last = time - window
        queue = [
            (_number(entry, 0, 0, envs - 1), _number(entry, 1, oldest, last))
            for entry in _get(value, "queue", list)
        ]
        starts = [start for _, start in queue]
        if starts != sorted(starts):
            raise Damaged("replay queue is not in the order of time")
        return cls(oldest, time, queue, _generator(value), files)


def identity(
    arguments: Mapping[str, Any], fields: Spec, latents: Spec
) -> dict[str, Any]:
    """What a saved replay must have in common with one that loads it."""
    result = {"format": FORMAT, **arguments}
    for spec, kind in ((fields, "field"), (latents, "latent")):
        for name, (shape, dtype) in sorted(spec.items()):
            result[f"{kind} {name}"] = f"{dtype.name}{list(shape)}"
    return result


def check_identity(value: Any, identity: Mapping[str, Any]) -> None:
    """Whether a replay is of the same make as the one that was saved.

    Raises:
      ConfigError: Names what differs, and both values.
    """
    saved = {
        key: entry
        for key, entry in _is(value, "manifest", dict).items()
        if key in identity or key.startswith(("field ", "latent "))
    }
    for key in sorted(saved.keys() | identity.keys()):
        old, new = saved.get(key, "none"), identity.get(key, "none")
        if old != new:
            raise ConfigError(
                f"replay {_line(key)} is {_line(old)} in the checkpoint,"
                f" {new} here"
            )


def listed(value: Any) -> set[str]:
    """Names of the chunk files that belong to a manifest.

    Raises:
      Damaged: It is no manifest.
    """
    return {file.name for files in _files(value).values() for file in files}


def _files(value: Any) -> dict[str, list[ChunkFile]]:
    files = _get(value, "files", dict)
    return {
        kind: [
            ChunkFile.parse(kind, name, crc32)
            for name, crc32 in _get(files, kind, dict).items()
        ]
        for kind in KINDS
    }


def _generator(value: Any) -> np.random.Generator:
    rng, state = np.random.PCG64(0), _get(value, "rng", dict)
    try:
        rng.state = state
        as_given = rng.state == state
    except (TypeError, ValueError, KeyError, OverflowError):
        as_given = False
    if not as_given:
        raise Damaged("replay rng is not the state of a PCG64")
    return np.random.Generator(rng)


def _number(value: Any, key: str | int, low: int, high: int) -> int:
    number = _get(value, key, int)
    if not low <= number <= high:
        raise Damaged(
            f"replay {key} is {_line(number)}, not of {low} to {high}"
        )
    return number


def _get(value: Any, key: str | int, kind: type) -> Any:
    """`value[key]`, of this very type."""
    try:
        found = value[key]
    except (TypeError, KeyError, IndexError) as error:
        raise Damaged(f"replay has no {key}") from error
    return _is(found, key, kind)


def _is(value: Any, key: str | int, kind: type) -> Any:
    if type(value) is not kind:
        raise Damaged(
            f"replay {key} is {_line(value)}, which is not {kind.__name__}"
        )
    return value


def _line(value: Any) -> str:
    """One short line, whatever it is."""
    plain = isinstance(value, str) and value.isprintable()
    try:
        return (value if plain else repr(value))[:60]
    except ValueError:  # so many digits are not written out
        return "a huge number"
