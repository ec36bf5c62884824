"""Bad input, tried systematically: hundreds of wrong words, files, folders.

Each ends with one line on stderr that names what is wrong, exit code 2, and
no file made or changed; or it turns out to be right. Nothing else is ever
raised. Programs run in this process, up to where a run has looked at its
logdir; a few start as a shell would start them. Damage to checkpoints and to
the replay's files: tests/run/test_damage.py; to fixtures:
test_bad_fixtures.py.
"""

import functools
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamer import ratio, train
from dreamer.agent.agent import Agent
from dreamer.config import Config
from dreamer.options import ConfigError, settings
from dreamer.run import logdir as run_logdir
from dreamer.settings import load, to_yaml
from dreamer.spaces import Space
from dreamer.train_ratio import UNITS
from tests.refusals import Accepted, examples, files, outcome

ROOT = Path(__file__).resolve().parent.parent
KEYS = list(settings(Config()))
# A message says what is wrong in these words, or the system does.
WORDS = (
    "expected",
    "unknown",
    "twice",
    "missing",
    "group of settings",
    "builds on",
    "duplicate key",
    "takes env.",
)
# A task for settings of each kind of task; others suit any.
TASKS = {
    "env.atari.": ["--task", "atari_pong"],
    "env.atari100k.": ["--task", "atari100k_pong"],
    "env.gym.": ["--task", "gym_CartPole-v1"],
}


def with_its_task(key, value):
    """Words that give a setting a value, for a task that has it."""
    words = [f"--{key}={value}"]
    return words + TASKS.get(key.removesuffix(key.rpartition(".")[2]), [])


class Looked:
    """In place of a run: looks at the logdir as it does, and goes no further.

    JAX is not needed for that.
    """

    def __init__(self, config):
        run_logdir.look(config)
        raise Accepted


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """A current folder of our own; programs stop before they build."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        patch.setattr(train, "Run", Looked)
        yield folder


def trained(argv, folder):
    """What `dreamer.train` says to a command line."""
    return outcome("dreamer.train", train.main, argv, folder)


# (a) Words of the command line

NUMBERS = [
    *("nan", "inf", "-inf", "-1", "0", "1", "2", "1.5", "-0.0", "1e999"),
    *("1e300", "-1e300", "1e15", "1e16", "5e-324", "0x10", "1_0", "1__0"),
    *("9" * 300, "9" * 5000, "0." + "1" * 5000, "+5", "٣", "²", "1e5"),
    *("4294967296", "9223372036854775808", "1/3", "1,5", "1 5", "1e", "."),
]
TEXTS = [
    *("", " ", "\t", "a\nb", "\0", "\x1b[31m", "\r", "\udcff", "\u202e", "é"),
    *("😀" * 50, "x" * 100_000, "x y " * 20_000, "\n" * 5000, "~", "~nobody"),
    *("$(id)", "`id`", "; ls", "a|b", "*", "../../..", "/", ".", "-", "--"),
    *("true", "no", "None", "null", "[]", "{}", "[1, 2]", "{a: 1}", "a: b"),
    *("64,64", "64 64 64", "1e400,1", "jsonl,jsonl", "jsonl,,wandb", ","),
    *("gym_", "gym_\n", "atari_", "atari_pong ", "ATARI_PONG", "{timestamp"),
    *("%s%n", "{0}", "{logdir}", "!!python/object:os.system"),
]
NAMES = [
    *("", " ", ".", "..", "=", "-", "run", "agent.dyn", "agent.dyn.rssm."),
    *("run..steps", "RUN.STEPS", "run.steps ", "run/steps", "run-steps"),
    *("steps", "x" * 100_000, "x" * 50_000 + ".deter", "deter." * 9999),
    *("a\nb", "\0", "é", "\udcff", "__class__", "run.__class__", "configs.x"),
]
values = st.sampled_from(NUMBERS + TEXTS) | st.text(max_size=20)
keys = st.sampled_from(KEYS)


def names_what_is_allowed(line):
    return any(word in line for word in WORDS)


@given(key=keys, value=values)
@examples(400)
def test_any_text_as_the_value_of_a_setting(key, value, here):
    line = trained(with_its_task(key, value), here)
    if line:
        assert names_what_is_allowed(line) or "File name too long" in line
        assert len(line) < 600 or key == "logdir"
        last = key.rpartition(".")[2]
        assert last in line or last in ("batch_size", "batch_length")


def misspelt(key, rng):
    """A key with one letter gone, doubled, swapped or another."""
    at = rng.randrange(len(key) - 1)
    head, letter, tail = key[:at], key[at], key[at + 1 :]
    return rng.choice(
        [
            head + tail,
            head + letter + key[at:],
            head + tail[:1] + letter + tail[1:],
            head + "q" + tail,
        ]
    )


def test_misspelt_keys_are_refused_with_the_right_one(here):
    rng = random.Random(0)
    for key in KEYS * 3:
        wrong = misspelt(key, rng)
        if wrong in KEYS:
            continue
        line = trained([f"--{wrong}", "1"], here)
        assert "unknown setting" in line or "group of settings" in line
        assert "did you mean" in line or len(key) < 8


@given(name=st.sampled_from(NAMES) | st.text(max_size=20), value=values)
@examples(200)
def test_any_text_as_the_name_of_a_setting(name, value, here):
    line = trained([f"--{name}={value}"], here)
    if name not in ("configs", *KEYS):
        assert names_what_is_allowed(line)
        assert len(line) < 600


flags = keys.map("--{}".format)
words = st.one_of(
    flags,
    st.tuples(flags, values).map("=".join),
    values,
    st.sampled_from(["--configs", "debug", "quick", "size1m", "-h", "--x"]),
)


@given(argv=st.lists(words, max_size=8))
@examples(400)
def test_any_words_in_any_order(argv, here):
    line = trained(argv, here)
    given = [word.partition("=")[0] for word in argv if word[:2] == "--"]
    bare = argv and not argv[0].startswith("--")
    if (bare or len(set(given)) < len(given)) and "-h" not in argv:
        assert names_what_is_allowed(line)


@pytest.mark.parametrize(
    "name",
    ["", ":", "a:b:c", ".:x", "..a:b", "a.:b", "/", "a/b/c", "a b", "x" * 101]
    + ["a:", ":b", "$(id)", "os;x:y", "../x", "CartPole-v1 ", "a\tb"],
)
def test_names_of_environments_that_cannot_be(name, here):
    line = trained(["--task", f"gym_{name}"], here)
    assert "task=" in line
    assert "expected" in line


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "CartPole", "ALE/Pong-v5", "a.b_c:d/e.f-g-v0"]
)
def test_names_of_environments(name, here):
    assert not trained(["--task", f"gym_{name}"], here)


def test_words_after_configs(here, tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "nothing.yaml").touch()
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "large.yaml").write_text("# " + "x" * 200_000)
    os.mkfifo(tmp_path / "pipe.yaml")
    wrong = [str(path) for path in tmp_path.iterdir()]
    wrong += ["", " ", "x" * 100_000, "x" * 300 + ".yaml", "\0.yaml", ".yaml"]
    wrong += ["~nobody/x.yaml", "/", "/dev/null", "\udcff.yaml", "a\nb.yml"]
    wrong += ["DEBUG", "debug ", "debug,quick", "configs/debug.yaml", "*"]
    for word in wrong:
        assert trained(["--configs", word], here), word
        assert trained(["--configs", "debug", word], here), word
        assert trained([f"--configs={word}"], here), word
    assert trained(["--configs", *["debug"] * 1000], here)
    assert trained(["--configs", "debug", "--configs", "quick"], here)
    assert not trained(["--configs", "debug", "debug"], here)


def test_a_file_that_may_not_be_read(here, tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\n")

    def denied(*args, **kwargs):  # root may read anything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    line = trained(["--configs", str(path)], here)
    assert line.endswith("mine.yaml: Permission denied\n")


def test_files_that_build_on_many_others(here, tmp_path):
    """Twice on each next one would be a million; a chain of them too long."""
    paths = [tmp_path / f"{index}.yaml" for index in range(40)]
    for path, after in itertools.pairwise(paths):
        path.write_text(f"configs: ['{after}', '{after}']\n")
    paths[-1].write_text("seed: 1\n")
    assert "too many" in trained(["--configs", str(paths[0])], here)
    assert "at most" in trained(["--configs", str(paths[25])], here)
    assert not trained(["--configs", str(paths[36])], here)


# (b) Files of settings


def laughs(levels, width, opening, closing):
    """Aliases by which a few lines stand for width**levels values."""
    lines = [f"a0: &a0 {opening.format('1')}{closing}"]
    for level in range(1, levels):
        inner = [opening.format(f"*a{level - 1}")] * width
        text = ", ".join(x.strip("[{}]") for x in inner)
        lines.append(f"a{level}: &a{level} [{text}]")
    return "\n".join(lines)


FRAGMENTS = [
    *("seed: &a [*a]", "run: &x {envs: *x}", "a: &x 1\nb: &x 2", "c: *x"),
    *(
        "seed: 0x" + "f" * 5000,
        "0x" + "f" * 5000 + ": 1",
        "seed: " + "9" * 5000,
    ),
    *("seed: " + x * 5000 for x in ("[", "{", "- ", "? ", "- [", "a: {b: [")),
    *("seed: " + "[" * 10 + "]" * 10, "seed: [[], {}, [[1]]]", "seed: [1]"),
    *("!!python/object/apply:os.system ['touch ran']", "!!python/name:os.x"),
    *("seed: !!int x", "seed: !!float 0x", "seed: !!bool x", "seed: !x 1"),
    *("seed: !!int ''", "seed: !!timestamp []", "seed: !!binary x", "!<"),
    *("run: !!omap [a: 1]", "run: !!set {a, b}", "%YAML 1.1\n---\nseed: 1:2"),
    *("%FOO x\n---\nseed: 1", "---\nseed: 1\n---\nseed: 2", "...", "--- |"),
    *("seed: 2001-99-99", "seed: 2001-01-01", "seed: .nan", ".inf: .inf"),
    *("? [a]: b", "? {a: b}\n: c", "~: 1", "<<: {seed: 1}", "<<: [a]"),
    *(
        "run:\n\tenvs: 1",
        "\0",
        "seed: \0",
        "\x85",
        "\ufeff",
        "\u2028",
        "@",
        "`",
    ),
    *("a: 'x", 'a: "\\x"', 'a: "\\UFFFFFFFF"', 'a: "\\uD800"', "a: |\n", "&a"),
    *("seed: 1e400", "seed: 0o9", "seed: 0b", "seed: -", "seed: 1_", "seed:"),
    *('logdir: "a\\0b"', 'logdir: "a\\nb"', "task: [x]", "run.envs: {}"),
    *("configs: [size1m" + ", size1m" * 999 + "]", 'configs: ["a\\0.yaml"]'),
    *("configs: [~x/y.yaml]", "configs: {a: b}", "about: [1]", "configs: 1"),
    *("x" * 2000 + ": 1", "seed: " + "x" * 50_000, "run.envs: 1", "run: []"),
    *("\n".join(f"k{n}: 1" for n in range(500)), "a: b: c", "a: }", "{a: 1"),
    laughs(9, 9, "[{}", "]"),
    laughs(9, 4, "{{k: {}", "}}"),
]


@functools.cache
def saved():
    """A resolved config, as a run leaves it."""
    return to_yaml(load(["--configs", "debug", "--logdir", "run"]))


def mutated(rng):
    """Bytes of that config with some of them changed, or with a fragment."""
    if rng.random() < 0.5:
        return mutated_lines(rng)
    content = bytearray(saved().encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        rest = content[rng.randrange(len(content)) :][:30]
        kind = rng.randrange(5)
        if kind == 0:
            content[at] = rng.randrange(256)
        elif kind == 1:
            del content[at : at + rng.randint(1, 60)]
        elif kind == 2:
            content[at:at] = rest
        elif kind == 3:
            content[at:at] = bytes(rng.randrange(256) for _ in range(4))
        else:
            del content[at:]
            content += b"x"
    return bytes(content)


def mutated_lines(rng):
    """Lines gone, doubled, moved, indented, or with values of other kinds."""
    lines = saved().splitlines()
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        line, kind = lines[at], rng.randrange(6)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines)), line)
        elif kind == 2:
            lines[at] = rng.choice([" ", "    ", "\t"]) + line
        elif kind == 3:
            lines[at] = line.lstrip()
        elif kind == 4:
            value = rng.choice([*TEXTS, *NUMBERS, *FRAGMENTS])
            lines[at] = f"{line.partition(':')[0]}: {value}"
        else:
            lines.insert(at, rng.choice(FRAGMENTS))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def refused_file(content, here):
    """The line about a file with this content, given in both ways."""
    path = here / "mine.yaml"
    path.write_bytes(content)
    line = trained(["--configs", "mine.yaml", "--logdir", "new"], here)
    path.unlink()
    logdir = here / "old"
    logdir.mkdir(exist_ok=True)
    path = logdir / "config.yaml"
    path.write_bytes(content)
    again = trained(["--configs", "debug", "--logdir", "old"], here)
    path.unlink()
    logdir.rmdir()
    # What is no settings is none in a logdir either.
    assert again or not line
    return line


def test_fragments_of_files(here):
    for fragment in FRAGMENTS:
        refused_file(fragment.encode("utf-8", "surrogatepass"), here)
    assert not (here / "ran").exists()


def test_mutated_files(here):
    rng = random.Random(0)
    lines = [refused_file(mutated(rng), here) for _ in range(200)]
    refused = [line for line in lines if line]
    assert 100 < len(refused) < 200
    assert all(len(line) < 600 for line in refused)


# (c) Settings that do not go together

IN_RANGE = {
    "batch_size": [1, 2, 65536],
    "batch_length": [2, 3, 65536],
    "replay_context": [1, 7, 65536],
    "replay.size": [1, 40, 1000, 10**15],
    "run.envs": [1, 3, 4096],
    "run.steps": [1, 2, 10**15],
    "run.train_ratio": [-1e6, -1, 0, 1e-9, 1e6],
    "env.gym.size": ["16,16", "16,512", "17,16", "500,16"],
    "env.atari.size": ["96,96", "100,100"],
    "task": ["gym_CartPole-v1", "gym_ ", "gym_atari_pong", "atari100k_qbert"],
    "agent.dyn.rssm.deter": [8, 16, 24, 12, 1048576],
    "agent.dyn.rssm.blocks": [1, 3, 8, 24, 65536],
    "agent.dec.simple.depth": [2, 3, 65536],
    "agent.policy.minstd": [1e-300, 0.5, 1.5],
    "agent.policy.maxstd": [1e-300, 0.5, 1.5, 1e300],
    "agent.retnorm.perclo": [0, 50, 100],
    "agent.retnorm.perchi": [0, 50, 100],
    "agent.imag_length": [1, 65536],
    "agent.horizon": [1, 10**6],
}
combinations = st.dictionaries(
    st.sampled_from(list(IN_RANGE)), st.integers(0, 9), min_size=2, max_size=6
)


@given(chosen=combinations)
@examples(200)
def test_settings_each_in_range(chosen, here):
    argv = ["--configs", "debug"]
    for key, index in chosen.items():
        some = IN_RANGE[key]
        argv += [f"--{key}={some[index % len(some)]}"]
    line = trained(argv, here)
    if line:
        assert names_what_is_allowed(line)
    else:  # then it is saved as what it is, and explained
        (here / "mine.yaml").write_text(to_yaml(load(argv)))
        again = load(["--configs", str(here / "mine.yaml")])
        (here / "mine.yaml").unlink()
        logdir = ["--logdir", again.logdir]
        assert again == load([*argv, *logdir])
        assert not outcome("dreamer.ratio", ratio.main, argv, here)


def test_every_whole_number_has_an_end():
    """Beyond 2**63 NumPy, JAX and TensorBoard fail, each in its own way."""
    for key, setting in settings(Config()).items():
        if setting.type is int:
            with pytest.raises(ConfigError, match="expected a whole number"):
                load(with_its_task(key, "1e16"))
            with pytest.raises(ConfigError, match="expected a whole number"):
                load(with_its_task(key, "-1"))


# The least of everything, and numbers that divide nothing.
EXTREMES = {
    "least": (
        "batch_size=1 batch_length=2 agent.imag_length=1 agent.horizon=1"
        " agent.dyn.rssm.deter=8 agent.dyn.rssm.hidden=1"
        " agent.dyn.rssm.stoch=1 agent.dyn.rssm.classes=2"
        " agent.dyn.rssm.blocks=8 agent.enc.simple.depth=1"
        " agent.enc.simple.units=1 agent.enc.simple.layers=1"
        " agent.dec.simple.units=1 agent.rewhead.bins=2 agent.value.bins=2"
        " agent.policy.units=1 agent.policy.layers=1 agent.opt.warmup=0"
        " agent.retnorm.perclo=0 agent.retnorm.perchi=100"
    ),
    "odd": (
        "batch_size=3 batch_length=5 replay_context=7 agent.imag_length=65"
        " agent.dyn.rssm.deter=120 agent.dyn.rssm.hidden=7"
        " agent.dyn.rssm.stoch=3 agent.dyn.rssm.classes=257"
        " agent.dyn.rssm.blocks=15 agent.enc.simple.depth=3"
        " agent.dec.simple.depth=6 agent.rewhead.bins=6"
        " agent.value.bins=256 agent.opt.warmup=1e9 agent.horizon=1e6"
        " agent.dyn.rssm.unimix=0 agent.dyn.rssm.free_nats=0"
        " jax.compute_dtype=bfloat16"
    ),
}
SPACES = {
    "least": (
        {"image": Space("image", (16, 16, 1))},
        Space("discrete", (), 1),
    ),
    "odd": (
        {
            "image": Space("image", (48, 16, 5)),
            "vector": Space("vector", (1,)),
        },
        Space("continuous", (3,)),
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_an_agent_is_made_of_the_extremes_of_what_is_accepted(name):
    flags = [f"--{flag}" for flag in EXTREMES[name].split()]
    config = load(["--configs", "debug", *flags])
    spaces, action = SPACES[name]
    bfloat16 = config.jax.compute_dtype == "bfloat16"
    agent = Agent(
        spaces,
        action,
        config.agent,
        dtype=jnp.bfloat16 if bfloat16 else jnp.float32,
        context=config.replay_context,
    )
    state, key = agent.init(0), jax.random.key(0)
    lead = (
        config.batch_size,
        config.replay_context + config.batch_length,
    )
    fields = {
        name: (space.shape, space.dtype) for name, space in spaces.items()
    }
    flag = ((), np.dtype(np.bool_))
    obs = {
        name: np.zeros((2, *shape), kind)
        for name, (shape, kind) in (fields | {"is_first": flag}).items()
    }
    fields |= dict.fromkeys(("is_first", "is_last", "is_terminal"), flag)
    fields["reward"] = ((), np.dtype(np.float32))
    fields["action"] = (action.shape, action.dtype)
    batch = {
        name: np.zeros((*lead, *shape), kind)
        for name, (shape, kind) in fields.items()
    } | {
        name: np.zeros((lead[0], *shape), kind)
        for name, (shape, kind) in agent.latents.items()
    }
    after, latents, _ = jax.eval_shape(agent.update, state, batch, key)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    for name, (shape, _) in agent.latents.items():
        assert latents[name].shape == (
            config.batch_size,
            config.batch_length,
            *shape,
        )
    carry = agent.initial_carry(2)
    step = np.uint32(0)
    _, acted = jax.eval_shape(
        agent.policy, state.params, carry, obs, key, step
    )
    assert acted.shape == (2, *action.shape)


# (d) The program that explains the ratio

AMOUNTS = [f"--{unit}" for unit in UNITS]


@given(
    argv=st.lists(words | st.sampled_from(AMOUNTS), max_size=4),
    unit=st.sampled_from(AMOUNTS),
    amount=st.sampled_from([*NUMBERS, *TEXTS, "1e-300/1e300", "1e999999999"]),
)
@examples(300)
def test_any_words_after_ratio(argv, unit, amount, here):
    for words in (argv, [*argv, f"{unit}={amount}"], [unit, amount]):
        outcome("dreamer.ratio", ratio.main, words, here)


# (e) Logdirs


def in_the_way(folder):
    """Logdirs that cannot be used, each with a word that says why."""
    (folder / "file").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    yield "file", "is a file"
    yield "file/run", "is a file"
    yield "loop", "symbolic links"
    yield "loop/run", "symbolic links"
    yield "dangling", "links to nothing"
    yield "dangling/run", "links to nothing"
    yield "pipe", "is a file"
    yield "/dev/null", "is a file"
    yield "x" * 300, "too long"
    yield "x/" * 3000, "too long"
    yield "a\0b", "printable"
    yield "a\nb", "printable"
    yield "caf\udce9", "printable"
    yield "/proc/self/run", "logdir=/proc/self/run: "
    for name in ("config.yaml", "metrics.jsonl", "scores.jsonl", "lock"):
        (folder / f"run-{name}" / name).mkdir(parents=True)
        yield f"run-{name}", name
    for name in ("ckpt", "replay"):
        (folder / f"run-{name}").mkdir()
        (folder / f"run-{name}" / name).touch()
        yield f"run-{name}", name


def test_logdirs_that_cannot_be_used(here):
    folder = here / "logdirs"
    folder.mkdir()
    for name, word in in_the_way(folder):
        logdir = str(folder / name) if "/dev/" not in name else name
        line = trained(["--configs", "debug", "--logdir", logdir], here)
        assert word in line, (name, line)
        assert "logdir" in line


# As a shell sees it


@pytest.mark.parametrize(
    ("program", "argv"),
    [
        (["-m", "dreamer.train"], ["--sed", "1"]),
        (["-m", "dreamer.train"], ["--logdir", "caf\udce9\n"]),
        (["-m", "dreamer.train"], ["--configs", "mine.yaml"]),
        (["-m", "dreamer.train"], ["--configs", "debug", "--logdir", "old"]),
        (["-m", "dreamer.ratio"], ["--total_updates", "1e999999999"]),
        ([str(ROOT / "scripts" / "parity.py")], ["mine.yaml"]),
    ],
)
def test_a_process(program, argv, here):
    (here / "mine.yaml").write_text(FRAGMENTS[0])
    (here / "old").mkdir(exist_ok=True)
    (here / "old" / "config.yaml").write_text(FRAGMENTS[-1])
    before = files(here)
    done = subprocess.run(
        [sys.executable, *program, *argv],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert files(here) == before
