"""The image is built and run, without a container engine, and does its work.

A run in it is stopped as `docker stop` does, goes on, and is watched by the
health check; as the image's user and as one that nobody has heard of.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from dreamer import train
from dreamer.status import SILENCE, read

ROOT = Path(__file__).parents[2]
REPLAY = ROOT / "docker" / "replay.py"
SOON = 300  # seconds within which what is waited for happens on any machine
DEBUG = ["--configs", "atari100k", "debug", "--run.envs", "2"]
ENDLESS = [*DEBUG, "--run.train_ratio", "0", "--run.steps", "1e6"]


def why_not():
    """Why nothing can be replayed here, or nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root"
    if sys.base_prefix == "/usr":
        return "needs a Python in a folder of its own"
    for tool in ("unshare", "nsenter", "chroot"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    test = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs"]
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [*test, "tmpfs", "/mnt"], capture_output=True, check=False
        )
        if done.returncode == 0:
            return ""
    return "nothing may be mounted here"


WHY_NOT = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


def replay(*words, **options):
    done = subprocess.run(
        [sys.executable, REPLAY, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image, with the packages of this interpreter."""
    root = tmp_path_factory.mktemp("image")
    packages = sysconfig.get_path("purelib")
    words = ["--root", root, "--packages", packages, "--build-arg", "LOCK=cpu"]
    code, _, err = replay("build", *words)
    assert code == 0, err
    return root


class Container:
    """A run in the image, with a volume that belongs to its user."""

    def __init__(self, image, volume, user=1000):
        self.image, self.volume, self.user = image, volume, f"{user}:{user}"
        volume.mkdir()
        os.chown(volume, user, user)

    @property
    def status(self):
        return read(self.volume / "atari100k_pong-0") or {}

    @contextlib.contextmanager
    def running(self, *words):
        """Process of a run that has begun to act."""
        before = self.status.get("policy_steps", 0)
        log = self.volume.with_suffix(".log")
        with (
            log.open("w") as file,
            subprocess.Popen(
                self.command("run", "--read-only", *words),
                stdout=file,
                stderr=file,
            ) as process,
        ):
            try:
                end = time.monotonic() + SOON
                while self.status.get("policy_steps", 0) <= before:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < end, log.read_text()
                    time.sleep(0.1)
                yield process
            finally:
                process.terminate()
                process.wait(SOON)

    def command(self, action, *words):
        place = ["--root", str(self.image), "--user", self.user]
        if action == "run":
            place += ["--logdir", str(self.volume)]
        return [sys.executable, str(REPLAY), action, *place, *words]

    def health(self):
        done = subprocess.run(
            self.command("health"), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout


@pytest.fixture
def container(image, tmp_path):
    return Container(image, tmp_path / "volume")


def inside(image, *words):
    return replay("run", "--root", image, "--", *words)


def test_a_stopped_run_goes_on_with_the_same_command(container):
    with container.running("--", *ENDLESS) as process:
        assert container.health()[0] == 0
        process.terminate()
        assert process.wait(SOON) == train.INTERRUPTED
    assert container.status["state"] == "interrupted"
    steps = container.status["policy_steps"]
    logdir = container.volume / "atari100k_pong-0"
    assert {x.stat().st_uid for x in logdir.rglob("*")} == {1000}
    with container.running("--", *ENDLESS) as process:
        assert container.status["began_steps"] == steps > 0
    lines = (logdir / "starts.jsonl").read_text().splitlines()
    starts = [json.loads(line)["policy_steps"] for line in lines]
    assert starts == [0, steps]
    # What it compiled is where the next container finds it.
    assert any((container.volume / ".cache/dreamer/jax").iterdir())


def test_a_run_of_any_user_its_health_and_its_end(image, tmp_path):
    container = Container(image, tmp_path / "volume", user=4242)
    with container.running("--", *ENDLESS) as process:
        code, line = container.health()
        assert code == 0
        assert "/logdir/atari100k_pong-0: running" in line
        assert container.status["pid"] == 1
        first = int((image / "pid").read_text())
        os.kill(first, signal.SIGSTOP)  # it hangs, and that long ago
        path = container.volume / "atari100k_pong-0" / "status.json"
        status = json.loads(path.read_text())
        status["time"] -= SILENCE
        path.write_text(json.dumps(status))
        assert container.health()[0] == 1
        children = Path(f"/proc/{first}/task/{first}/children").read_text()
        assert children.split()  # the server that environments come from
        os.kill(first, signal.SIGKILL)
        assert process.wait(SOON) != 0
    for child in children.split():
        assert not Path(f"/proc/{child}").exists()


def test_a_folder_that_cannot_be_written_is_one_line(image, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    words = ["--root", image, "--logdir", volume, "--", *DEBUG]
    code, out, err = replay("run", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "/logdir is not writable for user 1000:1000" in err
    assert not list(volume.iterdir())


def test_what_is_in_it(image):
    code, out, _ = inside(image)
    assert code == 0
    assert "--run.train_ratio" in out
    find = "import dreamer; print(dreamer.__file__)"
    code, out, _ = inside(image, "python", "-c", find)
    assert out == "/opt/dreamer/src/dreamer/__init__.py\n"
    code, out, _ = inside(image, "id")
    assert "uid=1000(dreamer) gid=1000(dreamer) groups=1000(dreamer)" in out
    write = "touch /logdir/x && ! touch /opt/dreamer/x /etc/x"
    assert inside(image, "sh", "-c", f"{write} 2>/dev/null")[0] == 0
    code, out, err = inside(image, "nothing")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_mistakes_are_one_line(image, tmp_path):
    for words, message in (
        (["build", "--root", image], "expected an empty folder"),
        (["build", "--root", tmp_path, "--build-arg", "X=1"], "unknown"),
        (["run", "--root", tmp_path], "no image in it"),
        (["health", "--root", image], "nothing runs there"),
    ):
        code, _, err = replay(*words)
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err


@pytest.mark.long
def test_with_everything_from_the_lock(tmp_path):
    """The whole of it: minutes, a network, a gigabyte."""
    root = tmp_path / "image"
    code, _, err = replay("build", "--root", root, "--build-arg", "LOCK=cpu")
    assert code == 0, err
    container = Container(root, tmp_path / "volume")
    words = [*DEBUG, "--run.steps", "200", "--run.report_every", "5"]
    with container.running("--", *words) as process:
        process.terminate()
        assert process.wait(SOON) == train.INTERRUPTED
    code, _, err = replay(*container.command("run", "--", *words)[2:])
    assert code == 0, err
    assert container.status["state"] == "done"
    assert container.status["updates"] > 0
