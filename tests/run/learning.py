"""A learner of the tiny agent, some of whose updates are not applied."""

import jax
import jax.numpy as jnp

from dreamer.run.learner import Learner
from tests.run import tiny


class Agent(tiny.Agent):
    """Some of its updates are not applied; the first is number 1."""

    def __init__(self, bad=()):
        self.bad = jnp.array([*bad, 0])
        super().__init__()

    def _update(self, state, batch, key):
        new, latents, metrics = super()._update(state, batch, key)
        bad = jnp.isin(new.updates, self.bad)

        def spoilt(x):
            return jnp.where(bad, jnp.full_like(x, jnp.nan), x)

        weight = jnp.where(bad, state.weight, new.weight)
        latents["deter"] = spoilt(latents["deter"])
        metrics = {k: spoilt(v) for k, v in metrics.items()}
        metrics["opt/nonfinite"] = bad.astype(jnp.float32)
        return new.replace(weight=weight), latents, metrics


def make_learner(replay, state=None, agent=None, limit=100, *, logdir):
    agent = agent or Agent()
    state = state or agent.init()
    key = jax.random.key(3)
    return Learner(agent, state, replay, 4, key, logdir, limit)


def filled(count=12, **settings):
    replay = tiny.make_replay(**settings)
    for step in tiny.steps(count):
        replay.add(step)
    return replay


def train(learner, replay, updates, start=12):
    """Three steps, then an update, again and again."""
    for index in range(updates):
        for step in tiny.steps(3, start + 3 * index):
            replay.add(step)
        learner.update()
