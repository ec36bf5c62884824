"""Modules that people bring along: found, imported, or refused in one line."""

import importlib
import sys

import gymnasium
import pytest

from dreamer.envs.modules import import_module
from dreamer.options import ConfigError
from dreamer.settings import load

COUNTER = """
import gymnasium
from gymnasium import spaces

class Counter(gymnasium.Env):
    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 3, {}

gymnasium.register("Counter-v0", Counter)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A current folder of our own, which Python does not look into yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    gymnasium.registry.pop("Counter-v0", None)


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    importlib.invalidate_caches()


def refused(name):
    with pytest.raises(ConfigError) as caught:
        import_module(name, f"env.import={name}")
    assert caught.value.__suppress_context__
    line = str(caught.value)
    assert line.startswith(f"env.import={name}: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize(
    "flags",
    [
        "--env.import counters --task gym_Counter-v0",
        "--env.import=string,counters --task gym_Counter-v0",
        "--env.import mine.counters --task gym_Counter-v0",
        "--task gym_counters:Counter-v0",
        "--task gym_mine.counters:Counter-v0",
    ],
)
def test_what_a_module_of_the_current_folder_registers(
    flags, num, here, build
):
    for path in (here / "counters.py", here / "mine" / "counters.py"):
        write(path, COUNTER)
    config = load([*flags.split(" "), "--run.envs", str(num)])
    assert build(config).reset()["discrete"].tolist() == [3] * num


def test_the_current_folder_goes_before_installed_packages(here):
    write(here / "rich.py", "ours = True")
    sys.path.append(str(here))
    kept = sys.modules.pop("rich", None)
    try:
        import_module("rich", "")
        assert sys.modules["rich"].ours
    finally:
        sys.modules.pop("rich")
        if kept:
            sys.modules["rich"] = kept


def test_a_module_is_imported_once(here):
    write(here / "once.py", "import gone; gone.count += 1")
    write(here / "gone.py", "count = 0")
    for _ in range(3):
        import_module("once", "")
    assert sys.modules["gone"].count == 1


def test_what_is_not_there_names_the_folder_and_the_nearest(here):
    write(here / "my_env.py", "")
    line = refused("my_enf")
    assert f"no module named 'my_enf' in {here} or among" in line
    assert line.endswith("; did you mean my_env?")
    assert "'my_env.sub'" in refused("my_env.sub")
    assert "'nowhere'" in refused("nowhere.sub")


FAILING = {
    "x = 1\n1 / 0": "ZeroDivisionError: division by zero (broken.py, line 2)",
    "import missing": "named 'missing' (broken.py, line 1)",
    "def f(:": "SyntaxError: invalid syntax (broken.py, line 1)",
    "import sys\nsys.exit(4)": "SystemExit: 4 (broken.py, line 2)",
    "def f():\n  raise OSError('a\\nb')\nf()": "a b (broken.py, line 3)",
    "\nimport other": "name 'other_y' is not defined (other.py, line 1)",
    "import broken.sub": "'broken' is not a package (broken.py, line 1)",
    "raise ValueError('long ' * 1000)": "[...]",
}


@pytest.mark.parametrize("text", FAILING)
def test_what_fails_says_where(text, here):
    write(here / "broken.py", text)
    write(here / "other.py", "other_y")
    line = refused("broken")
    assert line.endswith(FAILING[text])
    assert len(line) < 600


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--env.import nowhere", "env.import=nowhere: no module"),
        ("--env.import ends", "env.import=ends: SystemExit: 1 (ends.py"),
        ("--env.import nowhere --task atari_pong", "env.import=nowhere: "),
        ("--task gym_ends:A-v0", "task is gym_ends:A-v0: SystemExit: 1"),
        ("--task gym_string:Mine-v0", "--env.import names modules"),
    ],
)
def test_environments_are_refused_in_the_same_words(
    flags, words, num, here, build
):
    write(here / "ends.py", "raise SystemExit(1)")
    config = load([*flags.split(" "), "--run.envs", str(num)])
    with pytest.raises(ConfigError) as caught:
        build(config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
