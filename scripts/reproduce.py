"""Trains, evaluates, and keeps what came of it: `scripts/reproduce`.

A thin layer: `dreamer.sweep` and `prove.py` train, `dreamer.evaluate` plays,
`collect.py` (read it next) keeps the small files and draws them.
"""

import argparse
import contextlib
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import collect  # noqa: E402
from prove import PROOFS, program  # noqa: E402

from dreamer.command import Parser, say, whole_number  # noqa: E402
from dreamer.envs.games import ALIASES, GAMES  # noqa: E402
from dreamer.options import (  # noqa: E402
    ConfigError,
    did_you_mean,
    one_line,
    shown,
)
from dreamer.places import home  # noqa: E402
from dreamer.run.when import StopSignal  # noqa: E402
from dreamer.streams import lossy  # noqa: E402
from dreamer.sweeps.grid import SUITES  # noqa: E402

PROOF = "proof"
EPISODES = 100  # that are played unless --episodes says otherwise
BENCHMARKS = ("atari100k", "atari100k_paper", PROOF)
DESCRIPTION = """\
Makes results again, or some of them:

    scripts/reproduce atari100k --games pong,boxing --seeds 3
    scripts/reproduce atari100k --games all26 --seeds 5 --launcher slurm
    scripts/reproduce proof --seeds 3

Trains what is not finished yet, by `python -m dreamer.sweep` or, for proof,
by scripts/prove.py, which take all other flags; plays 100 episodes with every
agent that has not played yet; keeps scores, settings, evaluation and versions
of each finished run in RESULTS/NAME/RUN; and draws plots and tables
again from what is kept there. The same command again goes on where it was.
"""
FAILED, REFUSED, INTERRUPTED = 1, 2, 75  # exit codes, beside 0
STOPS = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str]) -> int:
    """Runs the command line and returns the exit code."""
    try:
        flags, more = parse(argv)
        logdir, results = folders(flags)
        code = 0 if flags.collect else train(flags, more, logdir)
        if code not in (0, FAILED) or "--dry-run" in more:
            return code
        if not flags.collect and flags.benchmark != PROOF:
            code = max(code, evaluate(logdir, flags.episodes))
            if code == INTERRUPTED:
                return code
        kept, damaged = keep(flags.benchmark, logdir, results, flags.episodes)
        code = max(code, FAILED) if damaged else code
        if not kept and flags.collect:
            raise ConfigError(f"{logdir}: holds no run that is finished")
        print(f"Runs in {results}: {kept}", flush=True)
        if kept:
            draw(flags.benchmark, results)
        return code
    except (OSError, ConfigError) as error:
        say("reproduce", error)
        return REFUSED


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags of this program, and those that are passed on.

    Raises:
      ConfigError: something is not as it should be.
    """
    parser = Parser("scripts/reproduce", DESCRIPTION)
    add = parser.add_argument
    count = whole_number(1, 10**6 - 1)
    add("benchmark", choices=BENCHMARKS)
    about = "with commas; all26 (default), or all small tasks for proof"
    add("--games", metavar="NAMES", help=about)
    add("--seeds", metavar="N", type=count, default=1, help="default: 1")
    about = "presets for the size of the model (default: size12m)"
    add("--configs", metavar="NAME", nargs="+", help=about)
    about = "of these results, for other flags (default: BENCHMARK-SIZE)"
    add("--name", metavar="NAME", type=_name, help=about)
    about = "where runs are (default: ~/logdir/reproduce/NAME)"
    add("--logdir", metavar="DIR", type=home, help=about)
    about = "where results are kept (default: results)"
    add("--results", metavar="DIR", type=home, help=about)
    about = "to play with a trained agent (default: 100)"
    add("--episodes", metavar="N", type=count, default=EPISODES, help=about)
    about = "start nothing: keep what is finished, and draw"
    add("--collect", action="store_true", help=about)
    flags, more = parser.parse_known_args(argv)
    flags.games = _games(flags.benchmark, flags.games)
    if flags.benchmark == PROOF and flags.configs:
        raise ConfigError("--configs: expected none, proof has one setting")
    if flags.benchmark == PROOF and flags.episodes > EPISODES:
        raise ConfigError(
            f"--episodes {flags.episodes}: expected at most {EPISODES}, which"
            " proof plays"
        )
    if flags.collect and more:
        raise ConfigError(f"{shown(more[0])}: expected no such flag")
    return flags, more


def _games(benchmark: str, text: str | None) -> list[str]:
    """The games of a benchmark that were named, or all of them."""
    if benchmark == PROOF:
        known, names = list(PROOFS), {}
    else:
        known, names = list(SUITES["all26"]()), ALIASES
        if text == "all26":
            text = None
    if text is None:
        return known
    games = [names.get(word, word) for word in text.split(",")]
    for game in games:
        if game not in (known if benchmark == PROOF else GAMES):
            hint = did_you_mean(game, known) or f"; {', '.join(known)}"
            raise ConfigError(f"--games {shown(game)}: no such game{hint}")
        if games.count(game) > 1:
            raise ConfigError(f"--games {game}: given twice")
    return games


def _name(text: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", text):
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: expected letters, digits, _, . and -"
        )
    return text


def folders(flags: argparse.Namespace) -> tuple[Path, Path]:
    """Of the runs, and of what is kept of them."""
    parts = [flags.benchmark]
    if flags.benchmark != PROOF:
        flags.configs = flags.configs or ["size12m"]
        parts += [re.sub(r"[^\w.]", "_", Path(x).stem) for x in flags.configs]
    name = flags.name or "-".join(parts)
    logdir = flags.logdir or Path("~/logdir/reproduce") / name
    results = (flags.results or ROOT / "results") / name
    return logdir.expanduser().absolute(), results.expanduser().absolute()


def train(flags: argparse.Namespace, more: list[str], logdir: Path) -> int:
    """Trains what is not finished; the exit code of what does it."""
    common = ["--seeds", str(flags.seeds), "--logdir", str(logdir)]
    if flags.benchmark == PROOF:
        script = str(ROOT / "scripts" / "prove.py")
        return run([script, *flags.games, *common, *more])
    tasks = ",".join(f"atari100k_{game}" for game in flags.games)
    configs = ["--configs", flags.benchmark, *flags.configs]
    command = ["dreamer.sweep", *configs, "--task", tasks, *common, *more]
    return run(["-m", *command])


def evaluate(logdir: Path, episodes: int) -> int:
    """Plays with agents that are trained and have not played yet."""
    code = 0
    for folder in collect.runs(logdir):
        try:
            if collect.unfinished(folder):
                continue
            if collect.is_evaluated(folder, episodes):
                continue
        except (ValueError, OSError):
            continue  # `keep` says why
        print(f"{folder.name}: playing {episodes} episodes", flush=True)
        command = ["-m", "dreamer.evaluate", "--logdir", str(folder)]
        log = folder.with_name(f"{folder.name}.log")
        ended = run([*command, "--episodes", str(episodes)], log)
        if ended == INTERRUPTED:
            return INTERRUPTED
        if ended:
            print(f"{folder.name}: dreamer.evaluate failed: {log} says why")
            code = FAILED
    return code


def run(arguments: Sequence[str], log: Path | None = None) -> int:
    """A program of the project; its exit code, 75 if it was told to stop.

    One that another signal ends, as where memory is short, has failed; the
    log says by which.
    """
    with (
        StopSignal() as stop,
        log.open("a") if log else contextlib.nullcontext() as file,
    ):
        code = program(arguments, stop, file)
        if code < 0 and not stop.received and -code not in STOPS:
            line = f"reproduce: killed by signal {-code}"
            print(line, file=file or sys.stderr)
            code = FAILED
    return INTERRUPTED if stop.received or code < 0 else code


def keep(
    benchmark: str, logdir: Path, results: Path, episodes: int
) -> tuple[int, int]:
    """Keeps what is finished and has played, and says what is left out.

    Returns:
      The number of runs that are kept now, and of those that cannot be: with
      files that are damaged, or of other settings than what is kept.
    """
    damaged = 0
    for folder in collect.runs(logdir):
        name = folder.name
        try:
            if reason := collect.unfinished(folder):
                print(f"{name}: left out, {reason}")
            elif not collect.is_evaluated(folder, episodes):
                reason = f"its agent has not played {episodes} episodes"
                print(f"{name}: left out, {reason}")
            elif collect.keep(folder, results / name, benchmark):
                print(f"{name}: kept")
        except (ValueError, OSError) as error:
            print(f"{name}: left out, {one_line(str(error))}")
            damaged += 1
    return len(collect.runs(results)), damaged


def draw(benchmark: str, results: Path) -> None:
    """Tables and figures of what is kept."""
    draw = collect.draw_proof if benchmark == PROOF else collect.draw_atari
    for line in draw(results):
        print(line)


if __name__ == "__main__":
    # Hours of training are worth more than a line that nobody reads.
    sys.stdout, sys.stderr = lossy(sys.stdout), lossy(sys.stderr)
    sys.exit(main(sys.argv[1:]))
