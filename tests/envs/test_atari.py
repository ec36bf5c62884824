"""Atari, compared frame by frame with a plain loop on the emulator."""

import collections
import dataclasses

import numpy as np
import pytest
from ale_py import Action, ALEInterface, LoggerMode, roms
from PIL import Image

from dreamer.config import AtariConfig
from dreamer.envs.atari import Atari
from dreamer.envs.games import ALIASES, GAMES, rom_name
from dreamer.envs.palette import PALETTE
from dreamer.envs.screen import to_gray
from dreamer.options import ConfigError

RGB = AtariConfig(size=(64, 64), sticky=0.0, gray=False, actions="needed")
GRAY = AtariConfig()


def emulator(game, seed):
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", seed)
    ale.loadROM(roms.get_rom_path(game))
    return ale


def look(frames, config):
    """The image of the frames given, written as plainly as possible."""
    pooled = np.max(np.stack(list(frames)), 0)
    height, width = config.size
    image = Image.fromarray(pooled).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    image = np.asarray(image)
    if not config.gray:
        return image
    weights = np.array([0.299, 0.587, 1 - (0.299 + 0.587)])
    return (image * weights).sum(-1).astype(np.uint8)[..., None]


def test_gray_stays_as_it_is():
    grays = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    np.testing.assert_array_equal(to_gray(grays)[..., 0], grays[..., 0])


class Plain:
    """What a step of the benchmark is, one emulator frame at a time."""

    def __init__(self, game, config, seed):
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.ale = emulator(game, int(self.rng.integers(2**31)))
        self.actions = (
            self.ale.getMinimalActionSet()
            if config.actions == "needed"
            else self.ale.getLegalActionSet()
        )

    def reset(self):
        ale = self.ale
        ale.reset_game()
        for _ in range(self.rng.integers(0, self.config.noops + 1)):
            ale.act(Action.NOOP)
            if ale.game_over():
                ale.reset_game()
        self.last = Action.NOOP
        self.count = 0
        self.lives = ale.lives()
        self.frames = collections.deque([ale.getScreenRGB()], maxlen=2)
        return look(self.frames, self.config)

    def step(self, choice):
        ale, config = self.ale, self.config
        reward = 0
        for _ in range(config.repeat):
            stuck = config.sticky and self.rng.random() < config.sticky
            if not stuck:
                self.last = self.actions[choice]
            reward += ale.act(self.last)
            self.frames.append(ale.getScreenRGB())
            self.count += 1
            if ale.game_over() or self.count == config.length:
                break
        lost = ale.lives() < self.lives
        self.lives = ale.lives()
        terminated = ale.game_over()
        truncated = self.count == config.length and not terminated
        terminal = terminated
        if lost and config.lives in ("discount", "reset"):
            terminal = True
        if lost and config.lives == "reset":
            terminated = True
        image = look(self.frames, config)
        return image, reward, terminated, truncated, terminal


CASES = {
    "pong": ("pong", RGB),
    "wide": ("pong", dataclasses.replace(RGB, size=(48, 80))),
    "gray": ("breakout", GRAY),
    "sticky": ("breakout", dataclasses.replace(RGB, sticky=0.6)),
    "sticky gray": ("ms_pacman", dataclasses.replace(GRAY, sticky=0.25)),
    "one frame": ("boxing", dataclasses.replace(RGB, repeat=1)),
    "three frames": ("breakout", dataclasses.replace(RGB, repeat=3)),
    "no no-ops": ("freeway", dataclasses.replace(RGB, noops=0)),
    "many no-ops": ("skiing", dataclasses.replace(RGB, noops=1000)),
    "short": ("qbert", dataclasses.replace(RGB, length=258)),
    "legal": ("pong", dataclasses.replace(RGB, actions="all")),
    "discount": ("breakout", dataclasses.replace(RGB, lives="discount")),
    "reset": ("breakout", dataclasses.replace(RGB, lives="reset")),
    "tall": ("gopher", RGB),
    "no resize": ("pong", dataclasses.replace(RGB, size=(210, 160))),
    "scrolling": ("enduro", RGB),
    "flicker": ("asteroids", RGB),
    "most rows change": ("krull", RGB),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_a_plain_loop(name):
    game, config = CASES[name]
    env, plain = Atari(game, config, seed=7), Plain(game, config, seed=7)
    assert env.action_space.n == len(plain.actions)
    obs, _ = env.reset()
    np.testing.assert_array_equal(obs["image"], plain.reset())
    choices = np.random.default_rng(3)
    for _ in range(400):
        choice = int(choices.integers(env.action_space.n))
        obs, reward, terminated, truncated, info = env.step(choice)
        expected, *flags = plain.step(choice)
        np.testing.assert_array_equal(obs["image"], expected)
        assert [reward, terminated, truncated, info["is_terminal"]] == flags
        assert obs["image"] in env.observation_space["image"]
        if terminated or truncated:
            obs, info = env.reset()
            np.testing.assert_array_equal(obs["image"], plain.reset())
            assert info["is_terminal"] is False


def play(env, seed, steps=3000):
    """Random play, yielding what every step returns; resets at ends."""
    rng = np.random.default_rng(seed)
    env.reset()
    for _ in range(steps):
        result = env.step(int(rng.integers(env.action_space.n)))
        yield result
        if result[2] or result[3]:
            env.reset()


def test_pools_the_last_two_frames_where_a_game_ends_early():
    # Shifting where policy steps fall lets the game end at each of the
    # four frames of a step.
    config = dataclasses.replace(RGB, noops=0)
    ends = set()
    for phase in range(4):
        env, plain = (make("breakout", config, 0) for make in (Atari, Plain))
        env.reset(), plain.reset()
        for ale in (env._ale, plain.ale):
            for _ in range(phase):
                ale.act(Action.FIRE)
        terminated = False
        count = 0
        while not terminated:
            before = plain.count
            # No-op and fire lose all lives soon.
            obs, _, terminated, _, _ = env.step(count % 2)
            image, _, over, _, _ = plain.step(count % 2)
            assert over == terminated
            count += 1
        np.testing.assert_array_equal(obs["image"], image)
        ends.add(plain.count - before)
    assert ends == {1, 2, 3, 4}


def test_time_limit_truncates_and_does_not_terminate():
    env = Atari("pong", dataclasses.replace(RGB, length=10), seed=0)
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]
    # Two frames only in the third step, and a whole episode after a reset.
    env.reset()
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_game_over_terminates_and_sums_rewards():
    env = Atari("pong", RGB, seed=0)
    env.reset()
    score, terminated, truncated = 0, False, False
    for _ in range(2000):
        _, reward, terminated, truncated, info = env.step(0)
        score += reward
        assert info["is_terminal"] == terminated
        if terminated:
            break
    assert terminated
    assert not truncated
    assert score <= -20  # standing still loses 21 balls


@pytest.mark.parametrize("mode", ["unused", "discount", "reset"])
def test_lives(mode):
    env = Atari("breakout", dataclasses.replace(RGB, lives=mode), seed=0)
    env.reset()
    terminals, ends = 0, 0
    for count in range(1000):
        _, _, terminated, _, info = env.step(count % 2)
        terminals += info["is_terminal"]
        ends += terminated
        if env._ale.game_over():
            break
        if terminated:
            env.reset()
        if mode == "reset" and ends == 3:
            break
    expected = {"unused": (1, 1), "discount": (5, 1), "reset": (3, 3)}
    assert (terminals, ends) == expected[mode]


def test_a_reset_after_a_lost_life_starts_a_new_game():
    env = Atari("breakout", dataclasses.replace(RGB, lives="reset"), seed=0)
    env.reset()
    while not env.step(1)[2]:
        pass
    assert env._ale.lives() == 4
    env.reset()
    assert env._ale.lives() == 5


def test_first_image_of_an_episode_holds_nothing_of_the_last_one():
    config = dataclasses.replace(RGB, noops=0)
    env = Atari("pong", config, seed=0)
    first = env.reset()[0]["image"].copy()
    for _ in range(100):
        env.step(2)
    np.testing.assert_array_equal(env.reset()[0]["image"], first)


def test_images_are_not_overwritten_by_later_steps():
    env = Atari("pong", RGB, seed=0)
    images = [env.reset()[0]["image"]]
    copies = [images[0].copy()]
    for _, (obs, *_) in zip(range(40), play(env, 1), strict=False):
        images.append(obs["image"])
        copies.append(obs["image"].copy())
    np.testing.assert_array_equal(images, copies)


def test_the_paddle_of_pong_follows_the_actions():
    env = Atari("pong", RGB, seed=0)
    meanings = [Action(action).name for action in env._actions]

    def paddle(obs):
        # The right paddle is green on brown.
        column = obs["image"][10:58, 56:58].astype(int).mean(1)
        return np.flatnonzero(column[:, 1] > column[:, 0] + 30).mean()

    env.reset()
    for _ in range(20):
        env.step(0)
    heights = {}
    for name in ("RIGHT", "LEFT"):
        for _ in range(8):
            obs = env.step(meanings.index(name))[0]
        heights[name] = paddle(obs)
    # In Pong, RIGHT moves up and LEFT moves down.
    assert heights["LEFT"] - heights["RIGHT"] > 10


def trajectory(env, seed=None, steps=200):
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(5)
    result = [obs["image"]]
    for _ in range(steps):
        obs, reward, *ends, info = env.step(
            int(rng.integers(env.action_space.n))
        )
        result += [obs["image"], reward, info["is_terminal"]]
        if any(ends):
            result.append(env.reset()[0]["image"])
    return result


def same(left, right):
    return len(left) == len(right) and all(
        np.array_equal(a, b) for a, b in zip(left, right, strict=True)
    )


def test_one_seed_one_trajectory():
    config = dataclasses.replace(RGB, sticky=0.25)
    first = trajectory(Atari("breakout", config, seed=1))
    assert same(first, trajectory(Atari("breakout", config, seed=1)))
    assert not same(first, trajectory(Atari("breakout", config, seed=2)))
    # Seeding a used environment makes it a fresh one.
    used = Atari("breakout", config, seed=3)
    assert not same(first, trajectory(used))
    assert same(first, trajectory(used, seed=1))


def test_sticky_actions_stick_as_often_as_they_should():
    env = Atari("pong", dataclasses.replace(RGB, sticky=0.25), seed=0)
    env.reset()
    taken = [env._stick(count) for count in range(20000)]
    stuck = np.diff(taken) == 0
    # Four standard deviations of 20000 draws.
    assert abs(stuck.mean() - 0.25) < 0.0123


def test_there_are_57_games_under_their_names():
    assert len(set(GAMES)) == 57
    assert list(GAMES) == sorted(GAMES)
    assert set(ALIASES.values()) <= set(GAMES)
    assert rom_name("james_bond") == "jamesbond"
    with pytest.raises(ConfigError, match="'pnog'"):
        rom_name("pnog")


@pytest.mark.parametrize("game", GAMES)
def test_every_game_runs_with_its_own_action_sets(game):
    ale = emulator(game, 0)
    for actions, expected in (
        ("needed", ale.getMinimalActionSet()),
        ("all", ale.getLegalActionSet()),
    ):
        env = Atari(game, dataclasses.replace(RGB, actions=actions), seed=0)
        assert env.action_space.n == len(expected)
        obs, _ = env.reset()
        assert obs["image"].any()
        for action in range(env.action_space.n):
            obs, *_ = env.step(action)
            colors = PALETTE[env._ale.getScreen()].view(np.uint8)
            colors = colors.reshape(*env._ale.getScreenDims(), 4)[..., :3]
            np.testing.assert_array_equal(colors, env._ale.getScreenRGB())
        assert obs["image"] in env.observation_space["image"]
        env.set_state(env.get_state())  # notices what comes out differently


def test_the_emulator_prints_nothing(capfd):
    Atari("pong", RGB).reset()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["discount", "reset"])
def test_a_life_that_is_won_ends_nothing(mode):
    env = Atari("breakout", dataclasses.replace(RGB, lives=mode), seed=0)
    env.reset()
    env._lives -= 1  # so that there is one more after the next step
    _, _, terminated, _, info = env.step(0)
    assert (terminated, info["is_terminal"]) == (False, False)


def test_no_action_sticks_beyond_its_episode():
    env = Atari("pong", dataclasses.replace(RGB, sticky=1.0), seed=0)
    env._sticky_action = Action.FIRE
    env.reset()
    assert env._stick(Action.FIRE) == Action.NOOP
