"""How a setting is declared, read from text and checked.

A setting is a field of a frozen dataclass, declared with `option(default,
allowed, sentence)`; dataclasses nest, and a setting's *key* joins the field
names with dots: `agent.dyn.rssm.deter`. A field named like a word of Python
ends in _, its key does not: `import_` is `import`. This module knows nothing
of which settings there are: those are in `dreamer.config`, to be read next.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

LONGEST = 4000  # characters of a message; a list of all settings fits
WORDS = ("configs", "help")  # flags that are no settings
ELSEWHERE = {  # what other programs call a setting
    "device": "jax.platform",
    "learning_rate": "agent.opt.lr",
    "num_envs": "run.envs",
    "replay_ratio": "run.train_ratio",
    "total_steps": "run.steps",
    "total_timesteps": "run.steps",
    "wandb": "logger.outputs",
}

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that a person got wrong; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """A message as one printable line of at most `LONGEST` characters.

    Control characters, which may come with whatever a person or a file gave,
    are spelled out; what is too long loses its middle.
    """
    line = "".join(x if x.isprintable() else repr(x)[1:-1] for x in message)
    if len(line) > LONGEST:
        half = LONGEST // 2 - 4
        line = f"{line[:half]} [...] {line[-half:]}"
    return line


def option(
    default: Any,
    allowed: str | tuple[str, ...],
    sentence: str,
    resume: bool = False,
) -> Any:
    """Declare a setting as a dataclass field.

    Args:
      default: Value without any preset or flag. Its type is the field's:
        bool, int, float, str, or a tuple of int or str. A tuple of str may
        be empty where anything is allowed.
      allowed: Interval for numbers ("[1, inf)", "(0, 1]"; of a tuple: for
        every number in it), the choices of a text, or "" for anything.
      sentence: Description of the setting for `--help`, which stands alone.
      resume: True if a run may continue with another value of it.
    """
    metadata = {"allowed": allowed, "sentence": sentence, "resume": resume}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One key, with all that `option` was told about it."""

    key: str
    type: Any
    value: Any
    allowed: str | tuple[str, ...]
    sentence: str
    resume: bool

    @property
    def expected(self) -> str:
        """What may be given, as words that follow 'expected'."""
        items = typing.get_args(self.type)
        if items and items[0] is int:
            example = ",".join(["64"] * len(items))
            kind = f"{len(items)} whole numbers as in {example}, each"
            return f"{kind} {limits(self.allowed)}"
        if items and not self.allowed:
            return "printable texts, each of them once"
        if isinstance(self.allowed, tuple):
            count = "one or more" if items else "one"
            return f"{count} of {', '.join(self.allowed)}"
        kinds = {
            bool: "true or false",
            int: "a whole number",
            float: "a finite number",
            str: "a text of printable characters",
        }
        return f"{kinds[self.type]} {limits(self.allowed)}".strip()


def fields(config: Any) -> dict[str, dataclasses.Field]:
    """The fields of a group by the last word of their keys."""
    return {x.name.removesuffix("_"): x for x in dataclasses.fields(config)}


def settings(config: Any, prefix: str = "") -> dict[str, Setting]:
    """All settings of a config by key, in the order of declaration."""
    found: dict[str, Setting] = {}
    types = typing.get_type_hints(type(config))
    for name, field in fields(config).items():
        key, value = prefix + name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= settings(value, f"{key}.")
        else:
            found[key] = Setting(
                key, types[field.name], value, **field.metadata
            )
    return found


def apply(config: T, raw: Mapping[str, Any], where: str) -> T:
    """A config with some settings replaced.

    Args:
      config: Settings that all other values come from.
      raw: Values by key, as text or as YAML gave them.
      where: Source of the values, which begins the message of an error.

    Raises:
      ConfigError: An unknown key, or a value of the wrong type or range.
    """
    known = settings(config)
    for key in raw:
        if key not in known:
            unknown_key(key, known, where)
    values = {key: parse(known[key], raw[key], where) for key in raw}
    return _replace(config, values)


def _replace(config: Any, values: Mapping[str, Any]) -> Any:
    here: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        if rest:
            below.setdefault(name, {})[rest] = value
        else:
            here[name] = value
    for name, inner in below.items():
        here[name] = _replace(getattr(config, name), inner)
    names = {name: field.name for name, field in fields(config).items()}
    values = {names[name]: value for name, value in here.items()}
    return dataclasses.replace(config, **values)


def parse(setting: Setting, raw: Any, where: str) -> Any:
    """The value that a text or a YAML value stands for.

    Raises:
      ConfigError: It has the wrong type or lies outside what is allowed.
    """
    items = typing.get_args(setting.type)
    try:
        if not items:
            value = _scalar(setting.type, raw)
            parts: tuple[Any, ...] = (value,)
        else:
            value = parts = tuple(_scalar(items[0], x) for x in _split(raw))
            if len(items) != len(parts) and items[-1] is not Ellipsis:
                raise ValueError
            if items[0] is str and len(set(parts)) < len(parts):
                raise ValueError
            if not parts and setting.allowed:
                raise ValueError
        if not all(_inside(part, setting.allowed) for part in parts):
            raise ValueError
    except (ValueError, OverflowError):
        text = shown(raw) if raw is not None else "nothing"
        hint = ""
        if isinstance(setting.allowed, tuple):
            words = text.replace(",", " ").split()
            wrong = [x for x in words if x not in setting.allowed]
            hint = did_you_mean(" ".join(wrong[:1]), setting.allowed)
        raise ConfigError(
            f"{where}{setting.key}={text}: expected {setting.expected}{hint}"
        ) from None
    return value


def _scalar(kind: type, raw: Any) -> Any:
    """One bool, int, float or str; ValueError if it is not one."""
    text = isinstance(raw, str)
    if kind is bool:
        words = {"true": True, "yes": True, "false": False, "no": False}
        if str(raw).lower() not in words:
            raise ValueError
        return words[str(raw).lower()]
    if kind is str:
        if not text or not raw.strip() or not raw.isprintable():
            raise ValueError
        return raw
    if isinstance(raw, bool) or not (text or isinstance(raw, int | float)):
        raise ValueError
    if kind is float:
        return float(raw)
    try:
        return int(raw) if text else _whole(raw)
    except ValueError:
        return _whole(float(raw))  # 1e5


def _whole(number: float) -> int:
    if int(number) != number:
        raise ValueError
    return int(number)


def _split(raw: Any) -> Iterable[Any]:
    if isinstance(raw, str):
        return raw.strip("()[] ").replace(",", " ").split()
    if isinstance(raw, list | tuple):
        return raw
    raise ValueError


def _interval(allowed: str) -> tuple[bool, float, float, bool]:
    """'[1, inf)' as (is 1 allowed, 1, inf, is inf allowed)."""
    low, high = allowed[1:-1].split(",")
    return allowed[0] == "[", float(low), float(high), allowed[-1] == "]"


def _inside(value: Any, allowed: str | tuple[str, ...]) -> bool:
    if isinstance(allowed, tuple):
        return value in allowed
    if not allowed:
        return True
    from_low, low, high, to_high = _interval(allowed)
    above = value > low or (from_low and value == low)
    below = value < high or (to_high and value == high)
    return above and below  # Neither holds of nan.


def limits(allowed: str | tuple[str, ...]) -> str:
    """'[1, inf)' in words, '>= 1'; choices as they are."""
    if isinstance(allowed, tuple):
        return ", ".join(allowed)
    if not allowed:
        return ""
    from_low, low, high, to_high = _interval(allowed)
    if from_low and to_high:
        return f"from {low:.12g} to {high:.12g}"
    words = []
    if math.isfinite(low):
        words.append(f"{'>=' if from_low else '>'} {low:.12g}")
    if math.isfinite(high):
        words.append(f"{'<=' if to_high else '<'} {high:.12g}")
    return " and ".join(words)


def unknown_key(key: str, known: Iterable[str], where: str) -> NoReturn:
    """Refuse a key, with the nearest of the `known` ones.

    Args:
      key: Unknown key.
      known: Keys that may have been meant; should not be empty.
      where: Source of the key, as in `apply`; "--" for a flag.

    Raises:
      ConfigError: Always.
    """
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        some = ", ".join(inside[:3]) + (", ..." if inside[3:] else "")
        raise ConfigError(f"{where}{key} is a group of settings: {some}")
    meant = ELSEWHERE.get(key)
    if meant in known:
        raise ConfigError(
            f"{where}{key}: unknown setting; did you mean {meant}?"
        )
    word = difflib.get_close_matches(key[:100], WORDS, 1, 0.7)
    if where == "--" and word:
        raise ConfigError(
            f"--{shown(key)}: unknown setting; did you mean --{word[0]}?"
        )
    last = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    hint = did_you_mean(key, same or known, cutoff=0.0 if same else 0.6)
    hint = hint or "; --help lists them all"
    raise ConfigError(f"{where}{shown(key)}: unknown setting{hint}")


def did_you_mean(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """'; did you mean X?' with the nearest of `words`, or ''."""
    near = difflib.get_close_matches(word[:100], list(words), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: Any) -> str:
    """A value on one line, as a person would type it."""
    if isinstance(value, list | tuple):
        return ",".join(shown(item) for item in value) or "[]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() < 1000:
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, int):
        value = hex(value)  # Python refuses to print that many decimals
    text = value if isinstance(value, str) else repr(value)
    return cut(text if text.isprintable() and text else repr(text))


def cut(text: str) -> str:
    """A text that somebody gave, at a length that a message can bear."""
    return text if len(text) <= 80 else f"{text[:77]}..."
