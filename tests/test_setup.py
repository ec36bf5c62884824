"""Set-up: the locks are complete and pinned, and .venv is made when needed.

scripts/setup runs here against a Python that only notes what it is asked.
"""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("cpu", "cuda12", "dev")
PIN = re.compile(r"([a-z0-9-]+)==([\w.]+)( ; [^\\]+)?( \\)?")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def text_of(lock):
    return (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")


def pins(lock):
    """Name and marker -> version."""
    return {
        (match[1], (match[3] or "").strip()): match[2]
        for line in text_of(lock).splitlines()
        if (match := PIN.fullmatch(line))
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_names_versions_and_hashes_only(lock):
    hashes = 1
    for line in text_of(lock).splitlines():
        if line.lstrip().startswith("#"):
            continue
        if PIN.fullmatch(line):
            assert hashes, f"no hash before {line}"
            hashes = 0
        else:
            assert HASH.fullmatch(line), line
            hashes += 1
    assert hashes
    assert not re.search(r"https?:|file:|--index|--find-links", text_of(lock))
    assert not re.search(r"(^|\s)/\w", text_of(lock))


def test_locks_agree():
    cpu = pins("cpu")
    for lock in ("cuda12", "dev"):
        for key, version in pins(lock).items():
            assert cpu.get(key, version) == version, (lock, key)
    assert cpu.keys() <= pins("cuda12").keys()


@pytest.mark.parametrize("lock", ["cpu", "cuda12"])
def test_locks_serve_both_lines_of_jax(lock):
    versions = pins(lock)
    old, new = (
        "; python_full_version < '3.12'",
        "; python_full_version >= '3.12'",
    )
    for name in ("jax", "jaxlib"):
        assert versions[name, old].startswith("0.10.")
        assert versions[name, new].startswith("0.12.")
    if lock == "cuda12":
        for marker in (old, new):
            plugin = versions["jax-cuda12-plugin", marker]
            assert plugin == versions["jax", marker]


def test_locks_cover_what_the_package_needs():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    for lock, needs in (
        ("cpu", project["dependencies"]),
        ("cuda12", project["dependencies"]),
        ("dev", extras["dev"]),
    ):
        locked = {name for name, _ in pins(lock)}
        for need in needs:
            name = re.match(r"[\w.-]+", need)[0].lower()
            assert re.sub(r"[._]", "-", name) in locked, (lock, need)


FAKE_PYTHON = """#!/bin/sh
case "$*" in
  *"-m venv"*)
    for folder; do :; done
    echo venv >>"$CALLS"
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
  *"-m pip"*)
    for lock; do :; done
    echo "pip $(basename "$lock")" >>"$CALLS"
    echo "what pip said"
    if [ -n "$PIP_FAILS" ]; then exit 1; fi ;;
  *get_path*)
    site=$(dirname "$(dirname "$0")")/site
    mkdir -p "$site" && echo "$site" ;;
  *import_module*ensurepip*) test -z "$NO_VENV" ;;
  *import_module*) ;;
  *-m*) pwd && printf '<%s>' "$@" ;;
  *) echo "${VERSION:-3.12.1}" ;;
esac
"""


class Checkout:
    """A copy of the scripts, and a Python that notes its calls."""

    def __init__(self, folder):
        self.root = folder / "a checkout"
        self.tools = folder / "tools"
        self.calls_file = folder / "calls"
        self.tools.mkdir()
        for part in ("scripts", "requirements"):
            shutil.copytree(ROOT / part, self.root / part)
        self.add_tool("fake-python", FAKE_PYTHON)
        self.environ = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "PYTHON": str(self.tools / "fake-python"),
            "CALLS": str(self.calls_file),
        }
        self.add_tool("nvidia-smi", "#!/bin/sh\nexit 9\n")

    def add_tool(self, name, text):
        path = self.tools / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, script, *args, cwd="/", **environ):
        """The finished process, its calls of Python in `calls`."""
        self.calls_file.write_text("")
        done = subprocess.run(
            [script if script.is_absolute() else self.root / script, *args],
            env={**self.environ, **environ},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        done.calls = self.calls_file.read_text().split("\n")[:-1]
        return done

    def setup(self, *args, **environ):
        return self.run(Path("scripts/setup"), *args, **environ)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_first_start_makes_it_and_the_second_does_nothing(checkout):
    first = checkout.setup()
    assert first.returncode == 0
    assert first.calls == ["venv", "pip cpu.txt"]
    assert first.stdout == ""
    assert len(first.stderr.splitlines()) == 3
    site = checkout.root / ".venv/site/dreamer.pth"
    assert site.read_text() == f"{checkout.root}\n"
    second = checkout.setup()
    assert (second.returncode, second.calls, second.stderr) == (0, [], "")


def test_dev_adds_to_it(checkout):
    assert checkout.setup().calls == ["venv", "pip cpu.txt"]
    assert checkout.setup("dev").calls == ["pip dev.txt"]
    assert checkout.setup("dev").calls == []
    assert checkout.setup().calls == []


def test_an_interrupted_set_up_is_redone(checkout):
    failed = checkout.setup(PIP_FAILS="1")
    assert failed.returncode == 1
    # The whole log, and what was done.
    assert "what pip said" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("scripts/setup: error: ")
    assert checkout.setup().calls == ["venv", "pip cpu.txt"]


def test_a_changed_lock_is_installed(checkout):
    checkout.setup("dev")
    with (checkout.root / "requirements/dev.txt").open("a") as file:
        file.write("# changed\n")
    assert checkout.setup("dev").calls == ["pip dev.txt"]
    with (checkout.root / "requirements/cpu.txt").open("a") as file:
        file.write("# changed\n")
    again = ["venv", "pip cpu.txt", "pip dev.txt"]
    assert checkout.setup("dev").calls == again


def test_an_interrupted_change_that_is_taken_back_is_redone(checkout):
    checkout.setup()
    lock = checkout.root / "requirements/cpu.txt"
    before = lock.read_text()
    lock.write_text(before + "# changed\n")
    assert checkout.setup(PIP_FAILS="1").returncode == 1
    lock.write_text(before)
    assert checkout.setup().calls == ["venv", "pip cpu.txt"]


def test_a_moved_checkout_is_set_up_again(checkout, tmp_path):
    checkout.setup()
    checkout.root = checkout.root.rename(tmp_path / "elsewhere")
    assert checkout.setup().calls == ["venv", "pip cpu.txt"]
    assert checkout.setup().calls == []


def test_another_python_is_set_up_again(checkout):
    checkout.setup()
    assert checkout.setup(VERSION="3.13.0").calls[0] == "venv"


def test_a_gpu_gets_the_cuda_lock(checkout):
    checkout.setup()
    checkout.add_tool("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA'\n")
    assert checkout.setup().calls == ["venv", "pip cuda12.txt"]
    # It serves without the GPU as well, on a cluster's front end say.
    checkout.add_tool("nvidia-smi", "#!/bin/sh\nexit 9\n")
    assert checkout.setup().calls == []


def test_a_driver_without_a_gpu_does_not(checkout):
    checkout.add_tool("nvidia-smi", "#!/bin/sh\necho 'No devices found.'\n")
    assert checkout.setup().calls == ["venv", "pip cpu.txt"]


def test_the_lock_can_be_chosen(checkout):
    assert checkout.setup(LOCK="cuda12").calls == ["venv", "pip cuda12.txt"]
    assert checkout.setup().calls == []  # nor on a node without a network
    checkout.add_tool("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA'\n")
    assert checkout.setup(LOCK="cpu").calls == ["venv", "pip cpu.txt"]
    failed = checkout.setup(LOCK="cuda")
    assert failed.returncode == 1
    assert failed.calls == []
    assert failed.stderr == (
        "scripts/setup: error: LOCK=cuda: expected cpu or cuda12\n"
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PYTHON": "/no/python"}, "PYTHON=/no/python is not a working"),
        ({"NO_VENV": "1"}, "has no venv module"),
        ({"PYTHON": ""}, "no working Python 3.11 or later"),
    ],
)
def test_without_python_there_is_one_line(checkout, environ, message):
    # Like shims of versions that are not installed.
    for name in ("3", "3.11", "3.12", "3.13", "3.14", ""):
        checkout.add_tool(f"python{name}", "#!/bin/sh\nexit 127\n")
    failed = checkout.setup(**environ)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert not (checkout.root / ".venv").exists()


def test_a_shim_that_fails_is_passed_over(checkout):
    checkout.add_tool("python3.12", "#!/bin/sh\nexit 127\n")
    checkout.add_tool("python3.13", FAKE_PYTHON)
    assert checkout.setup(PYTHON="").calls == ["venv", "pip cpu.txt"]


@pytest.mark.parametrize(
    ("script", "module", "dev"),
    [("train", "dreamer.train", False), ("test", "pytest", True)],
)
def test_scripts_pass_their_arguments_on(
    checkout, tmp_path, script, module, dev
):
    link = tmp_path / "a link"
    link.symlink_to(checkout.root / "scripts" / script)
    done = checkout.run(link, "--task", "two words", cwd=tmp_path)
    assert done.returncode == 0
    assert ("pip dev.txt" in done.calls) == dev
    # Training keeps the folder it was called from: --logdir may be relative.
    folder = checkout.root if dev else tmp_path
    expected = f"<-P><-m><{module}><--task><two words>"
    assert done.stdout == f"{folder}\n{expected}"


def test_of_two_starts_at_once_one_sets_up(checkout):
    if shutil.which("flock") is None:
        pytest.skip("there is no flock here")
    # Both find nothing there, since making it takes a while.
    slow = FAKE_PYTHON.replace("echo venv", "sleep 0.3; echo venv")
    checkout.add_tool("fake-python", slow)
    checkout.calls_file.write_text("")
    starts = [
        subprocess.Popen(
            [checkout.root / "scripts/setup"],
            env=checkout.environ,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [start.wait() for start in starts] == [0, 0]
    assert checkout.calls_file.read_text() == "venv\npip cpu.txt\n"
