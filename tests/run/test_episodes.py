"""Which episodes count, and what is filmed of them."""

import numpy as np
import pytest

from dreamer.run.episodes import Evaluation, Played


class Policy:
    """Its pictures count its calls."""

    def __init__(self):
        self.calls = 0

    def reset(self):
        self.calls = 0

    def __call__(self, obs):
        self.calls += 1
        return np.zeros(len(obs["reward"]), np.int32)

    def reconstruct(self, env):
        return {"image": (self.calls, env)}


class Envs:
    """Each plays episodes of given lengths; a reward of 1 in each step.

    An episode of negative length is lost after so many steps.
    """

    def __init__(self, *lengths):
        self.num = len(lengths)
        self.lengths = [list(x) for x in lengths]
        self.time = [0] * self.num
        self.is_last = np.ones(self.num, bool)

    def reset(self):
        return self.step(None)

    def step(self, actions):
        first = self.is_last.copy()
        for env, lengths in enumerate(self.lengths):
            self.time[env] = 0 if first[env] else self.time[env] + 1
            if not first[env] and self.time[env] > abs(lengths[0]):
                self.time[env], first[env] = 0, True
                lengths.pop(0)
            elif first[env] and actions is not None:
                lengths.pop(0)
            self.is_last[env] = self.time[env] == lengths[0]
        return {
            "reward": (~first).astype(np.float32),
            "is_first": first,
            "is_last": self.is_last.copy(),
        }


class Films:
    def __init__(self, count):
        self.count = count
        self.seen = []
        self.ended = []

    def add(self, episode, obs, reconstruction, line):
        self.seen.append((episode, bool(obs["is_first"]), line))
        assert reconstruction["image"][1] == episode % 2

    def end(self, episode):
        self.ended.append(episode)


def play(envs, episodes, films=None):
    evaluation = Evaluation(Policy(), envs, episodes, films)
    while not evaluation.finished:
        evaluation.step()
    return evaluation


def test_long_episodes_count_as_much_as_short_ones():
    envs = Envs([1] * 50, [9] * 9)
    found = play(envs, 5).episodes
    # The first environment has played many more than its three.
    assert len(envs.lengths[0]) < 45
    assert found == [
        Played(1.0, 1, 0),
        Played(9.0, 9, 1),
        Played(1.0, 1, 0),
        Played(9.0, 9, 1),
        Played(1.0, 1, 0),
    ]


def test_an_episode_that_was_lost_is_played_again():
    found = play(Envs([-3, 4, 2], [2] * 9), 4).episodes
    assert [x.score for x in found] == [4.0, 2.0, 2.0, 2.0]
    assert [x.length for x in found] == [4, 2, 2, 2]


def test_scores_add_up_from_the_first_step_on():
    envs = Envs([2, 3])
    evaluation = Evaluation(Policy(), envs, 2)
    ended = []
    while not evaluation.finished:
        evaluation.step()
        ended.append(len(evaluation.episodes))
    # A reset and two steps; a reset and three steps.
    assert ended == [0, 0, 1, 1, 1, 1, 2]
    assert evaluation.policy_steps == 6


@pytest.mark.parametrize("count", [1, 3])
def test_the_first_episodes_are_filmed_from_beginning_to_end(count):
    films = Films(count)
    play(Envs([2, 2, 2], [3, 3]), 4, films)
    assert sorted(films.ended) == list(range(count))
    for episode in range(count):
        seen = [x for x in films.seen if x[0] == episode]
        length = 3 if episode == 1 else 2
        assert [x[1] for x in seen] == [True] + [False] * length
        assert seen[-1][2] == (
            f"episode {episode}    step {length}    score {length}"
        )
    assert {x[0] for x in films.seen} == set(range(count))
