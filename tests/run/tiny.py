"""An agent and environments so small that a test sees through them."""

from collections import namedtuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dreamer.agent.layout import ONE_DEVICE
from dreamer.replay import Replay
from dreamer.run.driver import replay_fields
from dreamer.spaces import Space

Carry = namedtuple("Carry", ["deter", "stoch", "prev_action"])


LATENTS = {
    "deter": ((3,), np.dtype(jnp.bfloat16)),
    "stoch": ((2,), np.dtype(np.uint8)),
}
SPACES = {"vector": Space("vector", (2,))}


class Envs:
    """Episodes of given lengths; an observation is (episode, time in it).

    Reward is the time in the episode. Episodes end by time limit.
    """

    num = 2
    obs_spaces = SPACES
    action_space = Space("discrete", (), 9)

    def __init__(self, lengths=((3, 4, 5), (4, 2, 9))):
        self.lengths = lengths
        self.actions = []

    def reset(self):
        self.episode = [0, 0]
        self.time = [0, 0]
        self.last = self.observe()
        return self.last

    def send(self, actions):
        self.actions.append(actions.copy())
        for i in range(2):
            if self.time[i] == self.lengths[i][self.episode[i]]:
                self.episode[i] += 1
                self.time[i] = 0
            else:
                self.time[i] += 1
        self.last = self.observe()

    def receive(self):
        return self.last

    def state(self):
        places = np.array([self.episode, self.time])
        return {"places": places, "saved": np.ones(2, bool)}

    def restore(self, state, obs):
        self.episode, self.time = state["places"].tolist()
        lost = np.flatnonzero(~state["saved"])
        for i in lost:
            self.episode[i] += 1
            self.time[i] = 0
        now = self.observe()
        for key, x in now.items():
            x[state["saved"]] = obs[key][state["saved"]]
        self.last = now
        return now, lost.tolist()

    def observe(self):
        time = np.array(self.time)
        ends = [x[e] for x, e in zip(self.lengths, self.episode, strict=True)]
        return {
            "vector": np.stack([self.episode, time], 1).astype(np.float32),
            "reward": time.astype(np.float32),
            "is_first": time == 0,
            "is_last": time == np.array(ends),
            "is_terminal": np.zeros(2, bool),
        }


@chex.dataclass(frozen=True)
class State:
    weight: jax.Array
    updates: jax.Array


class Agent:
    """Its policy counts its calls in the action and the latents.

    An update mixes everything it was given into one weight, so that a batch,
    a latent, a key or an order that differs gives another weight.
    """

    obs_spaces = SPACES
    latents = LATENTS
    layout = ONE_DEVICE

    def __init__(self):
        self.update = jax.jit(self._update, donate_argnums=0)
        self.calls = []

    def initial_carry(self, envs):
        zeros = (np.zeros((envs, *s), d) for s, d in self.latents.values())
        return Carry(*zeros, np.zeros(envs, np.int32))

    def policy(self, params, carry, obs, key, step):
        self.calls.append((params, carry, obs, key, step))
        count = len(self.calls)
        deter = np.full(carry.deter.shape, count, carry.deter.dtype)
        stoch = np.full(carry.stoch.shape, count + 100, carry.stoch.dtype)
        action = np.full(len(deter), count % 8 + 1, np.int32)
        return Carry(deter, stoch, action), action

    def init(self):
        return State(weight=jnp.ones(3), updates=jnp.zeros((), jnp.int32))

    def _update(self, state, batch, key):
        key = jax.random.fold_in(key, state.updates)
        seen = sum(jnp.sum(x.astype(jnp.float32)) for x in batch.values())
        noise = jax.random.normal(key, (3,))
        weight = 0.9 * state.weight + jnp.sin(seen) + noise
        size, steps = batch["reward"].shape
        shape = (size, steps - 1)
        latents = {
            "deter": jnp.broadcast_to(
                weight.astype(jnp.bfloat16), (*shape, 3)
            ),
            "stoch": jnp.full((*shape, 2), state.updates, jnp.uint8),
        }
        state = State(weight=weight, updates=state.updates + 1)
        return state, latents, {"weight": weight.sum(), "seen": seen}


def make_replay(capacity=40, length=3, seed=0):
    return Replay(
        replay_fields(Envs.obs_spaces, Envs.action_space),
        Agent.latents,
        envs=2,
        capacity=capacity,
        context=1,
        length=length,
        seed=seed,
    )


def steps(count, start=0):
    """Random steps that a replay of `make_replay` takes."""
    for index in range(start, start + count):
        rng = np.random.default_rng(index)
        yield {
            "vector": rng.normal(size=(2, 2)).astype(np.float32),
            "reward": rng.normal(size=2).astype(np.float32),
            "is_first": rng.random(2) < 0.1,
            "is_last": rng.random(2) < 0.1,
            "is_terminal": rng.random(2) < 0.1,
            "action": rng.integers(0, 9, 2).astype(np.int32),
            "deter": rng.normal(size=(2, 3)).astype(jnp.bfloat16),
            "stoch": rng.integers(0, 4, (2, 2)).astype(np.uint8),
        }


def contents(replay, length=3):
    """Every window that a replay holds, gathered."""
    from dreamer.replay import Positions

    count = len(replay) // 2
    first = replay._oldest
    starts = np.arange(first, first + count - length)
    env = np.repeat([0, 1], len(starts))
    return replay.gather(Positions(env, np.tile(starts, 2)))


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)
