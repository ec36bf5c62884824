"""Writes runs down as one Indexed Job of Kubernetes, a pod each.

A pod that is evicted or told to stop saves its run, ends with 75 and is
replaced, which does not count as a failure; a run that fails is retried a few
times, and the others go on. The manifest has all that pods need: their
commands are in it. Whether somebody applied it is not known here: while it
lies there, its runs are left to it. Next: `dreamer/sweep.py`.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from dreamer.options import ConfigError, cut
from dreamer.presets import is_file
from dreamer.sweeps.grid import Run
from dreamer.sweeps.local import INTERRUPTED, REFUSED, RETRIES
from dreamer.sweeps.record import Manifest, Record
from dreamer.whole import write_whole

# What the image of docker/Dockerfile starts with, which minds signals at once.
ENTRY = ["/opt/dreamer/bin/python", "/opt/dreamer/src/docker/entry.py"]
GRACE = 120  # seconds from SIGTERM to SIGKILL; a run saves in some of them
USER = 1000  # of the image that docker/Dockerfile makes
COMMANDS = "/sweep"  # where a pod sees the commands of all runs
NAME = 63  # characters of a name; pods append 11 of them
# Bytes of commands: `kubectl apply` keeps what it applied in an annotation,
# which may have 262,144.
LARGEST = 260_000


def check(flags: argparse.Namespace, entries: Sequence[str]) -> None:
    """Sees that nothing is missing that a manifest has to name.

    Args:
      flags: Flags of the command line, see flags.py.
      entries: Words that follow `--configs`.

    Raises:
      ConfigError: a flag is missing, or pods would miss a file.
    """
    for name, what in (("image", "IMAGE"), ("pvc", "NAME")):
        if getattr(flags, name) is None:
            raise ConfigError(
                f"--launcher k8s: expected --{name} {what} with it"
            )
    folder = os.path.abspath(flags.logdir)
    for entry in entries:
        path = Path(os.path.abspath(os.path.expanduser(entry)))
        if is_file(entry) and not path.is_relative_to(folder):
            raise ConfigError(
                f"--configs {cut(entry)}: expected presets or files in"
                " --logdir; a pod sees no others"
            )


def submit(
    record: Record, runs: Sequence[Run], flags: argparse.Namespace
) -> Path:
    """Writes a manifest, and records which runs are in it.

    Raises:
      ConfigError: there are too many runs.
      OSError: a file cannot be written.
    """
    number = len(record.manifests)
    path = record.folder / f"k8s-{number}.yaml"
    text = manifest(record.folder, number, runs, flags)
    write_whole(path, text)
    record.manifests.append(Manifest(path.name, [run.name for run in runs]))
    record.write()
    return path


def queued(record: Record) -> dict[str, Path]:
    """Runs that manifests of the folder have, each with the newest of them."""
    found = {}
    for one in record.manifests:
        path = record.folder / one.file
        if path.exists():
            found.update(dict.fromkeys(one.runs, path))
    return found


def release(path: Path) -> str:
    """The command after which a sweep no longer leaves runs to a manifest."""
    name = shlex.quote(str(path))
    return f"kubectl delete --ignore-not-found -f {name} && rm {name}"


def manifest(
    folder: Path,
    number: int,
    runs: Sequence[Run],
    flags: argparse.Namespace,
) -> str:
    """The text of a manifest that `kubectl apply -f` takes.

    Each of a folder has its own number in its name: a Job that has ended is
    not started again by a manifest of the same name.

    Raises:
      ConfigError: kubectl would refuse it, for so many runs.
    """
    commands = {
        f"run-{index}": f"exec {shlex.join([*ENTRY, *run.command[1:]])}\n"
        for index, run in enumerate(runs)
    }
    text = "".join([str(folder), *commands.values()])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    end = f"-{digest}-{number}"
    words = re.sub("[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    words = words[: NAME - 11 - len("sweep-") - len(end)].strip("-")
    name = f"sweep-{words or 'runs'}{end}"
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": commands,
    }
    size = len(json.dumps(config_map))
    if size > LARGEST:
        raise ConfigError(
            f"{len(runs)} runs: their commands take {size:,} bytes of a"
            f" ConfigMap, expected at most {LARGEST:,}; ask for fewer runs at"
            " a time"
        )
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app": "dreamer-sweep"}},
        "spec": _job(name, folder, len(runs), flags),
    }
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 10**6
    yaml.explicit_start = True
    yaml.dump_all([config_map, job], stream)
    return stream.getvalue()


def _job(
    name: str, folder: Path, count: int, flags: argparse.Namespace
) -> dict[str, Any]:
    retries = RETRIES if flags.retries is None else flags.retries
    return {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": min(flags.concurrent or count, count),
        "backoffLimitPerIndex": retries,
        "podReplacementPolicy": "Failed",  # never two pods of one run
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", **_exit_code(INTERRUPTED)},
                {
                    "action": "Ignore",
                    "onPodConditions": [
                        {"type": "DisruptionTarget", "status": "True"}
                    ],
                },
                {"action": "FailIndex", **_exit_code(REFUSED)},
            ]
        },
        "template": {"spec": _pod(name, folder, flags)},
    }


def _exit_code(code: int) -> dict[str, Any]:
    values = {"containerName": "run", "operator": "In", "values": [code]}
    return {"onExitCodes": values}


def _pod(name: str, folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    gpus = 1 if flags.gpu_count is None else flags.gpu_count
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    requests = {"cpu": flags.cpus, "memory": flags.mem}
    requests = {x: str(y) for x, y in requests.items() if y is not None}
    if flags.mem is not None:
        limits["memory"] = flags.mem
    # The shell is replaced by the run, which signals then reach.
    command = f'exec sh "{COMMANDS}/run-$JOB_COMPLETION_INDEX"'
    container = {
        "name": "run",
        "image": flags.image,
        "command": ["sh", "-c", command],
        "resources": {"limits": limits, "requests": requests},
        "volumeMounts": [
            {"name": "logdir", "mountPath": str(folder)},
            {"name": "commands", "mountPath": COMMANDS, "readOnly": True},
        ],
    }
    volumes = [
        {"name": "logdir", "persistentVolumeClaim": {"claimName": flags.pvc}},
        {"name": "commands", "configMap": {"name": name}},
    ]
    if gpus:
        # JAX would go on with the CPU where CUDA does not start.
        container["env"] = [{"name": "JAX_PLATFORMS", "value": "cuda"}]
    if gpus > 1:  # which exchange gradients through it
        memory = {"medium": "Memory", "sizeLimit": "1Gi"}
        volumes.append({"name": "shm", "emptyDir": memory})
        mount = {"name": "shm", "mountPath": "/dev/shm"}
        container["volumeMounts"].append(mount)
    return {
        "restartPolicy": "Never",  # the policy for failures asks for it
        "terminationGracePeriodSeconds": GRACE,
        # The image's user may not be root; the volume's root may be.
        "securityContext": {
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
        },
        "containers": [container],
        "volumes": volumes,
    }
