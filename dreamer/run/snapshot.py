"""Finds a checkpoint to be looked at, wherever it is, and its settings.

Nothing is written and nothing is locked, so that a run may go on meanwhile;
then a checkpoint may be replaced by a newer one while it is read. Next:
policy.py, which acts with it, and ../export.py, which gives it away;
archive.py for what is in it.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dreamer.checks import check_flags
from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.replay import Damaged
from dreamer.run import archive
from dreamer.run.shelf import folder_of, saved_steps
from dreamer.settings import differences, from_yaml

Result = TypeVar("Result")
META, CONFIG = "meta.json", "config.yaml"
# What may differ from the run: where it acts, and on what it computes.
CHANGEABLE = ("env.", "jax.", "run.env_")
# A run's device may not be there, and scores are those of whole games.
USUAL = {
    "jax.platform": "auto",
    "env.atari.lives": "unused",
    "env.atari100k.lives": "unused",
}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One checkpoint.

    Attributes:
      path: folder of the checkpoint.
      meta: contents of its `META`, see archive.py.
      settings: those of the run, as the text of a config.yaml.
      config: the same, but for what was to be changed.
      changed: keys of the settings that it changed.
      policy_steps: number of the run's policy steps when it was saved.
    """

    path: Path
    meta: dict[str, Any]
    settings: str
    config: Config
    changed: frozenset[str]
    policy_steps: int


def look_at(
    place: Path,
    policy_steps: int | None,
    changes: Mapping[str, Any],
    use: Callable[[Snapshot, Path], Result],
) -> Result:
    """What `use` makes of a checkpoint.

    Args:
      place: a logdir, or the folder of one checkpoint.
      policy_steps: number that names a checkpoint; None for the newest.
      changes: settings by key that replace the run's.
      use: is given the checkpoint and the folder for what becomes of it. A
        run that goes on may replace the checkpoint meanwhile: then it is
        called again, with a newer one.

    Raises:
      ConfigError: there is none, or it is not as it was written. One line.
    """
    while True:
        path, home = locate(place, policy_steps)
        try:
            snapshot = read(path, home, changes)
            if policy_steps not in (None, snapshot.policy_steps):
                raise ConfigError(
                    f"checkpoint={policy_steps}: {path} is the one of policy"
                    f" step {snapshot.policy_steps}"
                )
            return use(snapshot, home)
        except Damaged as error:
            if os.path.lexists(path):
                hint = "" if path == place else "; --checkpoint takes another"
                raise ConfigError(f"{error}{hint}") from None


def locate(place: Path, policy_steps: int | None) -> tuple[Path, Path]:
    """Where a checkpoint is.

    Args:
      place: a logdir, or the folder of one checkpoint.
      policy_steps: number that names a checkpoint of a logdir; None for the
        newest.

    Returns:
      Its folder, and the one for what becomes of it: the run's logdir, or
      the checkpoint's own if it was copied to elsewhere.

    Raises:
      ConfigError: there is none. One line.
    """
    try:
        if (place / META).exists():
            inside = place.absolute().parent
            return place, inside.parent if inside.name == "ckpt" else place
        if not place.is_dir():
            raise ConfigError(f"logdir={place}: there is no such folder")
        directory = place / "ckpt"
        if not directory.is_dir() and not (place / CONFIG).exists():
            raise ConfigError(
                f"logdir={place}: holds no run; expected a logdir with ckpt/"
                f" in it, or the folder of a checkpoint, with {META}"
            )
        found = saved_steps(directory) if directory.is_dir() else []
    except OSError as error:
        raise ConfigError(f"logdir={place}: {error.strerror}") from None
    if not found:
        raise ConfigError(
            f"logdir={place}: has no checkpoint yet{_every(place)}"
        )
    if policy_steps is None:
        policy_steps = max(found)
    if policy_steps not in found:
        there = ", ".join(map(str, sorted(found)))
        raise ConfigError(
            f"checkpoint={policy_steps}: {place} has no such one, expected"
            f" one of {there}"
        )
    return folder_of(directory, policy_steps), place


def read(path: Path, logdir: Path, changes: Mapping[str, Any]) -> Snapshot:
    """All but the arrays of a checkpoint.

    Args:
      path: folder of the checkpoint.
      logdir: folder that takes the place of the run's.
      changes: settings by key that replace the run's, as text.

    Raises:
      Damaged: it is not as it was written, or has vanished.
      ConfigError: one line. It has no settings, or they make no sense here.
    """
    for key in changes:
        if not key.startswith(CHANGEABLE):
            raise ConfigError(
                f"--{key}: cannot differ from the run's; expected env.*,"
                " jax.*, run.env_timeout or run.env_restarts"
            )
    meta = archive.read_meta(path)
    policy_steps = meta["counters"].get("policy_steps")
    if type(policy_steps) is not int:
        raise Damaged(f"{path / META}: damaged, it has no policy_steps")
    text, name = meta.get("config"), str(path / META)
    if not text or not isinstance(text, str):
        raise ConfigError(f"{name}: this checkpoint carries no settings")
    usual = {**USUAL, "logdir": str(logdir)}
    own = from_yaml(text, name, usual)
    check_flags(changes, own)
    config = from_yaml(text, name, {**usual, **changes})
    changed = frozenset(differences(own, config))
    return Snapshot(path, meta, text, config, changed, policy_steps)


def _every(logdir: Path) -> str:
    """How often a run saves, in words, if that is known."""
    try:
        text = (logdir / CONFIG).read_text("utf-8")
        every = from_yaml(text, CONFIG, {}).run.save_every
    except (OSError, UnicodeDecodeError, ConfigError):
        return ""
    return f" (one every run.save_every={every:g} seconds)"
