"""scripts/reproduce: what it starts, keeps, draws and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer.replay.files import spec_of, write_arrays
from dreamer.run import archive
from dreamer.settings import load, save, to_yaml
from dreamer.status import Status
from tests.refusals import files, outcome

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import collect  # noqa: E402
import reproduce  # noqa: E402

START = {
    "time": "2026-01-02T03:04:05Z",
    "policy_steps": 0,
    "command": "python -m dreamer.train --logdir /home/somebody/secret",
    "working_directory": "/home/somebody",
    "host": "somewhere",
    "kernel": "6.1.0-somewhere",
    "git_revision": "abc",
    "cpu": "A CPU",
    "environment_variables": {"XLA_FLAGS": "--xla_dump_to=/home/somebody"},
    "package_versions": {"jax": "0.10.2"},
}


def write_checkpoint(path, config, weights):
    """What `collect` looks at: parameters, and what is left behind."""
    path.mkdir(parents=True)
    arrays = {
        "params/kernel": np.zeros(weights, np.float32),
        "opt_state/mu/kernel": np.zeros(weights, np.float32),
        "updates": np.int32(7),
    }
    crc32 = write_arrays(archive.file_of(path, "state"), arrays)
    meta = {
        "counters": {"policy_steps": int(path.name)},
        "config": to_yaml(config),
        "replay": {},
        "files": {"state": archive.entry(spec_of(arrays), crc32)},
    }
    archive.write_meta(path, meta)


def write_run(
    folder,
    flags,
    scores=(1.0, 3.0),
    state="done",
    steps=110_000,
    weights=10,
):
    """A finished run that has been evaluated, with an agent of few weights."""
    (folder / "replay").mkdir(parents=True)
    config = load([*flags.split(), "--logdir", str(folder)])
    write_checkpoint(folder / "ckpt" / str(steps), config, weights)
    save(config, folder / "config.yaml")
    Status(folder, config.run.steps, 0).write(state, policy_steps=steps)
    with (folder / "scores.jsonl").open("w") as file:
        for step, score in enumerate(scores, 1):
            row = {"step": step * 1000, "episode/score": score}
            file.write(json.dumps(row) + "\n")
    later = {**START, "time": "later", "policy_steps": 7, "cpu": "Another"}
    lines = [json.dumps(x) for x in (START, later)]
    (folder / "starts.jsonl").write_text("\n".join(lines) + "\n")
    write_evaluation(folder, scores, steps)
    return folder


def write_evaluation(folder, scores, steps, mode="sample"):
    ci95 = [min(scores), max(scores)]
    rows = [{"score": x} for x in scores]
    about = {"checkpoint": steps, "mode": mode}
    about |= {"episodes": rows, "ci95": ci95}
    (folder / f"eval-{steps}-{mode}.json").write_text(json.dumps(about))


def write_atari(top, seeds=2):
    for seed in range(seeds):
        flags = f"--configs atari100k size12m --seed {seed}"
        write_run(top / "runs" / f"atari100k_pong-{seed}", flags)
    return ["atari100k", "--logdir", str(top / "runs"), "--episodes", "2"]


def write_proof(top):
    for name, seed, score in (
        ("doors", 0, 1.0),
        ("doors", 1, 0.7),
        ("catch", 0, 5.0),
    ):
        task = f"gym_dreamer/{name.title()}-v0"
        flags = f"--configs proof --task {task} --seed {seed}"
        folder = top / "runs" / f"{name}-{seed}"
        write_run(folder, flags, [score] * 3, steps=14_000)
    return ["proof", "--logdir", str(top / "runs"), "--episodes", "3"]


def collected(argv, top):
    assert reproduce.main([*argv, "--collect", "--results", str(top)]) == 0
    return top / argv[0]


def test_what_is_kept_says_nothing_about_where_it_was(tmp_path, capsys):
    collected(write_atari(tmp_path), tmp_path / "kept")
    kept = tmp_path / "kept" / "atari100k-size12m"
    assert {x.name for x in (kept / "atari100k_pong-1").iterdir()} == {
        "config.yaml",
        "scores.jsonl",
        "eval-110000-sample.json",
        "versions.json",
        "agent",
    }
    for path, content in files(kept).items():
        if content is not None and path.suffix not in (".png", ".arrays"):
            for word in (str(tmp_path), "somebody", "somewhere"):
                assert word not in content.decode(), path
    run = tmp_path / "runs" / "atari100k_pong-1"
    scores = kept / "atari100k_pong-1" / "scores.jsonl"
    assert scores.read_bytes() == (run / "scores.jsonl").read_bytes()
    config = kept / "atari100k_pong-1" / "config.yaml"
    same = ["--logdir", str(run)]
    again = load(["--configs", str(config), *same])
    assert again == load(["--configs", str(run / "config.yaml"), *same])
    assert "\nRuns: 2\n" in capsys.readouterr().out


@pytest.mark.parametrize(("weights", "kept"), [(1_200_000, 1), (1_300_000, 0)])
def test_an_agent_is_kept_if_it_is_small(tmp_path, weights, kept):
    flags = "--configs atari100k size12m"
    run = write_run(tmp_path / "run", flags, weights=weights)
    target = tmp_path / "kept"
    assert collect.keep(run, target, "atari100k")
    assert not collect.keep(run, target, "atari100k")
    assert (target / "agent").exists() == bool(kept)
    if kept:
        assert not {"opt_state"} & {*names_in(target / "agent")}
        (target / "agent" / "state.arrays").write_bytes(b"damaged")
        assert collect.keep(run, target, "atari100k")
        assert {*names_in(target / "agent")} == {"params", "updates"}


def test_scores_are_kept_without_an_agent(tmp_path):
    run = write_run(tmp_path / "run", "--configs atari100k size12m")
    shutil.rmtree(run / "ckpt")
    assert collect.keep(run, tmp_path / "kept", "atari100k")
    assert not (tmp_path / "kept" / "agent").exists()


def test_runs_of_many_processes_are_kept_again(tmp_path):
    flags = "--configs atari100k --jax.coordinator node17:1 --jax.processes 2"
    run = write_run(tmp_path / "run", flags)
    assert collect.keep(run, tmp_path / "kept", "atari100k")
    assert not collect.keep(run, tmp_path / "kept", "atari100k")
    for name in ("config.yaml", "agent/meta.json"):
        assert "node17" not in (tmp_path / "kept" / name).read_text()


def names_in(agent):
    meta = archive.read_meta(agent)
    arrays = archive.read_fields(
        agent, meta, {"params", "updates", "opt_state"}
    )
    return [name.split("/")[0] for name in arrays]


def test_versions_of_later_starts_are_what_changed(tmp_path):
    run = write_run(tmp_path / "x", "--configs atari100k")
    assert collect.versions(run / "starts.jsonl") == [
        {
            "time": START["time"],
            "policy_steps": 0,
            "git_revision": "abc",
            "cpu": "A CPU",
            "package_versions": {"jax": "0.10.2"},
        },
        {"time": "later", "policy_steps": 7, "cpu": "Another"},
    ]


def test_figures_come_from_what_is_kept_alone(tmp_path, capsys):
    argv = write_atari(tmp_path)
    collected(argv, tmp_path / "kept")
    kept = tmp_path / "kept" / "atari100k-size12m"
    first = files(kept)
    names = {x.name for x in kept.iterdir() if x.is_file()}
    assert names == {
        "atari100k.csv",
        "atari100k.md",
        "atari100k-curves.png",
        "atari100k-averages.png",
    }
    assert "pong" in (kept / "atari100k.md").read_text()
    for name in names:
        (kept / name).unlink()
    (tmp_path / "runs").rename(tmp_path / "lost")
    capsys.readouterr()
    collected(argv, tmp_path / "kept")
    assert files(kept) == first
    assert ": kept" not in capsys.readouterr().out


def test_the_table_of_small_tasks_hides_no_seed(tmp_path):
    kept = collected(write_proof(tmp_path), tmp_path / "kept")
    rows = (kept / "proof.md").read_text().splitlines()[2:4]
    assert [x.strip() for x in rows[0].split("|")[1:-1]] == [
        *("dreamer/Catch-v0", "control", "1", "1.25", "5", "5, 5"),
        *("5", "100%", "1 of 1"),
    ]
    # From 7/15 to 1, 0.7 is 44% and 0.85 is 72% of the way.
    assert [x.strip() for x in rows[1].split("|")[1:-1]] == [
        *("dreamer/Doors-v0", "delayed reward", "2", "0.4667", "0.85"),
        *("0.7, 1", "1", "72%", "1 of 2"),
    ]
    runs = (kept / "proof.csv").read_text().splitlines()
    assert runs[3].startswith("doors,delayed reward,1,0.46666667,0.7,")
    assert runs[3].endswith(",1,0.4375,False,3")
    image = (kept / "proof-curves.png").read_bytes()
    assert image[:4] == b"\x89PNG"
    assert len(image) > 10_000


def test_what_is_not_finished_is_left_out_and_said(tmp_path, capsys):
    argv = write_atari(tmp_path, seeds=3)
    runs = sorted((tmp_path / "runs").iterdir())
    (runs[0] / "ckpt" / "110000").rename(runs[0] / "ckpt" / "7000")
    Status(runs[0], 110_000, 0).write("interrupted")
    next(runs[1].glob("eval*.json")).unlink()
    write_evaluation(runs[1], [1.0], 90_000)  # of an earlier checkpoint
    write_evaluation(runs[1], [1.0], 110_000, mode="argmax")
    collected(argv, tmp_path / "kept")
    kept = tmp_path / "kept" / "atari100k-size12m"
    assert [x.parent.name for x in kept.glob("*/scores.jsonl")] == [
        "atari100k_pong-2"
    ]
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"{runs[0].name}: left out, interrupted, saved at policy step 7,000"
        " of 110,000",
        f"{runs[1].name}: left out, its agent has not played 2 episodes",
        f"{runs[2].name}: kept",
    ]


def test_runs_older_than_their_status_count_by_checkpoint(tmp_path):
    run = write_run(tmp_path / "x", "--configs atari100k")
    (run / "status.json").unlink()
    assert collect.unfinished(run) == ""
    (run / "ckpt" / "110000").rename(run / "ckpt" / "109999")
    assert "109,999 of 110,000" in collect.unfinished(run)


@pytest.fixture
def started(monkeypatch):
    """Commands instead of programs, which end with these codes."""
    commands, codes = [], []

    def run(arguments, log=None):
        commands.append([*map(str, arguments)])
        return codes.pop(0) if codes else 0

    monkeypatch.setattr(reproduce, "run", run)
    return commands, codes


def test_a_sweep_gets_what_it_needs(tmp_path, started):
    top = str(tmp_path)
    words = f"atari100k --games pong,james_bond --seeds 3 --logdir {top}/x"
    words += f" --results {top} --configs size1m debug --jobs 2"
    assert reproduce.main(words.split()) == 0
    expected = (
        "-m dreamer.sweep --configs atari100k size1m debug --task"
        f" atari100k_pong,atari100k_jamesbond --seeds 3 --logdir {top}/x"
        " --jobs 2"
    )
    assert started[0] == [expected.split()]
    assert not list(tmp_path.iterdir())


def test_all_games_are_the_26(tmp_path, started):
    reproduce.main(f"atari100k --games all26 --logdir {tmp_path}".split())
    tasks = started[0][0][started[0][0].index("--task") + 1].split(",")
    assert len(tasks) == len(set(tasks)) == 26


def test_small_tasks_are_trained_by_prove(tmp_path, started):
    words = f"proof --games doors --seeds 2 --run.steps 9 --logdir {tmp_path}"
    assert reproduce.main(words.split()) == 0
    script, *rest = started[0][0]
    assert Path(script) == ROOT / "scripts" / "prove.py"
    words = f"doors --seeds 2 --logdir {tmp_path} --run.steps 9"
    assert rest == words.split()
    assert len(started[0]) == 1


@pytest.mark.parametrize("code", [1, 2, 120])
def test_only_agents_that_have_not_played_do(tmp_path, started, capsys, code):
    argv = write_atari(tmp_path, seeds=5)
    runs = sorted((tmp_path / "runs").iterdir())
    next(runs[1].glob("eval*.json")).unlink()
    write_evaluation(runs[2], [1.0], 110_000)  # for a film, say
    next(runs[3].glob("eval*.json")).unlink()
    Status(runs[3], 110_000, 0).write("running")
    shutil.rmtree(runs[3] / "ckpt")
    commands, codes = started
    codes += [0, code, 0]  # the sweep's, and those of two evaluations
    kept = ["--results", str(tmp_path / "kept")]
    assert reproduce.main([*argv, *kept]) == 1
    assert commands[1:] == [
        f"-m dreamer.evaluate --logdir {run} --episodes 2".split()
        for run in runs[1:3]
    ]
    log = runs[1].with_name(f"{runs[1].name}.log")
    said = capsys.readouterr().out
    assert f"{runs[1].name}: dreamer.evaluate failed: {log} says why" in said


@pytest.mark.parametrize("code", [2, 75])
def test_a_sweep_that_was_refused_or_interrupted_ends_it(
    tmp_path, started, code
):
    argv = write_atari(tmp_path)
    started[1].append(code)
    kept = tmp_path / "kept"
    assert reproduce.main([*argv, "--results", str(kept)]) == code
    assert not kept.exists()


def test_a_sweep_with_failures_keeps_the_rest(tmp_path, started):
    argv = write_atari(tmp_path)
    started[1].append(1)
    kept = tmp_path / "kept"
    assert reproduce.main([*argv, "--results", str(kept)]) == 1
    assert len(list(kept.glob("*/*/scores.jsonl"))) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "benchmark"),
        ("atari99k", "invalid choice: 'atari99k'"),
        ("atari100k --games pongg", "pongg: no such game; did you mean pong"),
        ("atari100k --games pong,pong", "pong: given twice"),
        ("proof --games pong", "no such game; catch, recall"),
        ("atari100k --seeds 0", "--seeds: 0: expected a whole number from 1"),
        ("atari100k --episodes x", "--episodes: x: expected a whole number"),
        ("proof --configs size1m", "--configs: expected none"),
        ("proof --episodes 101", "--episodes 101: expected at most 100"),
        ("atari100k --collect --jobs 2", "--jobs: expected no such flag"),
        ("atari100k --name ../x", "--name: ../x: expected letters"),
        ("atari100k --results=", "--results: expected a path, and it is"),
        ("atari100k --collect", "holds no run that is finished"),
    ],
)
def test_mistakes_are_refused(tmp_path, started, words, expected):
    argv = [*words.split(), "--logdir", str(tmp_path / "none")]
    line = outcome("reproduce", reproduce.main, argv, tmp_path)
    assert expected in line


def test_other_flags_have_results_of_another_name(tmp_path, started):
    words = "proof --games doors --name low --jax.compute_dtype bfloat16"
    flags, more = reproduce.parse([*words.split(), "--results", str(tmp_path)])
    logdir, results = reproduce.folders(flags)
    assert logdir == Path.home() / "logdir" / "reproduce" / "low"
    assert results == tmp_path / "low"
    assert more == ["--jax.compute_dtype", "bfloat16"]


def test_a_damaged_run_hides_no_other(tmp_path, started, capsys):
    argv = write_atari(tmp_path, seeds=4)
    runs = sorted((tmp_path / "runs").iterdir())
    next(runs[0].glob("eval*.json")).write_text("{")
    (runs[1] / "config.yaml").write_text("task: atari100k_pongg\n")
    (runs[2] / "starts.jsonl").unlink()
    kept = tmp_path / "kept"
    for more in ([], ["--collect"]):
        assert reproduce.main([*argv, *more, "--results", str(kept)]) == 1
        lines = capsys.readouterr().out.splitlines()
        said = [x for x in lines if "left out" in x]
        assert len(said) == 3
        assert said[0].startswith(f"{runs[0].name}: left out, ")
        assert "expected {" in said[0]
        assert "did you mean atari100k_pong?" in said[1]
        assert "No such file" in said[2]
    names = [x.parent.name for x in kept.glob("*/*/scores.jsonl")]
    assert names == [runs[3].name]


def test_other_settings_are_not_mixed(tmp_path, capsys):
    argv = write_atari(tmp_path, seeds=1)
    kept = tmp_path / "kept"
    collected(argv, kept)
    other = tmp_path / "others" / "atari100k_pong-0"
    write_run(other, "--configs atari100k size12m --agent.horizon 99")
    flags = f"--collect --episodes 2 --logdir {other.parent} --results {kept}"
    before = files(kept)
    capsys.readouterr()
    assert reproduce.main(["atari100k", *flags.split()]) == 1
    assert "holds a run of other settings" in capsys.readouterr().out
    changed = {x for x, y in files(kept).items() if before.get(x) != y}
    assert not {x.name for x in changed} & {"config.yaml", "scores.jsonl"}
    assert reproduce.main(["proof", *flags.split()]) == 2
    said = capsys.readouterr()
    assert "task=atari100k_pong is not of proof" in said.out
    assert "holds no run that is finished" in said.err


def test_an_evaluation_that_is_killed_ends_no_other(
    tmp_path, monkeypatch, capfd
):
    """As by the kernel, where memory is short."""
    argv = write_atari(tmp_path, seeds=3)
    runs = sorted((tmp_path / "runs").iterdir())
    for run in runs[1:]:
        next(run.glob("eval*.json")).unlink()
    real, first = reproduce.run, str(runs[1])

    def run(arguments, log=None):
        killed = "import os; os.kill(os.getpid(), 9)"
        return real(["-c", killed if first in arguments else ""], log)

    monkeypatch.setattr(reproduce, "run", run)
    kept = tmp_path / "kept"
    assert reproduce.main([*argv, "--results", str(kept)]) == 1
    said = capfd.readouterr().out
    log = runs[1].with_name(f"{runs[1].name}.log")
    assert f"{runs[1].name}: dreamer.evaluate failed: {log} says why" in said
    assert log.read_text() == "reproduce: killed by signal 9\n"
    assert f"{runs[2].name}: playing" in said
    assert f"{runs[0].name}: kept" in said


@pytest.mark.parametrize(
    ("number", "code"), [(9, 1), (11, 1), (signal.SIGTERM, 75)]
)
def test_only_who_is_told_to_stop_is_interrupted(number, code, capfd):
    killed = f"import os, signal; os.kill(os.getpid(), {int(number)})"
    assert reproduce.run(["-c", killed]) == code
    killed = f"reproduce: killed by signal {int(number)}\n"
    assert capfd.readouterr().err == ("" if code == 75 else killed)


def test_a_plan_alone_is_all(tmp_path, started):
    argv = write_atari(tmp_path, seeds=2)
    next((tmp_path / "runs" / "atari100k_pong-0").glob("eval*.json")).unlink()
    kept = tmp_path / "kept"
    words = ["--dry-run", "--results", str(kept)]
    assert reproduce.main([*argv, *words]) == 0
    ((*_, last),) = started[0]
    assert last == "--dry-run"
    assert not kept.exists()


CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


def test_sigterm_is_handed_on():
    code = (
        "import sys, reproduce; sys.exit(reproduce.run(['-c', sys.argv[1]]))"
    )
    env = dict(os.environ, PYTHONPATH=str(ROOT / "scripts"))
    with subprocess.Popen(
        [sys.executable, "-c", code, CHILD], env=env, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75
