"""The best score of each small task, that of chance, and that of mistakes."""

import gymnasium
import numpy as np
import pytest

import dreamer.envs.proofs
from dreamer.envs.proofs import GREEN, RED, WHITE

TASKS = ("Catch-v0", "Recall-v1", "Doors-v0")


def play(task, player, episodes=200):
    """Scores of a player: a class whose objects choose actions by images."""
    env = gymnasium.make(f"dreamer/{task}")
    scores = []
    for episode in range(episodes):
        image, _ = env.reset(seed=episode)
        act, score, over = player(), 0.0, False
        while not over:
            image, reward, terminated, truncated, _ = env.step(act(image))
            score += reward
            over = terminated or truncated
        scores.append(score)
    return np.array(scores)


def places(image, colour):
    return np.argwhere((image == colour).all(-1))


class Catcher:
    def __call__(self, image):
        ball, paddle = places(image, WHITE), places(image, GREEN)
        if not len(paddle):  # the ball has landed on it
            return 1
        return int(np.sign(ball[:, 1].min() - paddle[:, 1].min())) + 1


class Rememberer:
    answer = None

    def __call__(self, image):
        if self.answer is None:
            self.answer = int(len(places(image, RED)) > 0)
        return self.answer


class Seeing:
    """Does what the image shows, and always the same where it is black."""

    def __call__(self, image):
        return Rememberer()(image)


class Forgetful:
    """Remembers that it has seen red, whatever the episode."""

    seen = 0

    def __call__(self, image):
        if len(places(image, RED)):
            Forgetful.seen = 1
        return Forgetful.seen


class Patient:
    door = GREEN

    def __call__(self, image):
        return int(places(image, self.door)[0, 1] // 5)


class Impatient(Patient):
    door = RED


class Guesser:
    draw = np.random.default_rng(0)

    def __call__(self, image):
        return int(self.draw.integers(3))


def test_every_ball_can_be_caught():
    assert set(play("Catch-v0", Catcher)) == {5.0}


def test_memory_is_always_right():
    scores = play("Recall-v1", Rememberer, 2000)
    assert (scores.min(), scores.max()) == (6, 14)
    assert scores.mean() == pytest.approx(10, abs=0.25)


def test_without_memory_little_is_reached():
    assert play("Recall-v1", Seeing, 2000).mean() == pytest.approx(1, abs=0.5)


def test_who_does_not_forget_at_the_start_of_an_episode_is_misled():
    # Half of the episodes begin in black, nearly all of them after red.
    scores = play("Recall-v1", Forgetful, 2000)
    assert scores.mean() == pytest.approx(0, abs=0.5)


def test_the_green_door_is_worth_the_wait():
    assert set(play("Doors-v0", Patient)) == {1.0}
    assert set(play("Doors-v0", Impatient)) == {0.2}


@pytest.mark.parametrize(
    ("task", "mean"),
    [("Catch-v0", 5 / 4), ("Recall-v1", -10 / 3), ("Doors-v0", 7 / 15)],
)
def test_chance(task, mean):
    scores = play(task, Guesser, 1000)
    error = scores.std() / np.sqrt(len(scores))
    assert abs(scores.mean() - mean) < 4 * error


def test_the_large_reward_is_further_than_what_is_imagined():
    from dreamer.hyperparameters import AgentConfig

    steps = dreamer.envs.proofs.Doors.GREEN_STEPS
    assert steps > AgentConfig().imag_length
    # A mistaken discount turns the choice round.
    assert 0.9**steps < 0.2 * 0.9**2
    assert 0.997**steps > 0.2


@pytest.mark.parametrize("task", TASKS)
def test_one_that_was_saved_goes_on_as_it_would_have(task):
    saved, other = (gymnasium.make(f"dreamer/{task}") for _ in range(2))
    draw = np.random.default_rng(1)
    saved.reset(seed=3)
    for _ in range(150):
        other.unwrapped.set_state(saved.unwrapped.get_state())
        action = int(draw.integers(3))
        # Without the wrappers, which want to be reset first.
        steps = [env.unwrapped.step(action) for env in (saved, other)]
        np.testing.assert_array_equal(steps[0][0], steps[1][0])
        assert steps[0][1:] == steps[1][1:]
        if steps[0][2]:
            starts = [env.unwrapped.reset()[0] for env in (saved, other)]
            np.testing.assert_array_equal(*starts)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("facts", [{}, {"rng": 3}, {"rng": {}, "_first": []}])
def test_a_state_of_something_else_is_refused(task, facts):
    env = gymnasium.make(f"dreamer/{task}").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="state"):
        env.set_state(dreamer.envs.proofs.pack(facts))


@pytest.mark.parametrize("task", TASKS)
def test_a_person_sees_what_the_agent_sees(task):
    env = gymnasium.make(f"dreamer/{task}", render_mode="rgb_array")
    image, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render()[::16, ::16], image)
