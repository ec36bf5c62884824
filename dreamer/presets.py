"""Named groups of settings, and files of settings: what `--configs` takes.

configs/*.yaml map a preset's name to its settings, as nested mappings or with
dotted keys. Two words inside a preset or file are no settings: `about` is its
line in `--help`, `configs` lists presets that it builds on. Next:
`dreamer.settings`, which applies them.
"""

import contextlib
import functools
import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from dreamer.options import ConfigError, cut, did_you_mean, shown

# Of a file of settings; one with all of them has 2000 bytes and 4 levels.
LARGEST = 100_000
DEEPEST = 20
MOST = 100  # presets and files that make up a run's settings


@dataclass(frozen=True)
class Layer:
    """Settings that are laid over those before.

    Attributes:
      where: Source of the settings, which begins the message of an error.
      about: Line on what the settings are for.
      configs: Names of presets that are applied before.
      values: YAML values by dotted key.
    """

    where: str
    about: str
    configs: tuple[str, ...]
    values: Mapping[str, Any]


def preset_folder() -> Path:
    """Where configs/*.yaml are: in an installed package, or a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@functools.cache
def presets() -> dict[str, Layer]:
    """All presets by name, in the order of files and lines.

    Raises:
      ConfigError: A file that is no YAML, or two presets of one name.
    """
    found: dict[str, Layer] = {}
    for path in sorted(preset_folder().glob("*.yaml")):
        for name, tree in _read(path).items():
            if name in found:
                raise ConfigError(f"{path}: preset {name} exists already")
            found[name] = _layer(f"preset {name}: ", tree)
    return found


def layers(entries: Sequence[str]) -> list[Layer]:
    """What `--configs` names, in the order in which it applies.

    Args:
      entries: Names of presets; what ends in .yaml or .yml is a file.

    Raises:
      ConfigError: No such preset or file, or a file that cannot be read.
    """
    found = list(itertools.islice(_expand(entries, ()), MOST + 1))
    if len(found) > MOST:
        raise ConfigError(f"configs: expected at most {MOST}, with all below")
    return found


def _expand(entries: Sequence[str], above: tuple[str, ...]) -> Iterator[Layer]:
    """Presets and files, each after those that it builds on."""
    for entry in entries:
        if entry in above:
            raise ConfigError(f"configs {cut(entry)}: builds on itself")
        if len(above) > DEEPEST:
            raise ConfigError(f"configs {cut(entry)}: builds on too many")
        layer = _find(entry)
        yield from _expand(layer.configs, (*above, entry))
        yield layer


def is_file(entry: str) -> bool:
    """Whether a word of `--configs` names a file, not a preset."""
    return entry.endswith((".yaml", ".yml"))


def _find(entry: str) -> Layer:
    """What one word of `--configs` stands for."""
    if is_file(entry):
        path = Path(os.path.expanduser(entry))
        tree = _read(path)
        named = [name for name in presets() if name in tree]
        if named:
            raise ConfigError(
                f"configs {entry}: holds presets; expected one's name, as in"
                f" --configs {named[0]}"
            )
        return _layer(f"{path}: ", tree)
    if entry in presets():
        return presets()[entry]
    names = ", ".join(presets())
    hint = did_you_mean(entry, presets())
    raise ConfigError(
        f"configs {cut(entry)!r}: unknown preset{hint or f'; one of {names}'}"
    )


def from_text(text: str, name: str) -> Layer:
    """The settings in the text of a file, which `name` stands for in errors.

    Raises:
      ConfigError: It is no plain YAML.
    """
    with _explained(name):
        tree = _parse(text)
    return _layer(f"{name}: ", tree)


def _read(path: Path) -> dict[Any, Any]:
    """The mapping in a file."""
    with _explained(path):
        return _parse(_text(path))


def _parse(text: str) -> dict[Any, Any]:
    """The mapping in plain YAML 1.2; nothing in it can run code."""
    _check_plain(text)
    tree = YAML(typ="safe", pure=True).load(text)
    if not isinstance(tree, dict):
        raise ConfigError("expected 'key: value' lines")
    return tree


@contextlib.contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """Turns whatever reading YAML raises into one line with its name."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"configs {path}: {error.strerror}") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = " ".join(str(error.problem).split())
        raise ConfigError(f"{path}, line {line}: {problem}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception:  # the parser has no end of them, for numbers and dates
        raise ConfigError(f"{path}: expected YAML text in UTF-8") from None


def _text(path: Path) -> str:
    """Contents of a file, if it is one of settings by its kind and size."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ConfigError("expected a file, and it is none")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConfigError(f"expected at most {LARGEST} bytes")
    return content.decode("utf-8")


def _check_plain(text: str) -> None:
    """Refuses YAML by which a short text stands for endless values or code."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"expected at most {DEEPEST} levels of nesting")
        anchor = getattr(event, "anchor", None)  # of an alias too
        if anchor is not None or getattr(event, "tag", None) is not None:
            line = event.start_mark.line + 1
            raise ConfigError(
                f"line {line}: expected plain values, no anchors (&), aliases"
                " (*) and tags (!)"
            )


def _layer(where: str, tree: Any) -> Layer:
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}expected 'key: value' lines")
    values = dict(tree)
    about = values.pop("about", "")
    configs = values.pop("configs", [])
    if not isinstance(about, str):
        raise ConfigError(f"{where}about={shown(about)}: expected a text")
    if not isinstance(configs, list) or not all(
        isinstance(name, str) for name in configs
    ):
        raise ConfigError(
            f"{where}configs={shown(configs)}: expected a list of presets"
        )
    return Layer(where, about, tuple(configs), _flatten(where, values))


def _flatten(where: str, tree: Mapping[Any, Any]) -> dict[str, Any]:
    """{'run': {'envs': 1}} as {'run.envs': 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        key = key if isinstance(key, str) else shown(key)
        if isinstance(value, dict) and value:
            inner = _flatten(where, value)
            found = {f"{key}.{name}": x for name, x in inner.items()}
        else:
            found = {key: value}
        for name in found:
            if name in flat:
                raise ConfigError(f"{where}{shown(name)}: given twice")
        flat |= found
    return flat
