"""Builds and runs docker/Dockerfile where there is no container engine.

    python docker/replay.py build --root DIR --build-arg LOCK=cpu
    python docker/replay.py run --root DIR --logdir LOGDIR -- --configs debug
    python docker/replay.py health --root DIR

Does every instruction of the Dockerfile in a root folder, see container.py,
and runs what comes of it as its user. A check of the Dockerfile, not a wall
against programs. Needs Linux and root. Next: dockerfile.py, which reads it.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from container import (
    PACKAGES,
    Image,
    ReplayError,
    copy,
    execute,
    health,
    prepare,
    run,
)
from dockerfile import DockerfileError, Stage, Step, argument, fill, read

CONTEXT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    flags = _parser().parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise ReplayError("expected to be run as root")
        root = flags.root.absolute()
        if flags.action == "build":
            build(root, flags.base, flags.packages, dict(flags.build_arg))
            return 0
        if flags.action == "health":
            return health(root, flags.user)
        volume = str(flags.logdir.absolute()) if flags.logdir else ""
        return run(root, volume, flags.user, flags.read_only, flags.words)
    except (ReplayError, DockerfileError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Builds and runs the image without a container engine."
    )
    actions = parser.add_subparsers(dest="action", required=True)
    makes, runs, asks = (
        actions.add_parser(name, help=about)
        for name, about in (
            ("build", "does the Dockerfile's instructions"),
            ("run", "as docker run; SIGTERM stops it as docker stop does"),
            ("health", "does the image's health check of what runs"),
        )
    )
    for action in (makes, runs, asks):
        about = "folder of the image"
        action.add_argument("--root", type=Path, required=True, help=about)
    about = "root of the system's programs (default: this machine's)"
    makes.add_argument("--base", default="/", metavar="DIR", help=about)
    about = "take this site-packages folder instead of installing the lock"
    makes.add_argument("--packages", default="", metavar="DIR", help=about)
    makes.add_argument(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        type=lambda text: tuple(text.split("=", 1)),
    )
    for action in (runs, asks):
        about = "UID:GID instead of the image's"
        action.add_argument("--user", default="", help=about)
    about = "folder to mount on /logdir"
    runs.add_argument("--logdir", type=Path, help=about)
    about = "with a root folder that nothing can be written to, but /tmp"
    runs.add_argument("--read-only", action="store_true", help=about)
    about = "after --: what follows the image's name"
    runs.add_argument("words", nargs="*", help=about)
    return parser


def build(
    folder: Path, base: str, packages: str, given: Mapping[str, str]
) -> None:
    """Does every instruction, stage by stage, below a folder."""
    if sys.base_prefix == "/usr":
        raise ReplayError(
            "the system's own Python cannot stand in for the base image's;"
            " expected one in a folder of its own"
        )
    stages = read(CONTEXT / "docker" / "Dockerfile", given)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ReplayError(f"--root {folder}: expected an empty folder")
    made: dict[str, Path] = {}
    for number, stage in enumerate(stages):
        image = Image(str(folder / f"stage{number}"), base, packages)
        prepare(image)
        _build_stage(image, stage, made, given)
        made[stage.name] = Path(image.root)
    image.save(folder)


def _build_stage(
    image: Image, stage: Stage, made: Mapping[str, Path], given: Mapping
) -> None:
    values: dict[str, str] = {}  # of ARG
    for step in stage.steps:
        print(f"{step.line:4} {step.name} {step.text}", flush=True)
        known = {**values, **image.env}
        if step.name == "ARG":
            values |= argument(step, given)
        elif step.name == "RUN":
            _run_step(image, step, values)
        elif step.name == "COPY":
            _copy_step(image, step, made, known)
        elif step.name == "ENV":
            for word in step.words():
                name, _, value = fill(word, known, step).partition("=")
                image.env[name] = value
        elif step.name == "WORKDIR":
            image.workdir = fill(step.text, known, step)
            (Path(image.root) / image.workdir.lstrip("/")).mkdir(
                parents=True, exist_ok=True
            )
        elif step.name == "USER":
            image.user = fill(step.text, known, step)
        elif step.name == "ENTRYPOINT":
            image.entrypoint = step.command()
        elif step.name == "CMD":
            image.cmd = step.command()
        elif step.name == "HEALTHCHECK":
            image.health = step.command()


def _run_step(image: Image, step: Step, values: Mapping[str, str]) -> None:
    if image.packages and " -m pip " in step.text:
        python = re.search(r"--python (\S+)/bin/python", step.text)
        sites = Path(image.root).glob(
            f".{python[1]}/lib/python*/site-packages" if python else ""
        )
        line = f"import site; site.addsitedir({PACKAGES!r})\n"
        next(sites).joinpath("packages.pth").write_text(line)
        print(f"     the packages of {image.packages} instead")
        return
    shell = ["/bin/sh", "-c", step.text]
    execute(image, shell, image.user, image.workdir, HOME="/root", **values)


def _copy_step(
    image: Image,
    step: Step,
    made: Mapping[str, Path],
    values: Mapping[str, str],
) -> None:
    *sources, target = [fill(x, values, step) for x in step.words()]
    origin = made[step.flags["from"]] if step.flags else CONTEXT
    wanted = included if origin is CONTEXT else (lambda path: True)
    place = Path(image.root) / target.lstrip("/")
    for name in sources:
        source = origin / name.lstrip("/")
        if not source.exists() or not wanted(source):
            raise ReplayError(f"line {step.line}: COPY {name}: no such file")
        into = target.endswith("/") and source.is_file()
        place.parent.mkdir(parents=True, exist_ok=True)
        copy(source, place / source.name if into else place, wanted)


def included(path: Path) -> bool:
    """Whether .dockerignore lets a file of the checkout into a build."""
    parts = path.relative_to(CONTEXT).parts
    prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    found = True
    for line in (CONTEXT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        words = re.split(r"(\*\*/|\*)", pattern.removeprefix("!"))
        known = {"**/": "(?:.*/)?", "*": "[^/]*"}
        regex = "".join(known.get(x, re.escape(x)) for x in words)
        if any(re.fullmatch(regex, prefix) for prefix in prefixes):
            found = pattern.startswith("!")
    return found


if __name__ == "__main__":
    sys.exit(main())
