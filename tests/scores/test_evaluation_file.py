"""The file of an evaluation: what is written is read, and named apart."""

import json

import numpy as np
import pytest

from dreamer.options import ConfigError
from dreamer.scores import evaluation_file
from dreamer.scores.evaluation_file import Conditions, read_evaluation

USUAL = 27_000


def conditions(**changes):
    values = dict(
        task="atari100k_pong",
        checkpoint=300,
        frames=1200,
        updates=7,
        mode="sample",
        seed=0,
        envs=2,
        length=USUAL,
        settings={},
    )
    return Conditions(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "eval-300-sample.json"),
        ({"mode": "argmax", "seed": 5}, "eval-300-argmax-seed5.json"),
        ({"length": 9}, "eval-300-sample-length9.json"),
        ({"envs": 8, "settings": {"jax.platform": "cpu"}}, None),
        (
            {"settings": {"env.gym.size": "16,16", "env.gym.repeat": "2"}},
            "eval-300-sample-size=16_16-repeat=2.json",
        ),
    ],
)
def test_results_that_mean_something_else_have_another_name(changes, name):
    usual = evaluation_file.name(conditions(), USUAL, None)
    found = evaluation_file.name(conditions(**changes), USUAL, None)
    assert found == (name or usual)


def test_a_few_episodes_do_not_take_the_place_of_many():
    found = evaluation_file.name(conditions(seed=5), USUAL, 3)
    assert found == "eval-300-sample-seed5-episodes3.json"


def test_what_is_written_is_read(tmp_path):
    episodes = [
        {"score": 21.0, "length": 5, "env": 0},
        {"score": -20.7, "length": 6, "env": 1},
    ]
    about = evaluation_file.results(conditions(), episodes, ["a.mp4"], 1.26)
    path = tmp_path / "new" / "eval.json"
    evaluation_file.write(path, about)
    found = read_evaluation(path)
    np.testing.assert_array_equal(found.scores, [21.0, -20.7])
    assert found.checkpoint == 300
    assert found.usual
    assert found.about == json.loads(path.read_text()) == about
    assert found.about["format"] == evaluation_file.FORMAT
    assert found.about["seconds"] == 1.3
    assert found.about["cut_short"] == 0
    assert [x.get("video") for x in about["episodes"]] == ["a.mp4", None]
    # Pong: random -20.7, human 14.6.
    assert about["human_normalized"]["mean"] == pytest.approx(
        (0.15 + 20.7) / 35.3
    )


@pytest.mark.parametrize(
    "changes",
    [{"mode": "argmax"}, {"length": 6}, {"settings": {"env.gym.size": "1"}}],
)
def test_other_conditions_are_not_the_usual_ones(changes, tmp_path):
    episodes = [{"score": 1.0, "length": 6, "env": 0}]
    about = evaluation_file.results(conditions(**changes), episodes, [], 1.0)
    evaluation_file.write(tmp_path / "eval.json", about)
    assert not read_evaluation(tmp_path / "eval.json").usual
    # The beginning of a game is not compared with whole ones.
    assert (about["human_normalized"] is None) == ("length" in changes)


@pytest.mark.parametrize("text", ["", "[]", '{"episodes": [{"score": "1"}]}'])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(ConfigError, match=r"expected .*episodes"):
        read_evaluation(tmp_path / "eval.json")
