"""An environment that follows a script, and what tests of it share."""

import dataclasses
import os
import threading
import time

import gymnasium
import numpy as np
from gymnasium import spaces

from dreamer.config import AtariConfig, Config


def config(task, envs, seed=0, **atari):
    start = Config()
    settings = AtariConfig(
        **{
            "size": (64, 64),
            "sticky": 0.25,
            "gray": False,
            "actions": "needed",
            **atari,
        }
    )
    return dataclasses.replace(
        start,
        task=task,
        seed=seed,
        run=dataclasses.replace(start.run, envs=envs),
        env=dataclasses.replace(start.env, atari=settings),
    )


def scripted(**settings):
    """A function that builds an environment which follows a script.

    Observations count the steps of the episode. Defined inside, so that
    workers receive it by value.
    """

    class Scripted(gymnasium.Env):
        observation_space = spaces.Dict(
            count=spaces.Box(0, 99, (1,), np.float32),
            process=spaces.MultiDiscrete([2**31]),
            began=spaces.MultiDiscrete([2**31]),
        )
        action_space = spaces.Discrete(9)

        def _obs(self):
            return {
                "count": np.array([self.count], np.float32),
                "process": np.array([os.getpid()]),
                "began": np.array([self.began]),
            }

        def reset(self, *, seed=None, options=None):
            self.count = 0
            self.began = (seed or 0) % 2**31
            return self._obs(), {"is_terminal": True, "junk": lambda: 0}

        def step(self, action):
            self.count += 1
            if settings.get("fail") == action == 5:
                settings["how"]()
            end = self.count == settings.get("length", 3)
            terminal = end and settings.get("terminal", True)
            info = {"junk": lambda: 0}
            if settings.get("lost_life") == self.count:
                info["is_terminal"] = True
            reward = float(action)
            return self._obs(), reward, terminal, end and not terminal, info

    return Scripted


def raise_odd_exception():
    class OddError(Exception):
        """Neither pickles nor can be made from one argument."""

        def __init__(self, lock, why):
            super().__init__(lock, why)

    raise OddError(threading.Lock(), "100%d is not what it was")


def wait_until_gone(pids):
    for _ in range(200):
        alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if not alive:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {alive} are still there")
