#!/usr/bin/env python
"""Scores that prove.py compares with: `python scripts/prove_bounds.py`.

Random actions are played for 2,000 episodes of each task (200 of Pendulum's,
which are long). Pendulum's best score is that of dynamic programming on a
grid of its states; tests/envs/test_proofs.py plays the others' best.
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np
from prove import PROOFS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dreamer.envs.proofs  # noqa: F401  (registers its tasks)

# Pendulum-v1, as its documentation says (gymnasium.farama.org).
STEPS, DT, SPEED, TORQUE, FORCE, PUSH = 200, 0.05, 8.0, 2.0, 15.0, 3.0
ANGLES, SPEEDS, TORQUES = 241, 201, 21  # of the grid


def random_score(task: str) -> tuple[float, float]:
    """Mean of random actions, and its standard error."""
    env = gymnasium.make(task.removeprefix("gym_"))
    env.action_space.seed(0)
    scores = []
    for episode in range(200 if "Pendulum" in task else 2000):
        env.reset(seed=episode)
        score, over = 0.0, False
        while not over:
            action = env.action_space.sample()
            _, reward, terminated, truncated, _ = env.step(action)
            score += float(reward)
            over = terminated or truncated
        scores.append(score)
    return float(np.mean(scores)), float(np.std(scores) / len(scores) ** 0.5)


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


if __name__ == "__main__":
    for name, proof in PROOFS.items():
        mean, error = random_score(proof.task)
        print(f"{name:<9} random {mean:9.2f} +- {error:.2f}", flush=True)
    print(f"pendulum  best   {best_pendulum():9.2f}")
