"""Submits runs to Slurm as one array job, an element each.

An element that is told to stop, by preemption or ahead of the time limit,
saves its run, ends with 75 and requeues itself. A run that takes too long is
ended, so that there is time for that. What was submitted stands in
sweep.json; who submits again asks the queue first. Next: `dreamer/sweep.py`,
whose command `run` an element becomes.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dreamer.options import ConfigError, one_line
from dreamer.sweeps.flags import GRACE
from dreamer.sweeps.record import FILE, Job, Record

REQUEUE = 30  # seconds of the grace in which the busy controller is asked
PATIENCE = 120  # seconds that a command of Slurm may take here
# JAX would go on with the CPU where CUDA does not start.
GPU_ALONE = "export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda}\n"
SCRIPT = """\
#!/bin/bash
{options}
runs=({names})
PATH=$PATH:{programs}  # which a site may not pass on to jobs
unset ${{!SQUEUE_@}}  # a person's own choice of what squeue shows

stop() {{
    told=x$told
    [ -n "$run" ] || return
    kill -TERM $run
    [ -n "$watched" ] || watch &
    watched=1
}}
watch() {{  # ends a run that takes too long; it has its last checkpoint
    for ((seconds = 0; seconds < {saving}; seconds++)); do
        sleep 1
        kill -0 $run 2>/dev/null || return
    done
    kill -KILL $run
}}
try() {{  # elements that reach their limit together make the controller slow
    until timeout 10 "$@"; do
        [ $SECONDS -lt $end ] || return
        sleep 1
    done
}}

trap stop TERM
{platform}{command} ${{runs[$SLURM_ARRAY_TASK_ID]}} & run=$!
[ -z "$told" ] || stop  # told before there was a run to tell
until [ "$waited" = "x$told" ]; do  # a signal ends the wait, not the run
    waited=x$told
    wait $run; code=$?
done
# 75: saved. A run that was told to stop may end otherwise: it had just begun,
# or took too long.
if [ $code = 75 ] || [ -n "$told" -a $code != 0 ]; then
    element=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
    end=$((SECONDS + 15))
    state=$(try squeue --noheader --all --jobs=$element --format=%T)
    # Another state: cancelled, or preempted, which Slurm requeues itself. No
    # answer says neither.
    if [ "${{state:-RUNNING}}" = RUNNING ]; then
        try scontrol requeue $element ||
            echo "$element: not requeued; the sweep's command submits it" >&2
    fi
fi
exit $code
"""
# Variables of a person that would replace what a script says.
VARIABLES = {
    "account": "SBATCH_ACCOUNT",
    "array": "SBATCH_ARRAY_INX",
    "gres": "SBATCH_GRES",
    "job-name": "SBATCH_JOB_NAME",
    "mem": "SBATCH_MEM_PER_NODE",
    "open-mode": "SBATCH_OPEN_MODE",
    "output": "SBATCH_OUTPUT",
    "partition": "SBATCH_PARTITION",
    "requeue": "SBATCH_NO_REQUEUE",
    "signal": "SBATCH_SIGNAL",
    "time": "SBATCH_TIMELIMIT",
}


def check(folder: Path) -> None:
    """Sees that this machine can submit.

    Raises:
      ConfigError: it has no sbatch, no controller answers, or the sweep's
        folder has a name that a script cannot say.
    """
    if "\\" in str(folder) or not str(folder).isprintable():
        raise ConfigError(
            f"--logdir={folder}: expected a folder without \\ and line feeds,"
            " which sbatch does not take"
        )
    for program in ("sbatch", "squeue"):
        if not shutil.which(program):
            raise ConfigError(
                f"--launcher slurm: no {program} on the PATH; submit from a"
                " machine of the cluster"
            )
    _queue()


def queued(record: Record) -> set[str]:
    """Runs that a submitted job is still to do, or is doing.

    Raises:
      ConfigError: the queue does not answer.
    """
    if not record.jobs:
        return set()
    elements = _queue()
    return {
        name
        for job in record.jobs
        for index, name in enumerate(job.runs)
        if f"{job.id}_{index}" in elements
    }


def _queue() -> set[str]:
    """Elements of all jobs; of forgotten ones the queue refuses to tell."""
    command = ["squeue", "--noheader", "--all", "--array", "--format=%i"]
    return set(_call(command).split())


def submit(
    record: Record, names: Sequence[str], flags: argparse.Namespace
) -> tuple[str, Path]:
    """Writes a script, submits it, and records the job.

    Returns:
      The job's number, and the script.

    Raises:
      ConfigError: Slurm refuses, and nothing was submitted; or the job cannot
        be recorded nor cancelled, in a line that says so.
      OSError: a file cannot be written; nothing is left submitted.
    """
    number = len(record.jobs)
    path = record.folder / f"slurm-{number}.sh"
    text = script(record.folder, number, names, flags)
    path.write_text(text, "utf-8")
    options = re.findall(r"^#SBATCH --([\w-]+)", text, re.MULTILINE)
    replaced = [VARIABLES[x] for x in options if x in VARIABLES]
    try:
        said = _call(["sbatch", "--parsable", str(path)], replaced)
        found = re.match(r"\d+", said)
        if not found:
            raise ConfigError(f"sbatch: expected a job's number, got {said!r}")
    except BaseException:
        path.unlink()
        raise
    record.jobs.append(Job(found[0], list(names)))
    try:
        record.write()
    except OSError as error:
        _cancel(found[0], error)
        record.jobs.pop()
        path.unlink()
        raise
    return found[0], path


def _cancel(job: str, error: OSError) -> None:
    """Takes back a job that an error keeps from being recorded.

    Raises:
      ConfigError: it cannot be.
    """
    try:
        _call(["scancel", job])
    except (ConfigError, OSError) as refusal:
        raise ConfigError(
            f"job {job} is submitted but not recorded, for"
            f" {error.filename or FILE}: {error.strerror or error}; first"
            f" `scancel {job}`, which failed now ({refusal}), or the same"
            " command submits its runs again"
        ) from None


def script(
    folder: Path,
    number: int,
    names: Sequence[str],
    flags: argparse.Namespace,
) -> str:
    """The text of a script that sbatch takes."""
    limit = f"%{flags.concurrent}" if flags.concurrent else ""
    quoted = str(folder).replace("%", "%%").replace('"', '\\"')
    grace = GRACE if flags.grace is None else flags.grace
    options = {
        "job-name": re.sub(r"[^\w.-]", "_", f"sweep-{folder.name}"),
        "array": f"0-{len(names) - 1}{limit}",
        "output": f'"{quoted}/slurm-{number}_%a.out"',
        "open-mode": "append",
        "signal": f"B:TERM@{grace}",
        "partition": flags.partition,
        "account": flags.account,
        "time": flags.time,
        "gres": flags.gres,
        "cpus-per-task": flags.cpus,
        "mem": flags.mem,
    }
    lines = [f"#SBATCH --{x}={y}" for x, y in options.items() if y is not None]
    lines.append("#SBATCH --requeue")
    if flags.sbatch:
        lines.append(f"#SBATCH {flags.sbatch}")
    words = [sys.executable, "-m", "dreamer.sweep", "run", str(folder)]
    programs = Path(shutil.which("scontrol") or "/usr/bin/scontrol").parent
    return SCRIPT.format(
        options="\n".join(lines),
        names=" ".join(names),
        programs=shlex.quote(str(programs)),
        saving=grace - REQUEUE,
        platform=GPU_ALONE if "gpu" in (flags.gres or "") else "",
        command=shlex.join(words),
    )


def _call(command: Sequence[str], without: Sequence[str] = ()) -> str:
    """What one of Slurm's programs prints.

    Args:
      command: Program with its arguments.
      without: Environment variables that the program is not to see, beside a
        person's choice of what squeue shows and of whether sbatch waits.

    Raises:
      ConfigError: it fails; with what it says.
    """
    hidden = {"SBATCH_WAIT", *without}
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not name.startswith("SQUEUE_")
    }
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE,
            env={**environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{command[0]}: no answer in {PATIENCE} s") from None
    if done.returncode:
        words = one_line(" ".join(done.stderr.split()) or "failed")
        raise ConfigError(f"{command[0]}: {words}")
    return done.stdout.strip()
