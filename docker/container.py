"""A root folder in the place of a container: what replay.py builds and runs.

The system's programs come from a base root and are read-only; the Python that
runs this is in the base image's place, at /usr/local; all else is in a folder
that starts empty. What runs there is process 1 of a namespace, in a mount
namespace of its own, as in a container; all of it ends with that process.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
DEVICES = ("null", "zero", "full", "random", "urandom")
# Of /etc: what names users, finds libraries and reaches the network.
ETC = ("ld.so.conf", "ld.so.conf.d", "login.defs", "nsswitch.conf")
NETWORK = ("hosts", "resolv.conf", "ssl")
PID = "pid"  # file with the process that `run` began
PACKAGES = "/packages"  # where --packages is seen
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of this machine's environment: what says how to reach a package index.
PASSED = re.compile(r"(?i)(https?|no)_proxy|PIP_.*|SSL_CERT_FILE")


class ReplayError(RuntimeError):
    """Something cannot be done here; one line."""


@dataclass
class Image:
    """What a build leaves: a root folder, and how to run it.

    Attributes:
      root: the last stage's.
      base: root of the system's programs.
      packages: in place of the lock's, or "".
      env, user, workdir, entrypoint, cmd, health: as in the Dockerfile.
    """

    root: str
    base: str
    packages: str
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Writes what `load` reads."""
        (folder / "image.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> "Image":
        """What `build` left in a folder."""
        try:
            return cls(**json.loads((folder / "image.json").read_text()))
        except OSError as error:
            raise ReplayError(
                f"--root {folder}: no image in it ({error.strerror});"
                " expected what `build` made"
            ) from None

    def chroot(
        self, words: Sequence[str], user: str, cwd: str, **env: str
    ) -> list[str]:
        """The command that becomes `words` inside."""
        values = [f"{x}={y}" for x, y in (self.env | env).items()]
        inner = ["/usr/bin/env", "-i", f"--chdir={cwd}", *values, *words]
        outer = ["chroot", f"--userspec={user}", "--groups=", self.root]
        return [*outer, *inner]

    def contained(
        self, command: Sequence[str], read_only: bool = False, volume: str = ""
    ) -> list[str]:
        """The command as process 1 of namespaces with all mounts."""
        lines = ["set -e", *self._mounts(volume)]
        if read_only:
            tmp = shlex.quote(f"{self.root}/tmp")
            lines.append(f"mount -t tmpfs -o mode=1777 tmpfs {tmp}")
            lines.append(f"mount -o remount,bind,ro {shlex.quote(self.root)}")
        script = "\n".join([*lines, f"exec {shlex.join(command)}"])
        spaces = ["--mount", "--pid", "--fork", "--kill-child"]
        return ["unshare", *spaces, "sh", "-c", script]

    def _mounts(self, volume: str) -> Iterator[str]:
        root, base = Path(self.root), Path(self.base)
        yield bind(root, root)
        for name in SYSTEM:
            if (base / name).is_dir() and not (base / name).is_symlink():
                yield from bind_read_only(base / name, root / name)
        local = root / "usr/local"
        yield from bind_read_only(Path(sys.base_prefix), local)
        for name in DEVICES:
            yield bind(Path("/dev", name), root / "dev" / name)
        yield f"mount -t proc proc {shlex.quote(f'{root}/proc')}"
        yield f"mount -t tmpfs tmpfs {shlex.quote(f'{root}/dev/shm')}"
        if self.packages:
            target = root / PACKAGES.strip("/")
            yield from bind_read_only(Path(self.packages), target)
        if volume:
            yield bind(Path(volume), root / "logdir")


def bind(source: Path, target: Path) -> str:
    """A shell's line that shows one place at another."""
    return shlex.join(["mount", "--bind", str(source), str(target)])


def bind_read_only(source: Path, target: Path) -> Iterator[str]:
    """As `bind`; nothing can be written through it."""
    yield bind(source, target)
    yield shlex.join(["mount", "-o", "remount,bind,ro", str(target)])


def prepare(image: Image) -> None:
    """Makes the folders of a root, as a base image would bring them."""
    root, base = Path(image.root), Path(image.base)
    for name in ("dev/shm", "etc", "opt", "packages", "proc", "root", "run"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp", "var/cache/ldconfig"):
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    for name in SYSTEM:
        if (base / name).is_symlink():
            (root / name).symlink_to(os.readlink(base / name))
        elif (base / name).is_dir():
            (root / name).mkdir()
    for name in DEVICES:
        (root / "dev" / name).touch()
    for name in ("passwd", "group"):
        text = "root:x:0:0:root:/root:/bin/sh\n"
        entry = text if name == "passwd" else "root:x:0:\n"
        (root / "etc" / name).write_text(entry)
    for folder, names in ((base, ETC), (Path("/"), NETWORK)):
        for name in names:
            copy(folder / "etc" / name, root / "etc" / name)
    execute(image, ["ldconfig"], "0:0", "/")


def execute(
    image: Image, words: Sequence[str], user: str, cwd: str, **env: str
) -> None:
    """Runs a command in a root.

    Raises:
      ReplayError: it failed; its output says why.
    """
    passed = {x: y for x, y in os.environ.items() if PASSED.fullmatch(x)}
    inner = image.chroot(words, user, cwd, **passed, **env)
    done = subprocess.run(image.contained(inner), stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ReplayError(f"exit code {done.returncode}: {shlex.join(words)}")


def copy(
    source: Path,
    target: Path,
    wanted: Callable[[Path], bool] = lambda path: True,
) -> None:
    """Copies a file or a folder's contents, but what is not wanted."""
    if source.is_dir():

        def unwanted(folder: str, names: list[str]) -> list[str]:
            return [x for x in names if not wanted(Path(folder, x))]

        shutil.copytree(source, target, True, unwanted, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def run(
    folder: Path,
    volume: str,
    user: str,
    read_only: bool,
    words: Sequence[str],
) -> int:
    """Runs the image as `docker run` does; SIGTERM is `docker stop`'s.

    Returns:
      Its exit code.
    """
    image = Image.load(folder)
    command = [*image.entrypoint, *(words or image.cmd)]
    inner = image.chroot(command, user or image.user, image.workdir)
    outer = subprocess.Popen(image.contained(inner, read_only, volume))
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    first = ""
    while outer.poll() is None and not first:
        time.sleep(0.01)
        with contextlib.suppress(OSError):
            first = children.read_text().strip()
    if first:
        (folder / PID).write_text(first)

        def pass_on(number: int, frame: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(first), number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pass_on)
    code = outer.wait()
    (folder / PID).unlink(missing_ok=True)
    return code


def health(folder: Path, user: str) -> int:
    """Runs the image's health check beside what runs.

    Returns:
      Its exit code.
    """
    image = Image.load(folder)
    try:
        target = (folder / PID).read_text()
    except OSError:
        raise ReplayError(f"--root {folder}: nothing runs there") from None
    inner = image.chroot(image.health, user or image.user, image.workdir)
    spaces = ["nsenter", "--target", target, "--mount", "--pid"]
    return subprocess.run([*spaces, *inner]).returncode
