"""The command: what it writes, says and refuses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from dreamer import evaluate, export
from dreamer.config import Config
from dreamer.run import archive
from dreamer.run.policy import load
from dreamer.settings import from_yaml, to_yaml
from tests.refusals import files, outcome
from tests.run.trained import CARTPOLE, checkpoint, programs_kept


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with programs_kept(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A logdir with two checkpoints of different agents."""
    logdir = tmp_path_factory.mktemp("secret") / "run"
    checkpoint(logdir, CARTPOLE, 200, seed=1)
    checkpoint(logdir, CARTPOLE, 300, seed=2)
    return logdir


def scores(folder, out, *flags):
    argv = ["--logdir", str(folder), "--episodes", "5", "--envs", "1"]
    assert evaluate.main([*argv, "--out", str(out), *flags]) == 0
    return json.loads(out.read_text())["episodes"]


@pytest.mark.parametrize("flags", [[], ["--checkpoint", "200"]])
def test_an_agent_plays_as_its_checkpoint_does(
    trained, tmp_path, flags, capsys
):
    run, agent = tmp_path / "run", tmp_path / "new" / "agent"
    shutil.copytree(trained, run)
    before = files(run)
    argv = ["--logdir", str(run), "--out", str(agent), *flags]
    assert export.main(argv) == 0
    assert files(run) == before
    assert {x.name for x in agent.iterdir()} == {"meta.json", "state.arrays"}
    size = sum(x.stat().st_size for x in agent.iterdir())
    assert f"{agent} ({size / 1e6:.1f} MB)" in capsys.readouterr().out
    expected = scores(run, tmp_path / "theirs.json", *flags)
    shutil.rmtree(run)
    assert scores(agent, tmp_path / "ours.json") == expected


def test_it_holds_parameters_settings_and_no_place(trained, tmp_path):
    assert export.export(trained, tmp_path / "agent") > 0
    meta = archive.read_meta(tmp_path / "agent")
    assert meta["counters"] == {"policy_steps": 300}
    theirs = from_yaml((trained / "config.yaml").read_text(), "x", {})
    ours = from_yaml(meta["config"], "x", {"logdir": str(trained)})
    assert to_yaml(ours) == to_yaml(theirs)
    assert Config().logdir in meta["config"]
    content = (tmp_path / "agent" / "meta.json").read_text()
    assert "secret" not in content
    found = [name for name, *_ in meta["files"]["state"]["arrays"]]
    assert {x.split("/")[0] for x in found} == {"params", "updates"}
    whole = archive.read_meta(trained / "ckpt" / "300")
    assert found == [
        name
        for name, *_ in whole["files"]["state"]["arrays"]
        if name.startswith(("params/", "updates"))
    ]


def test_no_host_is_given_away():
    jax = replace(Config().jax, coordinator="node17:1", processes=4, process=2)
    config = replace(Config(), logdir="/home/somebody", jax=jax, seed=3)
    assert export.without_place(config) == replace(Config(), seed=3)


def test_one_that_was_killed_is_in_nobodys_way(trained, tmp_path):
    left = tmp_path / f"agent{export.UNFINISHED}"
    left.mkdir()
    (left / "state.arrays.tmp").write_text("half")
    size = export.export(trained, tmp_path / "agent")
    assert [x.name for x in tmp_path.iterdir()] == ["agent"]
    assert export.size_of(tmp_path / "agent") == pytest.approx(size, rel=0.2)
    assert export.size_of(trained) == export.size_of(tmp_path / "agent")


def test_an_agent_of_an_agent_is_the_same(trained, tmp_path):
    export.export(trained, tmp_path / "a")
    export.export(tmp_path / "a", tmp_path / "b")
    one, two = (
        {x.name: x.read_bytes() for x in (tmp_path / y).iterdir()}
        for y in "ab"
    )
    assert one == two
    obs = load(tmp_path / "a").make_envs(1).reset()
    actions = [load(tmp_path / x)(obs) for x in "ab"]
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--logdir {run}", "--out"),
        ("--out {new}", "--logdir"),
        ("--logdir {run} --out {run}", "is there already"),
        ("--logdir {new} --out {new}", "there is no such folder"),
        ("--logdir {empty} --out {new}", "holds no run"),
        ("--logdir {run} --out {new} --checkpoint 250", "one of 200, 300"),
        ("--logdir {run} --out {new} --checkpoint x", "whole number"),
        (
            "--logdir {run} --out {new} --chekpoint 1",
            "did you mean checkpoint",
        ),
        ("--logdir {run} --out=", "expected a path, and it is empty"),
        ("--logdir {run} --out {new} more", "expected no such argument"),
        ("--logdir {damaged} --out {new}", "damaged"),
    ],
)
def test_mistakes_are_refused(trained, tmp_path, flags, expected):
    damaged = tmp_path / "damaged"
    shutil.copytree(trained / "ckpt" / "300", damaged)
    content = bytearray((damaged / "state.arrays").read_bytes())
    content[-1] ^= 1
    (damaged / "state.arrays").write_bytes(content)
    (tmp_path / "empty").mkdir()
    words = flags.format(
        run=trained,
        new=tmp_path / "new",
        empty=tmp_path / "empty",
        damaged=damaged,
    )
    line = outcome("dreamer.export", export.main, words.split(), tmp_path)
    assert expected in line


def test_a_full_disk_leaves_nothing(trained, tmp_path, monkeypatch, capsys):
    def full(path, meta):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(archive, "write_meta", full)
    out = tmp_path / "agent"
    assert export.main(["--logdir", str(trained), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "No space left on device" in said.err
    assert not list(tmp_path.iterdir())
