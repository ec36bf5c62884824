"""Settings: what is accepted, what is refused and how, what is written."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from dreamer.config import Config
from dreamer.envs.games import GAMES
from dreamer.options import ELSEWHERE, ConfigError, settings
from dreamer.presets import presets
from dreamer.settings import (
    check_resume,
    differences,
    help_text,
    load,
    save,
    to_yaml,
)

# Size of state, layers around it, classes, channels, width of MLPs: the
# paper's table of model sizes.
SIZES = {
    "size1m": (512, 64, 4, 4, 64),
    "size12m": (2048, 256, 16, 16, 256),
    "size25m": (3072, 384, 24, 24, 384),
    "size50m": (4096, 512, 32, 32, 512),
    "size100m": (6144, 768, 48, 48, 768),
    "size200m": (8192, 1024, 64, 64, 1024),
    "size400m": (12288, 1536, 96, 96, 1536),
}


def flags(text):
    return load(text.split(" "))


def message(argv):
    with pytest.raises(ConfigError) as caught:
        load(argv.split(" ") if isinstance(argv, str) else argv)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    return text


def test_defaults_are_those_of_the_200m_benchmark():
    config = load([])
    named = load(["--configs", "atari200m", "size200m"])
    assert set(differences(config, named)) <= {"logdir"}
    assert config.env.atari.size == (96, 96)
    assert config.env.atari.sticky == 0.25
    assert config.env.atari.gray is True
    assert config.env.atari.actions == "all"
    assert config.run.envs == 16
    assert config.run.steps == 51_000_000
    assert config.run.train_ratio == 32
    assert config.batch_steps == 1024
    assert config.action_repeat == 4
    assert config.agent.opt.eps == 1e-20


def test_atari100k_presets():
    config = load(["--configs", "atari100k"])
    assert (config.suite, config.task_name) == ("atari100k", "pong")
    assert config.env.atari100k.size == (64, 64)
    assert config.env.atari100k.sticky == 0.0
    assert config.env.atari100k.gray is False
    assert config.env.atari100k.actions == "needed"
    assert (config.run.envs, config.run.steps) == (1, 110_000)
    assert config.run.train_ratio == 256
    paper = load(["--configs", "atari100k_paper"])
    assert set(differences(config, paper)) - {"logdir"} == {
        "run.train_ratio",
        "agent.policy.unimix",
    }
    assert paper.run.train_ratio == 128
    assert paper.agent.policy.unimix == 0.01


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    agent = load(["--configs", "size1m", name]).agent
    deter, hidden, classes, depth, units = SIZES[name]
    rssm = agent.dyn.rssm
    assert (rssm.deter, rssm.hidden, rssm.classes) == (deter, hidden, classes)
    assert (rssm.stoch, rssm.blocks) == (32, 8)
    assert agent.enc.simple.depth == agent.dec.simple.depth == depth
    groups = (agent.enc.simple, agent.dec.simple, agent.rewhead)
    groups += (agent.conhead, agent.policy, agent.value)
    assert {group.units for group in groups} == {units}


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_loads_alone_and_on_atari100k(name):
    load(["--configs", name])
    load(["--configs", "atari100k", name])


def test_later_presets_override_earlier_and_flags_all():
    both = flags("--configs atari100k size12m size1m --seed 7")
    assert both.agent.dyn.rssm.deter == 512
    assert both.run.train_ratio == 256
    assert both.seed == 7
    flags_first = flags("--run.train_ratio 8 --configs atari100k")
    assert flags_first.run.train_ratio == 8


def test_both_forms_of_flags_and_of_numbers():
    config = flags(
        "--run.steps=1e5 --replay.size 110_000 --run.train_ratio -1"
        " --env.atari.gray no --replay.online=FALSE --env.atari.size 80 64"
        " --logger.outputs jsonl wandb"
        " --agent.opt.lr=1e-4"
    )
    assert config.run.steps == 100_000
    assert isinstance(config.run.steps, int)
    assert config.replay.size == 110_000
    assert config.run.train_ratio == -1.0
    assert config.env.atari.gray is False
    assert config.replay.online is False
    assert config.env.atari.size == (80, 64)
    assert config.logger.outputs == ("jsonl", "wandb")
    assert config.agent.opt.lr == 1e-4


def test_timestamp_and_home_in_logdir(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    logdir = load(["--logdir", "~/a/{timestamp}-b"]).logdir
    assert re.fullmatch(r"/somewhere/a/\d{8}T\d{6}-b", logdir)


def test_several_processes_name_one_logdir():
    several = "--jax.coordinator auto --seed 3 --logdir a/{task}-{seed}"
    assert flags(several).logdir == os.path.abspath("a/atari_pong-3")


def test_a_relative_logdir_is_meant_from_any_folder(tmp_path, monkeypatch):
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = load(["--logdir", "run"])
    assert config.logdir == f"{tmp_path}/here/run"
    save(config, tmp_path / "config.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(["--configs", "../config.yaml"]) == config


def test_task_and_seed_in_logdir():
    flags = ["--logdir", "/a/{task}-{seed}/{tasks}", "--seed", "7"]
    logdir = load([*flags, "--task", "gym_a/C-v0"])
    assert logdir.logdir == "/a/gym_a_C-v0-7/{tasks}"


@pytest.mark.parametrize("suite", ["atari", "atari100k"])
def test_every_game_is_a_task(suite):
    assert len(GAMES) == 57
    for game in GAMES:
        assert load(["--task", f"{suite}_{game}"]).task_name == game


def test_gym_tasks():
    config = load(["--task", "gym_ALE/Pong-v5"])
    assert (config.suite, config.task_name) == ("gym", "ALE/Pong-v5")
    assert config.action_repeat == 1


def test_modules_to_import(tmp_path):
    """A setting whose name is a word of Python, and which may be empty."""
    some = flags("--env.import my_env,package.other --logdir a")
    assert some.env.import_ == ("my_env", "package.other")
    save(some, tmp_path / "some.yaml")
    argv = ["--configs", str(tmp_path / "some.yaml")]
    assert load(argv) == some
    none = load([*argv, "--env.import", "[]"])
    assert none == flags("--logdir a")
    save(none, tmp_path / "none.yaml")
    assert load(["--configs", str(tmp_path / "none.yaml")]) == none
    (tmp_path / "mine.yaml").write_text("env: {import: one, gym.repeat: 2}")
    mine = load(["--configs", str(tmp_path / "mine.yaml")])
    assert mine.env.import_ == ("one",)
    words = re.escape("env.import=my_env,package.other (there [])")
    with pytest.raises(ConfigError, match=words):
        check_resume(none, some)


# Arguments, and what the one line must say.
REFUSED = {
    "--run.trainratio 5": ["run.trainratio", "mean run.train_ratio?"],
    "--train_ratio 5": ["mean run.train_ratio?"],
    "--agent.dyn.rssm.detre=5": ["mean agent.dyn.rssm.deter?"],
    "--deter 5": ["mean agent.dyn.rssm.deter?"],
    "--xyzzy 5": ["xyzzy", "--help"],
    "--agent.dyn.rssm 5": ["group of settings", "agent.dyn.rssm.deter"],
    "--configs atari10k": ["'atari10k'", "mean atari100k?"],
    "--configs zzz": ["'zzz'", "size1m", "quick"],
    "--configs": ["expected presets"],
    "--configs=": ["expected presets"],
    "--configs none.yaml": ["none.yaml", "No such file"],
    "--configs configs/sizes.yaml": ["holds presets", "--configs size1m"],
    "--task pong": ["task=pong", "mean atari_pong?"],
    "--task atari_pongg": ["'pongg'", "mean atari_pong?"],
    "--task atari100k_mspacman": ["mean atari100k_ms_pacman?"],
    "--task atari_zzz": ["'zzz'", "--help"],
    "--task gym_": ["gym_<environment id>"],
    "--task dmc_walker": ["task=dmc_walker", "gym_<environment id>"],
    "--agent.dyn.rssm.deter=abc": ["deter=abc", "a whole number from 8 to"],
    "--agent.dyn.rssm.deter 100": ["deter=100", "multiple of 8"],
    "--agent.dyn.rssm.blocks 3": ["deter=8192", "blocks=3"],
    "--agent.dec.simple.depth 3": ["depth=3", "even"],
    "--agent.opt.beta2 1": ["beta2=1", ">= 0 and < 1"],
    "--agent.horizon 1e999": ["horizon=1e999", "whole number"],
    "--agent.policy.minstd 3": ["minstd=3.0", "maxstd=1.0"],
    "--agent.policy.minstd 1": ["minstd=1.0", "less than", "maxstd=1.0"],
    "--jax.coordinator auto": ["dreamer/{timestamp}", "without {timestamp}"],
    "--jax.coordinator a:1 --jax.processes 2 --logdir x{timestamp}": [
        "logdir=x{timestamp}: expected a folder that all processes name alike",
    ],
    "--agent.retnorm.perclo 99": ["perclo=99.0", "perchi=95.0"],
    "--run.steps 0": ["run.steps=0", "from 1 to"],
    "--run.steps 1.5": ["run.steps=1.5", "whole number"],
    "--run.steps": ["run.steps", "missing", "from 1 to"],
    "--run.steps=": ["run.steps", "missing"],
    "--logdir=": ["logdir", "missing"],
    "--seed --run.steps 5": ["seed", "missing"],
    "--seed 1 2": ["seed=1", "'2'"],
    "--seed 1 --seed=1": ["seed", "twice"],
    "--seed -1": ["seed=-1", "from 0 to"],
    "--run.train_ratio nan": ["train_ratio=nan", "finite"],
    "--run.train_ratio inf": ["train_ratio=inf", "finite"],
    "--run.log_every 0": ["log_every=0", "> 0"],
    "--replay.size 10": ["replay.size=10", "2048"],
    "--jax.platform cudo": ["platform=cudo", "tpu", "mean cuda?"],
    "--jax.compute_dtype float16": ["float16", "mean bfloat16?"],
    "--logger.outputs jsonl,wandbb": ["wandbb", "mean wandb?"],
    "--logger.outputs jsonl,jsonl": ["jsonl,jsonl", "one or more of"],
    "--env.atari.gray maybe": ["gray=maybe", "true or false"],
    "--env.atari.size 64": ["size=64", "2 whole numbers"],
    "--env.atari.size 65,64": ["size=65,64", "multiples of 16"],
    "--env.atari.size 8 8": ["size=8 8", "from 16 to 512"],
    "--env.gym.size 32,32": ["--env.gym.size", "atari_pong takes env.atari.*"],
    "--env.atari.sticky 0 --task atari100k_pong": [
        "--env.atari.sticky",
        "task atari100k_pong takes env.atari100k.*",
    ],
    "--env.sticky 0 --task atari100k_pong": ["mean env.atari100k.sticky?"],
    "--env.sticky 0": ["mean env.atari.sticky?"],
    "--env.gym.stiky 0": ["mean env.atari.sticky?"],
    "--repeat 2 --task gym_CartPole-v1": ["mean env.gym.repeat?"],
    "--env.gym 2": ["env.gym is a group of settings"],
    "--config atari100k": ["mean --configs?"],
    "--hepl": ["mean --help?"],
    "--env.import my_env.py": ["import=my_env.py", "expected", "no .py"],
    "--env.import a,b/c": ["import=b/c", "no path"],
    "--env.import a,b,a": ["import=a,b,a", "once"],
    "--env.import_ a": ["import_", "mean env.import?"],
    "pong": ["'pong'", "--key value"],
    "-seed 3": ["'-seed'", "--key value"],
}


@pytest.mark.parametrize("argv", REFUSED)
def test_refused_flags(argv):
    text = message(argv)
    for part in REFUSED[argv]:
        assert part in text


REFUSED_FILES = {
    "run:\n  envs: 1\n  envs: 2\n": ["line 3", "duplicate", "envs"],
    "run: {envs: 1}\nrun.envs: 2\n": ["run.envs", "twice"],
    "run: [1,\n": ["line 2"],
    "- a\n": ["'key: value'"],
    "": ["'key: value'"],
    "run:\n  env: 1\n": ["run.env:", "mean run.envs?"],
    "run: 5\n": ["group of settings"],
    "run: {envs: true}\n": ["run.envs=true", "whole number"],
    "seed: 1.5\n": ["seed=1.5", "whole number"],
    "seed:\n": ["seed=nothing", "whole number"],
    "env.import:\n": ["import=nothing", "texts"],
    "env: {import: [1]}\n": ["import=1", "texts"],
    "logger.outputs: []\n": ["outputs=[]", "one or more of"],
    "seed: [1, 2]\n": ["seed=1,2", "whole number"],
    "logdir: 5\n": ["logdir=5", "a text"],
    "env.atari.size: 64\n": ["size=64", "2 whole numbers"],
    "env.atari.gray: 1\n": ["gray=1", "true or false"],
    "a: !!python/object:os.system {}\n": [],
    "about: 3\n": ["about=3"],
    "configs: atari100k\n": ["expected a list"],
    "configs: [zzz]\n": ["'zzz'", "unknown preset"],
    'logdir: "a\\nb"\n': ["logdir='a\\nb'", "printable"],
    "\udcff": ["UTF-8"],
}


@pytest.mark.parametrize("content", REFUSED_FILES)
def test_refused_files(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    text = message(["--configs", str(path)])
    for part in REFUSED_FILES[content]:
        assert part in text


def test_files_may_hold_settings_of_every_kind_of_task(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("env: {gym.size: [32, 48], atari.sticky: 0.5}\n")
    game = ["--task", "atari100k_pong", "--env.atari100k.sticky", "0.1"]
    config = load(["--configs", str(path), *game])
    assert config.env.gym.size == (32, 48)
    assert config.env.atari100k.sticky == 0.1
    again = load(
        ["--configs", str(path), "--task", "gym_a", "--env.gym.size"]
        + ["16,16"]
    )
    assert again.env.gym.size == (16, 16)


def test_a_file_that_builds_on_itself_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"configs: ['{path}']\n")
    assert "builds on itself" in message(["--configs", str(path)])


def test_logdir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert "is a file" in message(["--logdir", str(tmp_path / "file")])
    assert "is a file" in message(["--logdir", str(tmp_path / "file/a/b")])
    assert "too long" in message(["--logdir", str(tmp_path / ("a" * 300))])


@pytest.mark.parametrize("word", list(ELSEWHERE))
def test_names_of_other_programs_are_known(word):
    assert ELSEWHERE[word] in settings(Config())
    said = message([f"--{word}", "3"])
    assert (
        said == f"--{word}: unknown setting; did you mean {ELSEWHERE[word]}?"
    )


def test_a_program_exits_with_2_and_one_line(tmp_path):
    code = "import sys; from dreamer.settings import load_or_exit as f;"
    code += "f(sys.argv[1:], 'dreamer.x')"
    done = subprocess.run(
        [sys.executable, "-c", code, "--logdir", tmp_path / "a", "--sed=1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "dreamer.x: --sed: unknown setting; did you mean seed?\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(presets()))
def test_what_is_saved_loads_to_the_same(name, tmp_path):
    config = load(
        ["--configs", name, "--logdir", "12", "--logger.outputs", "wandb"]
        + ["--agent.loss_scales.rep", "1e-7", "--seed", "4294967295"]
    )
    path = tmp_path / "config.yaml"
    save(config, path)
    assert load(["--configs", str(path)]) == config
    assert [x.name for x in tmp_path.iterdir()] == ["config.yaml"]


def test_a_file_may_hold_a_part_and_build_on_presets(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("configs: [atari100k, size1m]\nrun:\n  train_ratio: 1e3\n")
    config = load(["--configs", str(path), "--seed", "3"])
    named = load(["--configs", "atari100k", "size1m"])
    assert set(differences(named, config)) - {"logdir"} == {
        "run.train_ratio",
        "seed",
    }
    assert config.run.train_ratio == 1000.0


def test_yaml_holds_every_setting_in_order():
    keys = [line.strip().split(":")[0] for line in to_yaml(Config()).split()]
    names = [key.rpartition(".")[2] for key in settings(Config())]
    assert [key for key in keys if key in names][: len(names)][0] == "task"
    for name in names:
        assert name in keys


def test_only_some_settings_may_change_when_a_run_goes_on():
    old = load(["--configs", "atari100k", "--logdir", "a"])
    free = flags(
        "--configs atari100k --logdir b --run.steps 5e5 --run.log_every 1"
        " --run.save_every 2 --logger.outputs jsonl --jax.platform cpu"
        " --run.disk_patience 3 --run.env_timeout 4 --run.env_restarts 5"
        " --run.nonfinite_limit 6 --jax.deterministic true"
        " --run.report_every 7 --jax.devices 0 --jax.fsdp true"
        " --jax.coordinator a:1 --jax.processes 3 --jax.process 2"
        " --jax.join_timeout 9 --replay.exact never"
    )
    assert len(differences(old, free)) == 19
    check_resume(old, free)
    other = flags("--configs atari100k size1m --logdir /a --seed 1")
    with pytest.raises(ConfigError) as caught:
        check_resume(old, other)
    line = str(caught.value)
    assert line.startswith(
        "logdir=/a: holds a run of other settings: seed=1 (there 0), "
    )
    assert line.count("(there ") == 12
    assert "agent.dyn.rssm.deter=512 (there 8192)" in line
    assert "\n" not in line
    resumable = {k for k, s in settings(old).items() if s.resume}
    assert resumable == set(differences(old, free))


def test_help_lists_every_key_with_default_and_sentence():
    text = help_text("dreamer.train")
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    for key, setting in settings(Config()).items():
        assert setting.sentence.endswith((".", ".)")), key
        start = flat.index(f" --{key} ")
        assert setting.sentence in flat[start : start + 300], key
    assert "--run.steps 51_000_000 Policy steps" in flat
    assert "[>= 0 and < 1]" in flat
    for name, preset in presets().items():
        assert f" {name} {preset.about}" in flat
        assert preset.about
    for game in GAMES:
        assert f" {game}" in flat


def test_help_is_printed_and_ends_the_program(capsys):
    with pytest.raises(SystemExit) as caught:
        load(["--configs", "zzz", "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("python -m dreamer.train")


def test_settings_cannot_be_assigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3


def test_loading_settings_brings_in_no_heavy_library():
    code = (
        "import sys; from dreamer.settings import load;"
        "from dreamer.ratio import Ratio; load(['--configs', 'quick']);"
        "heavy = {'jax', 'gymnasium', 'ale_py', 'flax', 'numpy'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules)"
        " else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_other_spellings_of_games():
    for name in ("james_bond", "montezumas_revenge", "river_raid"):
        assert flags(f"--task atari100k_{name}").task_name == name
