"""Where a checkpoint is, and what its settings are."""

import shutil
from dataclasses import replace

import pytest

from dreamer.options import ConfigError
from dreamer.replay import Damaged
from dreamer.run import snapshot
from dreamer.run.archive import _seal, read_meta, write_meta
from dreamer.settings import to_yaml
from tests.run.trained import CARTPOLE, checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A logdir, not to be changed, and its config."""
    logdir = tmp_path_factory.mktemp("whole") / "run"
    return logdir, checkpoint(logdir, CARTPOLE)[0]


@pytest.fixture
def logdir(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def read(logdir, **changes):
    changes = {key.replace("__", "."): x for key, x in changes.items()}
    return snapshot.read(*snapshot.locate(logdir, None), changes)


def test_a_checkpoint_carries_the_settings_of_its_run(logdir, whole):
    found = read(logdir)
    assert found.policy_steps == 300
    assert read_meta(found.path)["config"] == to_yaml(whole[1])
    assert found.config == replace(whole[1], logdir=str(logdir))
    (logdir / "config.yaml").write_text("task: atari_boxing\n")
    assert read(logdir).config == found.config


def test_only_some_settings_may_differ(logdir):
    changed = read(logdir, env__gym__repeat="2", run__env_timeout="5").config
    assert (changed.env.gym.repeat, changed.run.env_timeout) == (2, 5.0)
    assert changed.logdir == str(logdir)
    for key in ("task", "seed", "agent.opt.lr", "run.steps", "nonsense"):
        with pytest.raises(ConfigError, match=f"--{key}: cannot differ"):
            read(logdir, **{key: "1"})
    with pytest.raises(ConfigError, match=r"--env\.gym\.repeat=0: expected"):
        read(logdir, env__gym__repeat="0")


@pytest.mark.parametrize(
    "text",
    [None, 1, "", "[", "seed: &a 1", "- 1", "sedd: 1", "seed: x", "task: a_b"],
)
def test_settings_that_make_no_sense(logdir, text):
    path = logdir / "ckpt" / "300"
    meta = read_meta(path)
    (path / "meta.json").unlink()
    write_meta(path, {**meta, "config": text})
    with pytest.raises(ConfigError, match=r"ckpt/300|task=") as error:
        read(logdir)
    assert str(error.value).isprintable()


def test_a_checkpoint_without_its_number_is_damaged(logdir):
    (logdir / "ckpt" / "300" / "meta.json").write_bytes(
        _seal(b'{"format": 2, "counters": {}, "replay": {}, "files": {}}')
    )
    with pytest.raises(Damaged, match="has no policy_steps"):
        read(logdir)


def test_flags_for_another_kind_of_task_would_do_nothing(logdir):
    for key in ("env.atari.sticky", "env.atari100k.length"):
        with pytest.raises(ConfigError, match=f"^--{key}: ") as error:
            read(logdir, **{key: "0"})
        line = str(error.value)
        assert line.endswith("task gym_CartPole-v1 takes env.gym.*")
    with pytest.raises(ConfigError, match=r"did you mean env\.gym\.repeat\?"):
        read(logdir, **{"env.repeat": "2"})


def test_a_run_that_has_not_saved_yet(logdir):
    shutil.rmtree(logdir / "ckpt")
    every = r"no checkpoint yet \(one every run\.save_every=60 seconds\)$"
    with pytest.raises(ConfigError, match=every):
        snapshot.locate(logdir, None)
    (logdir / "ckpt").mkdir()
    with pytest.raises(ConfigError, match=every):
        snapshot.locate(logdir, None)
    (logdir / "config.yaml").write_text("nonsense: 1")
    with pytest.raises(ConfigError, match=r"has no checkpoint yet$"):
        snapshot.locate(logdir, None)


def test_folders_without_a_checkpoint(logdir, tmp_path):
    for place, match in (
        (tmp_path / "none", "there is no such folder"),
        (logdir / "config.yaml", "there is no such folder"),
        (tmp_path, "holds no run"),
    ):
        with pytest.raises(ConfigError, match=match):
            snapshot.locate(place, None)
    shutil.rmtree(logdir / "ckpt" / "300")
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        snapshot.locate(logdir, None)


def test_a_link_that_leads_nowhere_is_not_waited_for(logdir):
    (logdir / "ckpt" / "400").symlink_to(logdir / "nowhere")
    line = r"ckpt/400/meta\.json: cannot read it .*; --checkpoint takes"
    with pytest.raises(ConfigError, match=line):
        snapshot.look_at(logdir, None, {}, lambda found, home: found)
    found = snapshot.look_at(logdir, 300, {}, lambda found, home: found)
    assert found.policy_steps == 300
