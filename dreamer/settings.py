"""All settings together: read from a command line, written, compared, listed.

`load` turns `--configs` (presets of configs/*.yaml, or files) and
`--key value` flags into a checked `Config`; `save` writes one that loads back
to an equal one. Next: `dreamer.config` for the settings, `dreamer.options`
for single values, `dreamer.presets` for files, `dreamer.checks` for
conditions between settings; `dreamer.train` uses them all.
"""

import io
import os
import re
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dreamer.checks import check, check_common_logdir, check_flags
from dreamer.config import Config
from dreamer.options import (
    ConfigError,
    Setting,
    apply,
    cut,
    fields,
    limits,
    settings,
    shown,
)
from dreamer.presets import from_text, layers, presets
from dreamer.whole import write_whole

HELP_WIDTH = 100
HELP_INDENT = 42


def load(argv: Sequence[str], program: str = "dreamer.train") -> Config:
    """The settings that a command line asks for, checked.

    `--configs a b.yaml` applies presets and files in their order, then come
    the `--key value` flags. In the logdir, `{timestamp}` becomes the time in
    UTC, `{task}` and `{seed}` those settings, and `~` the home folder; it is
    made absolute. Nothing is created. `--help` prints every setting and exits.

    Args:
      argv: Arguments, without the program's name.
      program: Name of the module that `--help` speaks of.

    Raises:
      ConfigError: Something is unknown, missing, doubled, malformed or out of
        range; one line names it and what is allowed.
    """
    if "--help" in argv or "-h" in argv:
        try:
            print(help_text(program), flush=True)
        except BrokenPipeError:  # a reader that has seen enough: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0)
    entries, flags = split_flags(argv, settings(Config()))
    config = Config()
    for layer in layers(entries):
        config = apply(config, layer.values, layer.where)
    check_flags(flags, config)
    config = apply(config, flags, "--")
    filled = _fill_in(config)
    check(filled)
    check_common_logdir(config)
    return filled


def _fill_in(config: Config) -> Config:
    """Replace what the name of a logdir may hold: {timestamp}, ..., ~."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    values = {
        "timestamp": stamp,
        "task": re.sub(r"[^\w.-]", "_", config.task),  # no folders in it
        "seed": str(config.seed),
    }
    logdir = re.sub(
        r"\{(timestamp|task|seed)\}", lambda x: values[x[1]], config.logdir
    )
    logdir = os.path.expanduser(logdir)
    # Absolute, so that the run's config.yaml means it from any folder.
    return replace(config, logdir=logdir and os.path.abspath(logdir))


def load_or_exit(
    argv: Sequence[str], program: str = "dreamer.train"
) -> Config:
    """`load` for a program's main: an error is one line and exit code 2."""
    try:
        return load(argv, program)
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def to_yaml(config: Config) -> str:
    """All settings as YAML that `load` turns into an equal config."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.dump(_tree(config), stream)
    return stream.getvalue()


def from_yaml(text: str, name: str, changes: Mapping[str, Any]) -> Config:
    """What `to_yaml` made a text of, with some settings changed.

    Args:
      text: Contents of a file with all settings, or with those that are not
        at their defaults.
      name: Name of the file; begins the message of an error in it.
      changes: Values by key, as the text of flags.

    Raises:
      ConfigError: As `load`.
    """
    layer = from_text(text, name)
    config = apply(Config(), layer.values, layer.where)
    config = apply(config, changes, "--")
    check(config)
    return config


def save(config: Config, path: Path) -> None:
    """Write a config, all of it or nothing, for `--configs PATH`."""
    text = f"# All settings of one run: --configs {path.name}\n"
    write_whole(path, text + to_yaml(config))


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by key: (old value, new value)."""
    then, now = settings(old), settings(new)
    return {
        key: (then[key].value, now[key].value)
        for key in then
        if then[key].value != now[key].value
    }


def check_resume(old: Config, new: Config) -> None:
    """See that a run may go on with other settings than it began with.

    What may change is declared with `resume=True`: where a run writes, how
    long it goes on, how often it reports, what it survives, where it
    computes. `--help` lists these settings.

    Raises:
      ConfigError: Other settings differ; one line names all of them.
    """
    free = {key for key, value in settings(new).items() if value.resume}
    fixed = [
        f"{key}={shown(now)} (there {shown(before)})"
        for key, (before, now) in differences(old, new).items()
        if key not in free
    ]
    if fixed:
        raise ConfigError(
            f"logdir={new.logdir}: holds a run of other settings:"
            f" {', '.join(fixed)}; use another logdir, or its settings"
        )


def help_text(program: str) -> str:
    """What `--help` prints: presets, every setting, games."""
    from dreamer.envs.games import GAMES

    lines = [
        f"python -m {program} [--configs PRESET|FILE.yaml ...]"
        " [--KEY VALUE | --KEY=VALUE ...]",
        "",
        "Later presets and files override earlier ones, flags override both.",
        "",
        "presets:",
    ]
    lines += [f"  {name:<15} {x.about}" for name, x in presets().items()]
    lines.append(listing(Config()))
    free = [key for key, value in settings(Config()).items() if value.resume]
    again = (
        "A run continues when its logdir is given again. These may differ: "
    )
    notes = {again: free, "games: ": GAMES}
    for title, words in notes.items():
        text = title + ", ".join(words)
        lines += ["", *textwrap.wrap(text, HELP_WIDTH, subsequent_indent="  ")]
    return "\n".join(lines)


def _tree(config: Any) -> Any:
    """Nested mappings and lists of plain values."""
    if hasattr(config, "__dataclass_fields__"):
        return {
            key: _tree(getattr(config, x.name))
            for key, x in fields(config).items()
        }
    return list(config) if isinstance(config, tuple) else config


def split_flags(
    argv: Sequence[str], known: Mapping[str, Setting]
) -> tuple[list[str], dict[str, str]]:
    """Entries of `--configs`, and the text of every other flag by key.

    Raises:
      ConfigError: A flag that is given twice or has no value or too many.
    """
    given: dict[str, list[str]] = {}
    key = ""
    for word in argv:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            if key in given:
                raise ConfigError(f"--{shown(key)}: given twice")
            given[key] = [value] if equals else []
        elif key:
            given[key].append(word)
        else:
            raise ConfigError(
                f"{cut(word)!r}: expected --configs or --key value"
            )
    entries = given.pop("configs", None)
    if entries is not None and not any(entries):
        raise ConfigError("--configs: expected presets or .yaml files")
    return entries or [], _one_text_each(given, known)


def _one_text_each(
    given: Mapping[str, list[str]], known: Mapping[str, Setting]
) -> dict[str, str]:
    """Join the words of settings that take several, as `64 64`."""
    for key, words in given.items():
        if key not in known:
            continue  # `apply` says so, with the nearest name.
        if not any(words):
            expected = known[key].expected
            raise ConfigError(f"--{key}: a value is missing, {expected}")
        several = isinstance(known[key].value, tuple)
        if len(words) > 1 and not several:
            raise ConfigError(
                f"--{key}={shown(words[0])}: one value expected, and then"
                f" comes {cut(words[1])!r}"
            )
    return {key: " ".join(words) for key, words in given.items()}


def listing(config: Any) -> str:
    """Every key with default, sentence and range, grouped, for `--help`."""
    lines: list[str] = []
    groups: dict[str, list[Setting]] = {}
    for setting in settings(config).values():
        groups.setdefault(setting.key.rpartition(".")[0], []).append(setting)
    for name, members in groups.items():
        group = config
        for part in filter(None, name.split(".")):
            group = getattr(group, part)
        lines += ["", f"{name or 'general'}: {type(group).__doc__}"]
        for setting in members:
            lines += _entry(setting)
    return "\n".join(lines)


def _entry(setting: Setting) -> list[str]:
    """`--key default sentence [range]`, wrapped in the last column."""
    head = f"  --{setting.key:<24}  {shown(setting.value):<10}  "
    span = limits(setting.allowed).removeprefix("from ")
    # The range stays on one line: its blanks are tied while wrapping.
    tied = f" [{span}]".replace(" ", "\0") if span else ""
    text = f"{setting.sentence} {tied[1:]}".rstrip()
    body = textwrap.wrap(text, HELP_WIDTH - HELP_INDENT)
    body = [" " * HELP_INDENT + line.replace("\0", " ") for line in body]
    if len(head) > HELP_INDENT:
        return [head.rstrip(), *body]
    return [head + body[0].lstrip(), *body[1:]]
