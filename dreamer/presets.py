"""Named groups of settings, and files of settings: what `--configs` takes.

configs/*.yaml map a preset's name to its settings, as nested mappings or with
dotted keys. Two words inside a preset or file are no settings: `about` is its
line in `--help`, `configs` lists presets that it builds on. Next:
`dreamer.config`, which applies them.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from dreamer.options import ConfigError, did_you_mean, shown


@dataclass(frozen=True)
class Layer:
    """Settings that are laid over those before.

    Attributes:
      where: Begins the message of an error in them.
      about: One line on what they are for.
      configs: Presets that come before them.
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
    return [layer for entry in entries for layer in _expand(entry, ())]


def _expand(entry: str, above: tuple[str, ...]) -> list[Layer]:
    """A preset or file after those that it builds on."""
    if entry in above:
        raise ConfigError(f"configs {entry}: builds on itself")
    if entry.endswith((".yaml", ".yml")):
        path = Path(entry).expanduser()
        tree = _read(path)
        named = [name for name in presets() if name in tree]
        if named:
            raise ConfigError(
                f"configs {entry}: holds presets; expected one's name, as in"
                f" --configs {named[0]}"
            )
        layer = _layer(f"{path}: ", tree)
    elif entry in presets():
        layer = presets()[entry]
    else:
        names = ", ".join(presets())
        hint = did_you_mean(entry, presets())
        raise ConfigError(
            f"configs {entry!r}: unknown preset{hint or f'; one of {names}'}"
        )
    before = [_expand(name, (*above, entry)) for name in layer.configs]
    return [*(inner for group in before for inner in group), layer]


def _read(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML 1.2 file; nothing in it can run code."""
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = " ".join(str(error.problem).split())
        raise ConfigError(f"{path}, line {line}: {problem}") from None
    except (YAMLError, UnicodeDecodeError):
        raise ConfigError(f"{path}: expected YAML text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"configs {path}: {error.strerror}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines")
    return tree


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
        if isinstance(value, dict) and value:
            inner = _flatten(where, value)
            found = {f"{key}.{name}": x for name, x in inner.items()}
        else:
            found = {str(key): value}
        for name in found:
            if name in flat:
                raise ConfigError(f"{where}{name}: given twice")
        flat |= found
    return flat
