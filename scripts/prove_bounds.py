#!/usr/bin/env python
"""Scores that prove.py compares with, and measurements beside them.

Random actions are played with fixed seeds. Catch, Recall and Doors say in
dreamer/envs/proofs.py what is exact of them, and tests/envs/test_proofs.py
plays their best; CartPole-v1 gives 1 for each of at most 500 steps. The best
of Pendulum comes from dynamic programming on a grid of its states.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
from prove import PROOFS

from dreamer.command import Parser, say

import dreamer.envs.proofs  # noqa: F401  isort: skip  (registers its tasks)

# Pendulum-v1, as its documentation says (gymnasium.farama.org).
STEPS, DT, SPEED, TORQUE, FORCE, PUSH = 200, 0.05, 8.0, 2.0, 15.0, 3.0
ANGLES, SPEEDS, TORQUES = 241, 201, 21  # of the grid


@dataclass(frozen=True)
class Bound:
    """Where the scores of a task come from.

    Attributes:
      episodes: That random actions are played for.
      random: In closed form, '' if it is measured.
      best: In closed form, '' if it is computed.
    """

    episodes: int
    random: str
    best: str


BOUNDS = {
    "catch": Bound(2000, "5/4", "5"),
    "recall": Bound(2000, "-10/3", "10"),
    "doors": Bound(2000, "7/15", "1"),
    "cartpole": Bound(10_000, "", "500"),
    "pendulum": Bound(2000, "", ""),
}
HEADER = (
    f"{'task':<9} {'random':>9} {'exact':>6} {'measured':>9} {'+-':>5}"
    f" {'episodes':>8} {'best':>9} {'exact':>6} {'computed':>9}"
)


def random_score(task: str, episodes: int) -> tuple[float, float]:
    """Mean of random actions, and its standard error."""
    env = gymnasium.make(task.removeprefix("gym_"))
    env.action_space.seed(0)
    scores = []
    for episode in range(episodes):
        env.reset(seed=episode)
        score, over = 0.0, False
        while not over:
            action = env.action_space.sample()
            _, reward, terminated, truncated, _ = env.step(action)
            score += float(reward)
            over = terminated or truncated
        scores.append(score)
    return float(np.mean(scores)), float(np.std(scores) / episodes**0.5)


def best_pendulum() -> float:
    """Mean over its starts of the least cost, by dynamic programming.

    Costs to go are kept on a grid of angles and speeds, and read between its
    points by bilinear interpolation.
    """
    angle = np.linspace(-np.pi, np.pi, ANGLES, endpoint=False)
    speed = np.linspace(-SPEED, SPEED, SPEEDS)
    torque = np.linspace(-TORQUE, TORQUE, TORQUES)
    a, v, u = np.meshgrid(angle, speed, torque, indexing="ij")
    cost = a**2 + 0.1 * v**2 + 0.001 * u**2
    v = np.clip(v + (FORCE * np.sin(a) + PUSH * u) * DT, -SPEED, SPEED)
    row = (a + v * DT + np.pi) / (2 * np.pi) * ANGLES
    column = (v + SPEED) / (2 * SPEED) * (SPEEDS - 1)
    i, j = np.floor(row).astype(int), np.floor(column).astype(int)
    j = np.minimum(j, SPEEDS - 2)
    row, column = row - i, column - j
    i, below = i % ANGLES, (i + 1) % ANGLES
    to_go = np.zeros((ANGLES, SPEEDS))
    for _ in range(STEPS):
        left = (1 - row) * to_go[i, j] + row * to_go[below, j]
        right = (1 - row) * to_go[i, j + 1] + row * to_go[below, j + 1]
        to_go = (cost + (1 - column) * left + column * right).min(-1)
    starts = abs(speed) <= 1  # any angle
    return -float(to_go[:, starts].mean())


def row(name: str) -> str:
    """What prove.py takes, how that is known, and what was measured."""
    proof, bound = PROOFS[name], BOUNDS[name]
    mean, error = random_score(proof.task, bound.episodes)
    computed = "" if bound.best else f"{best_pendulum():.2f}"
    return (
        f"{name:<9} {proof.random:9.2f} {bound.random:>6} {mean:9.2f}"
        f" {error:5.2f} {bound.episodes:8} {proof.best:9.2f}"
        f" {bound.best:>6} {computed:>9}"
    ).rstrip()


def main(argv: Sequence[str]) -> int:
    """Prints a row for each task; returns the exit code."""
    about = (
        "Prints the random and best scores of the small tasks that prove.py"
        " compares\nwith, and what random actions score when they are played"
        " again. A minute."
    )
    parser = Parser("scripts/prove_bounds.py", about)
    try:
        parser.parse_args(argv)
    except ValueError as error:
        say("prove_bounds", error)
        return 2
    print(HEADER, flush=True)
    for name in PROOFS:
        print(row(name), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
