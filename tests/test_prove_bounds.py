"""What prove.py compares with is what prove_bounds.py measures."""

import sys
from fractions import Fraction
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import prove_bounds  # noqa: E402
from prove import PROOFS  # noqa: E402


def test_every_task_has_its_bounds():
    assert prove_bounds.BOUNDS.keys() == PROOFS.keys()


@pytest.mark.parametrize("name", PROOFS)
def test_what_is_exact_is_what_is_taken(name):
    proof, bound = PROOFS[name], prove_bounds.BOUNDS[name]
    for exact, taken in (
        (bound.random, proof.random),
        (bound.best, proof.best),
    ):
        if exact:
            assert taken == float(Fraction(exact))


def test_the_measured_score_of_cartpole_is_what_is_taken():
    episodes = prove_bounds.BOUNDS["cartpole"].episodes
    task = PROOFS["cartpole"].task
    mean, error = prove_bounds.random_score(task, episodes)
    assert PROOFS["cartpole"].random == pytest.approx(mean, abs=0.05)
    assert error < 0.2


@pytest.mark.slow
def test_the_measured_scores_of_pendulum_are_what_is_taken():
    proof, bound = PROOFS["pendulum"], prove_bounds.BOUNDS["pendulum"]
    mean, _ = prove_bounds.random_score(proof.task, bound.episodes)
    assert proof.random == pytest.approx(mean, abs=0.5)
    assert proof.best == pytest.approx(prove_bounds.best_pendulum(), abs=0.05)


def test_a_row_shows_what_is_taken_exact_and_measured(monkeypatch, capsys):
    measure = {"random_score": (1.26, 0.02), "best_pendulum": -138.61}
    for function, value in measure.items():
        monkeypatch.setattr(prove_bounds, function, lambda *_, x=value: x)
    assert prove_bounds.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [" ".join(x.split()) for x in lines]
    assert rows[0].startswith("task random exact measured +-")
    assert rows[1] == "catch 1.25 5/4 1.26 0.02 2000 5.00 5"
    assert rows[4] == "cartpole 22.20 1.26 0.02 10000 500.00 500"
    assert rows[5].endswith("-138.60 -138.61")


def test_help_and_wrong_flags_measure_nothing(monkeypatch, capsys):
    monkeypatch.setattr(prove_bounds, "random_score", lambda *_: 1 / 0)
    with pytest.raises(SystemExit) as end:
        prove_bounds.main(["--help"])
    assert end.value.code == 0
    assert "random and best scores" in capsys.readouterr().out
    assert prove_bounds.main(["doors"]) == 2
    said = capsys.readouterr().err
    assert said == "prove_bounds: doors: expected no such argument\n"
