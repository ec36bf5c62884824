"""Plays a trained agent: `python -m dreamer.evaluate --logdir DIR`.

The scores of many episodes go to a JSON file, the first episodes to films if
wanted. The run itself is left alone and may go on meanwhile. Next:
run/policy.py for the agent, run/episodes.py for what is played.
"""

import argparse
import contextlib
import numbers
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dreamer.command import Parser, say, unknown_flag, whole_number
from dreamer.config import Config
from dreamer.envs.vector import EnvError, Envs
from dreamer.options import (
    ConfigError,
    one_line,
    settings,
    shown,
)
from dreamer.places import home
from dreamer.run import threads
from dreamer.run.episodes import Evaluation, Played
from dreamer.run.faults import explain
from dreamer.run.films import Films
from dreamer.run.policy import LENGTH, MODES, Policy, load
from dreamer.run.ticker import Ticker
from dreamer.run.when import StopSignal
from dreamer.scores import evaluation_file
from dreamer.scores.evaluation import words
from dreamer.scores.evaluation_file import Conditions
from dreamer.settings import split_flags
from dreamer.units import duration

PROGRAM = "dreamer.evaluate"
DESCRIPTION = """\
Plays episodes with the agent of a checkpoint. Writes their scores, the mean
with a 95% interval and, where it is known, the human-normalised score to
DIR/eval-STEPS-MODE.json, whose name goes on where something is not as usual;
with --video, films to videos/ beside that file.

All else is as the run's settings say. Flags as in training change some:
--env.* (what it plays), --jax.* (where it computes; by default on an
accelerator if there is one, wherever the run did), --run.env_timeout and
--run.env_restarts. Atari games are played until no life is left.
"""
FAILED, REFUSED, INTERRUPTED = 1, 2, 130  # exit codes, beside 0
EPISODES = 100  # unless it is said how many
FPS = 30.0  # of an environment that does not say
SLOWEST, FASTEST = 0.1, 1000.0  # frames per second of a film


@dataclass(frozen=True)
class Job:
    """What is to be done: everything that can be refused has been."""

    flags: argparse.Namespace
    conditions: Conditions
    policy: Policy
    envs: Envs
    films: Films | None
    out: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    # A run on the same GPU has most of its memory, and this needs little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        with StopSignal() as stop, contextlib.ExitStack() as opened:
            try:
                given = sys.argv[1:] if argv is None else argv
                job = prepare(given, opened)
            except ConfigError as error:
                say(PROGRAM, error)
                return REFUSED
            print(_describe(job), flush=True)
            began = time.monotonic()
            episodes = play(job, stop)
            if len(episodes) < job.flags.episodes:
                say(PROGRAM, "interrupted; no scores are written")
                return INTERRUPTED
            found = _results(job, episodes, time.monotonic() - began)
            print(words(found), flush=True)  # also if it cannot be written
            evaluation_file.write(job.out, found)
            print(f"Written: {job.out}")
            return 0
    except EnvError as error:
        reason = str(error)  # with the environment's own traceback
    except Exception as error:
        if explain(error, Config()) is not None:
            reason = "out of memory; take fewer --envs or --jax.platform cpu"
        elif isinstance(error, OSError):
            reason = one_line(str(error))
        else:
            raise
    print(f"{PROGRAM}: {reason}", file=sys.stderr)
    return FAILED


def program() -> NoReturn:
    """The command: as `main`, ending the process with the exit code."""
    threads.run_program(main)


def _parser() -> Parser:
    parser = Parser(f"python -m {PROGRAM}", DESCRIPTION)
    add = parser.add_argument
    about = "a run's folder, or that of one checkpoint, copied anywhere"
    add("--logdir", metavar="DIR", type=home, required=True, help=about)
    about = "how actions are taken (default: sample, as in training)"
    add("--mode", choices=MODES, default="sample", help=about)
    add("--out", metavar="FILE", type=home, help="instead of that in DIR")
    for flag, default, low, high, about in (
        ("checkpoint", None, 0, 10**18, "its policy steps (default: newest)"),
        ("episodes", EPISODES, 1, 10**6, "episodes to play"),
        ("envs", 8, 1, 4096, "environments in parallel"),
        ("seed", 0, 0, 2**32 - 1, "of environments and actions"),
        ("video", 0, 0, 10**6, "episodes to make films of, the first ones"),
        ("length", LENGTH, 1, 10**9, "policy steps of an episode at most"),
    ):
        words = "" if default is None else f" (default: {default})"
        number = whole_number(low, high)
        options = dict(metavar="N", type=number, help=about + words)
        add(f"--{flag}", default=default, **options)
    return parser


def _parse(
    argv: Sequence[str],
) -> tuple[argparse.Namespace, dict[str, str]]:
    """Flags of this program, and changes of the run's settings."""
    parser = _parser()
    flags, rest = parser.parse_known_args(argv)
    known = settings(Config())
    if rest and not rest[0].startswith("--"):
        raise ConfigError(f"{shown(rest[0])}: expected --FLAG VALUE")
    entries, changes = split_flags(rest, known)
    if entries:
        raise ConfigError("--configs: expected none, the run's settings hold")
    for key in changes:
        if key not in known and "." not in key:
            unknown_flag(key, parser.names())
    if flags.video > flags.episodes:
        raise ConfigError(
            f"--video {flags.video}: expected at most --episodes"
            f" {flags.episodes}"
        )
    return flags, changes


def prepare(argv: Sequence[str], opened: contextlib.ExitStack) -> Job:
    """Looks at everything, and writes nothing.

    Args:
      argv: Arguments, without the program's name.
      opened: Stack that gets whatever is to be closed.

    Raises:
      ConfigError: something asked for cannot work.
      EnvError: an environment does not start.
    """
    flags, changes = _parse(argv)
    policy = load(
        flags.logdir,
        flags.checkpoint,
        mode=flags.mode,
        seed=flags.seed,
        settings=changes,
    )
    conditions = _conditions(flags, changes, policy)
    usual = flags.episodes == EPISODES
    count = None if usual else flags.episodes
    name = evaluation_file.name(conditions, LENGTH, count)
    out = flags.out or policy.home / name
    _check_writable(out)
    envs = policy.make_envs(
        conditions.envs,
        flags.seed,
        flags.length,
        flags.video or None,
    )
    opened.callback(envs.close)
    films = None
    if flags.video:
        films = opened.enter_context(_films(policy, envs, flags.video, out))
    return Job(flags, conditions, policy, envs, films, out)


def _conditions(
    flags: argparse.Namespace, changes: Mapping[str, str], policy: Policy
) -> Conditions:
    return Conditions(
        task=policy.config.task,
        checkpoint=policy.policy_steps,
        frames=policy.frames,
        updates=policy.updates,
        mode=policy.mode,
        seed=flags.seed,
        envs=min(flags.envs, flags.episodes),
        length=flags.length,
        settings={k: v for k, v in changes.items() if k in policy.changed},
    )


def _check_writable(out: Path) -> None:
    try:
        if out.is_dir():
            raise ConfigError(f"--out {out}: expected a file, it is a folder")
        if out.exists() and not out.is_file():  # would be replaced by a file
            raise ConfigError(f"--out {out}: expected a file, it is a device")
        parents = out.absolute().parents
        folder = next(folder for folder in parents if folder.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{out}: {folder} is not writable; --out takes another file"
            )
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from None


def _films(policy: Policy, envs: Envs, count: int, out: Path) -> Films:
    """Films beside the file, at the speed of the game."""
    env = policy.make_env()
    fps = _fps(env.metadata) / policy.config.action_repeat
    env.close()
    title = policy.config.task_name
    return Films(_paths(count, out), fps, envs.obs_spaces, title)


def _fps(metadata: Mapping[str, Any] | None) -> float:
    """Frames per second that an environment asks for, if a film can."""
    fps = (metadata or {}).get("render_fps")
    known = isinstance(fps, numbers.Real) and SLOWEST <= fps <= FASTEST
    return float(fps) if known else FPS


def _paths(count: int, out: Path) -> list[Path]:
    folder = out.parent / "videos"
    return [folder / f"{out.stem}-{x:03d}.mp4" for x in range(count)]


def _describe(job: Job) -> str:
    policy = job.policy
    return (
        f"Agent of {policy.config.task} after {policy.policy_steps:,} policy"
        f" steps ({policy.frames:,} frames, {policy.updates:,} updates)\n"
        f"Episodes: {job.flags.episodes}, environments: {job.envs.num},"
        f" actions: {policy.mode}, on {policy.device}"
    )


def play(job: Job, stop: StopSignal) -> Sequence[Played]:
    """The episodes, or those that ended before a signal came.

    Raises:
      EnvError: an environment failed once too often.
      OSError: a film cannot be written.
    """
    began = time.monotonic()
    total = job.flags.episodes
    with Ticker() as ticker:
        evaluation = Evaluation(job.policy, job.envs, total, job.films)

        def line() -> str:
            seconds = time.monotonic() - began
            scores = [x.score for x in evaluation.episodes]
            fields = [
                f"episodes {len(scores)}/{total}",
                f"policy steps {evaluation.policy_steps:,}",
                f"{evaluation.policy_steps / seconds:,.0f} steps/s",
            ]
            if scores:
                left = seconds * (total / len(scores) - 1)
                fields.insert(1, f"mean score {np.mean(scores):,.6g}")
                fields.append(f"about {duration(left)} left")
            return "  ".join(fields)

        while not (evaluation.finished or stop.received):
            evaluation.step()
            ticker.show(line)
            for report in job.envs.reports:
                ticker.print(report)
            job.envs.reports.clear()
    return evaluation.episodes


def _results(
    job: Job, episodes: Sequence[Played], seconds: float
) -> dict[str, Any]:
    """The contents of the file."""
    films = _paths(job.flags.video, job.out)
    videos = [str(film.relative_to(job.out.parent)) for film in films]
    rows = [episode._asdict() for episode in episodes]
    return evaluation_file.results(job.conditions, rows, videos, seconds)


if __name__ == "__main__":
    program()
