"""Every setting of a run: its type, default, range and meaning.

The frozen dataclasses below are the only place that holds defaults. `load`
turns `--configs` (presets of configs/*.yaml, or files) and `--key value` flags
into a checked `Config`; `save` writes one that loads back to an equal one.

Names follow the authors' public code of "Mastering diverse control tasks
through world models" (arXiv 2301.04104v2). Next: `dreamer.hyperparameters`
holds the group `agent`, `dreamer.options` reads single values and
`dreamer.presets` files, `dreamer.checks` looks at settings together;
`dreamer.train` uses them all.
"""

import io
import os
import re
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dreamer.checks import check, check_flags
from dreamer.hyperparameters import AgentConfig
from dreamer.options import (
    HELP_WIDTH,
    ConfigError,
    apply,
    fields,
    listing,
    option,
    settings,
    shown,
    split_flags,
)
from dreamer.presets import from_text, layers, presets
from dreamer.whole import write_whole


@dataclass(frozen=True)
class AtariConfig:
    """Atari preprocessing of the tasks that begin with this group's name."""

    size: tuple[int, int] = option(
        (96, 96), "[16, 512]", "Image height and width, multiples of 16."
    )
    repeat: int = option(
        4, "[1, 64]", "Emulator frames that one action is repeated for."
    )
    sticky: float = option(
        0.25, "[0, 1)", "Chance per frame that the last action sticks."
    )
    gray: bool = option(
        True, "", "One gray channel instead of three of colour."
    )
    actions: str = option(
        "all", ("all", "needed"), "Legal action set, or the game's minimal."
    )
    lives: str = option(
        "unused",
        ("unused", "discount", "reset"),
        "What losing a life does: nothing, value 0 after it, episode end.",
    )
    noops: int = option(
        30, "[0, 1000]", "Most no-op frames after a reset, drawn uniformly."
    )
    length: int = option(
        108000, "[1, 1e15]", "Frames after which an episode is cut short."
    )


@dataclass(frozen=True)
class GymConfig:
    """Any Gymnasium environment: the tasks gym_<environment id>."""

    size: tuple[int, int] = option(
        (64, 64), "[16, 512]", "Height and width that images are resized to."
    )
    repeat: int = option(
        1, "[1, 64]", "Environment steps that one action is repeated for."
    )


def _atari100k() -> AtariConfig:
    return AtariConfig(size=(64, 64), sticky=0.0, gray=False, actions="needed")


@dataclass(frozen=True)
class EnvConfig:
    """Of any task; below, a group per kind, picked by the task's prefix."""

    import_: tuple[str, ...] = option(
        (),
        "",
        "Modules to import first, which register environments of your own.",
    )
    atari: AtariConfig = field(default_factory=AtariConfig)
    atari100k: AtariConfig = field(default_factory=_atari100k)
    gym: GymConfig = field(default_factory=GymConfig)


@dataclass(frozen=True)
class RunConfig:
    """How long, how many environments, how much training."""

    steps: int = option(
        51_000_000,
        "[1, 1e15]",
        "Policy steps of the run, summed over all environments.",
        resume=True,
    )
    train_ratio: float = option(
        32.0,
        "[-1e6, 1e6]",
        "Time steps replayed per policy step (0: never train, negative: one"
        " update every policy step). `python -m dreamer.ratio` explains it.",
    )
    envs: int = option(16, "[1, 4096]", "Environments that step in parallel.")
    log_every: float = option(
        120.0, "(0, inf)", "Seconds between two lines of metrics.", resume=True
    )
    save_every: float = option(
        900.0, "(0, inf)", "Seconds between two checkpoints.", resume=True
    )
    report_every: float = option(
        600.0,
        "[0, inf)",
        "Seconds between two videos of what the model predicts (0: none).",
        resume=True,
    )
    disk_patience: float = option(
        1800.0,
        "[0, inf)",
        "Seconds that writing to the logdir may fail before the run ends.",
        resume=True,
    )
    env_timeout: float = option(
        300.0,
        "(0, inf)",
        "Seconds without an answer after which an environment has hung.",
        resume=True,
    )
    env_restarts: int = option(
        10, "[0, 1e9]", "Failed environments that are replaced.", resume=True
    )
    nonfinite_limit: int = option(
        10,
        "[1, 1e9]",
        "Updates in a row without a finite loss that end the run.",
        resume=True,
    )


@dataclass(frozen=True)
class ReplayConfig:
    """The store of past experience."""

    size: int = option(
        5_000_000,
        "[1, 1e15]",
        "Time steps held at most; never more than the run's own steps.",
    )
    online: bool = option(
        True, "", "Serve every fresh window once before drawing uniformly."
    )
    exact: str = option(
        "auto",
        ("auto", "always", "never"),
        "Whether a checkpoint saves again all latents that updates refreshed,"
        " so that a run goes on to the bit; auto: if all take up to 4 GB.",
        resume=True,
    )


@dataclass(frozen=True)
class JaxConfig:
    """Where and in which precision the agent computes."""

    platform: str = option(
        "auto",
        ("auto", "cpu", "cuda", "gpu", "tpu"),
        "Device kind; auto takes an accelerator where there is one.",
        resume=True,
    )
    compute_dtype: str = option(
        "auto",
        ("auto", "bfloat16", "float32"),
        "Type of activations; auto is float32 on CPU, bfloat16 elsewhere.",
    )
    deterministic: bool = option(
        False,
        "",
        "Same seed, same bits on a GPU too, for some speed; CPUs always do.",
        resume=True,
    )
    devices: int = option(
        1,
        "[0, 65536]",
        "Devices of each process that compute updates together (0: all).",
        resume=True,
    )
    fsdp: bool = option(
        False,
        "",
        "Divide parameters and optimiser state among them, to save memory.",
        resume=True,
    )
    coordinator: str = option(
        "none",
        "",
        "host:port where several processes of one run meet; auto: as Slurm,"
        " Kubernetes, Open MPI or a TPU pod tell.",
        resume=True,
    )
    processes: int = option(
        1,
        "[1, 65536]",
        "Processes of the run, with a coordinator that is not auto.",
        resume=True,
    )
    process: int = option(
        0,
        "[0, 65535]",
        "Which of them this is; process 0 runs on the coordinator's host.",
        resume=True,
    )
    join_timeout: float = option(
        300.0,
        "(0, 1e6]",
        "Seconds until all of them must have come.",
        resume=True,
    )


@dataclass(frozen=True)
class LoggerConfig:
    """Where metrics go."""

    outputs: tuple[str, ...] = option(
        ("jsonl", "tensorboard"),
        ("jsonl", "tensorboard", "wandb"),
        "Formats to write metrics in.",
        resume=True,
    )


@dataclass(frozen=True)
class Config:
    """One run, from the first frame to the last."""

    task: str = option(
        "atari_pong",
        "",
        "atari_<game>, atari100k_<game> or gym_<environment id>.",
    )
    logdir: str = option(
        "~/logdir/dreamer/{timestamp}",
        "",
        "Folder of the run's files; {timestamp}, {task} and {seed} in it are"
        " filled in.",
        resume=True,
    )
    seed: int = option(0, "[0, 4294967295]", "Seed of all random numbers.")
    batch_size: int = option(16, "[1, 65536]", "Sequences B in a batch.")
    batch_length: int = option(
        64, "[2, 65536]", "Time steps T trained on in each sequence."
    )
    replay_context: int = option(
        1, "[1, 65536]", "Time steps K before them that the state comes from."
    )
    env: EnvConfig = field(default_factory=EnvConfig)
    run: RunConfig = field(default_factory=RunConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    jax: JaxConfig = field(default_factory=JaxConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)

    @property
    def batch_steps(self) -> int:
        """Time steps that one update trains on, B * T."""
        return self.batch_size * self.batch_length

    @property
    def suite(self) -> str:
        """'atari', 'atari100k' or 'gym': the task's prefix."""
        return self.task.partition("_")[0]

    @property
    def task_name(self) -> str:
        """The game or environment id: the task without its prefix."""
        return self.task.partition("_")[2]

    @property
    def action_repeat(self) -> int:
        """Frames per policy step."""
        return getattr(self.env, self.suite).repeat


def load(argv: Sequence[str], program: str = "dreamer.train") -> Config:
    """The settings that a command line asks for, checked.

    `--configs a b.yaml` applies presets and files in their order, then come
    the `--key value` flags. In the logdir, `{timestamp}` becomes the time in
    UTC, `{task}` and `{seed}` those settings, and `~` the home folder.
    Nothing is created. `--help` prints every setting and exits.

    Args:
      argv: The arguments, without the program's name.
      program: Module that `--help` speaks of.

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
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    values = {
        "timestamp": stamp,
        "task": re.sub(r"[^\w.-]", "_", config.task),  # no folders in it
        "seed": str(config.seed),
    }
    logdir = re.sub(
        r"\{(timestamp|task|seed)\}", lambda x: values[x[1]], config.logdir
    )
    config = replace(config, logdir=os.path.expanduser(logdir))
    check(config)
    return config


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
      text: Of all settings, or of those that are not at their defaults.
      name: What the text is of; begins the message of an error in it.
      changes: Values by key, as text, flags of a command line.

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
    notes = {
        "A run continues when its logdir is given again. Then may differ: ": (
            free
        ),
        "games: ": GAMES,
    }
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
