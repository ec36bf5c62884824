"""Submits runs to Slurm as one array job, an element each.

An element that is told to stop, by preemption or ahead of the time limit,
saves its run, ends with 75 and requeues itself. What was submitted stands in
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
from dreamer.sweeps.record import Job, Record

TOLD = 60  # seconds before the time limit at which a run is told to stop
PATIENCE = 120  # seconds that a command of Slurm may take
SCRIPT = """\
#!/bin/bash
{options}
runs=({names})
trap 'told=x$told; kill -TERM $run' TERM
{command} ${{runs[$SLURM_ARRAY_TASK_ID]}} & run=$!
until [ "$waited" = "x$told" ]; do  # a signal ends the wait, not the run
    waited=x$told
    wait $run; code=$?
done
# 75: saved. A run that was told to stop at its very start ends otherwise.
if [ $code = 75 ] || [ -n "$told" -a $code != 0 ]; then
    element=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
    # No longer running: cancelled, or preempted, which Slurm requeues itself.
    state=$(squeue --noheader --jobs=$element --format=%T)
    [ "$state" = RUNNING ] && scontrol requeue $element
fi
exit $code
"""


def check() -> None:
    """Sees that this machine can submit.

    Raises:
      ConfigError: it has no sbatch.
    """
    for program in ("sbatch", "squeue"):
        if not shutil.which(program):
            raise ConfigError(
                f"--launcher slurm: no {program} on the PATH; submit from a"
                " machine of the cluster"
            )


def queued(record: Record) -> set[str]:
    """Runs that a submitted job is still to do, or is doing.

    Raises:
      ConfigError: the queue does not answer.
    """
    if not record.jobs:
        return set()
    # All jobs: the queue refuses to be asked for one that it has forgotten.
    listed = _call(["squeue", "--noheader", "--array", "--format=%i"])
    elements = set(listed.split())
    return {
        name
        for job in record.jobs
        for index, name in enumerate(job.runs)
        if f"{job.id}_{index}" in elements
    }


def submit(
    record: Record, names: Sequence[str], flags: argparse.Namespace
) -> tuple[str, Path]:
    """Writes a script, submits it, and records the job.

    Returns:
      The job's number, and the script.

    Raises:
      ConfigError: Slurm refuses; nothing was submitted.
      OSError: a file cannot be written.
    """
    number = len(record.jobs)
    path = record.folder / f"slurm-{number}.sh"
    path.write_text(script(record.folder, number, names, flags), "utf-8")
    try:
        said = _call(["sbatch", "--parsable", str(path)])
        found = re.match(r"\d+", said)
        if not found:
            raise ConfigError(f"sbatch: expected a job's number, got {said!r}")
    except BaseException:
        path.unlink()
        raise
    record.jobs.append(Job(found[0], list(names)))
    record.write()
    return found[0], path


def script(
    folder: Path,
    number: int,
    names: Sequence[str],
    flags: argparse.Namespace,
) -> str:
    """The text of a script that sbatch takes."""
    limit = f"%{flags.concurrent}" if flags.concurrent else ""
    out = f"{folder}/slurm-{number}_%a.out".replace('"', '\\"')
    options = {
        "job-name": re.sub(r"[^\w.-]", "_", f"sweep-{folder.name}"),
        "array": f"0-{len(names) - 1}{limit}",
        "output": f'"{out}"',
        "open-mode": "append",
        "signal": f"B:TERM@{TOLD}",
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
    return SCRIPT.format(
        options="\n".join(lines),
        names=" ".join(names),
        command=shlex.join(words),
    )


def _call(command: Sequence[str]) -> str:
    """What one of Slurm's programs prints.

    Raises:
      ConfigError: it fails; with what it says.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{command[0]}: no answer in {PATIENCE} s") from None
    if done.returncode:
        words = one_line(" ".join(done.stderr.split()) or "failed")
        raise ConfigError(f"{command[0]}: {words}")
    return done.stdout.strip()
