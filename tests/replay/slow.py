"""A slow, obvious replay: plain lists of steps, for tests to compare with."""

import dataclasses
from concurrent.futures import Future

import ml_dtypes
import numpy as np

from dreamer.replay import Positions, Replay

BF16 = np.dtype(ml_dtypes.bfloat16)
FIELDS = {
    "image": ((2, 2, 1), np.dtype(np.uint8)),
    "action": ((), np.dtype(np.int32)),
    "reward": ((), np.dtype(np.float32)),
    "is_first": ((), np.dtype(bool)),
    "is_last": ((), np.dtype(bool)),
}
LATENTS = {"deter": ((5,), BF16), "stoch": ((3,), np.dtype(np.uint8))}


def make_replay(
    envs=2,
    capacity=20,
    context=1,
    length=3,
    seed=0,
    online=True,
    exact=True,
    **specs,
):
    """A `Replay` of the small specs above; `capacity` is per environment."""
    fields = specs.get("fields", FIELDS)
    latents = specs.get("latents", LATENTS)
    return Replay(
        fields,
        latents,
        envs,
        capacity * envs,
        context,
        length,
        seed,
        online,
        exact,
    )


def random_arrays(spec, lead, seed):
    """Arbitrary bits, NaNs and all, of every (name, shape, dtype)."""
    rng = np.random.default_rng(seed)
    result = {}
    for name, (shape, dtype) in spec.items():
        if dtype.kind == "b":
            result[name] = rng.random(lead + shape) < 0.2
        else:
            size = (*lead, *shape, dtype.itemsize)
            bits = rng.integers(0, 256, size, np.uint8)
            result[name] = bits.view(dtype)[..., 0]
    return result


def random_step(envs, seed):
    return random_arrays({**FIELDS, **LATENTS}, (envs,), seed)


def fill(replay, steps, first_seed=0):
    """Adds `steps` random steps."""
    for seed in range(first_seed, first_seed + steps):
        replay.add(random_step(replay.envs, seed))


def at_once(size, take, write):
    """Writes without a thread what a snapshot hands over."""
    future = Future()
    try:
        future.set_result(write(take()))
    except OSError as error:
        future.set_exception(error)
    return future


def save(replay, directory):
    """A snapshot, written; its manifest."""
    directory.mkdir(exist_ok=True)
    return replay.snapshot(directory, at_once)()


def same(actual, expected):
    """Asserts equal names, dtypes, shapes and bits."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert actual[name].shape == value.shape, name
        assert actual[name].tobytes() == value.tobytes(), name


def contents(replay):
    """A batch of every window held, as {(env, start): its bytes}."""
    time = replay._time
    result = {}
    window = replay.context + replay.length
    for env in range(replay.envs):
        for start in range(replay._oldest, time - window + 1):
            position = Positions(np.array([env]), np.array([start]))
            batch = replay.gather(position)
            result[env, start] = {k: v.tobytes() for k, v in batch.items()}
    return result


@dataclasses.dataclass
class SlowReplay:
    """Every step ever added, in lists; `capacity` is per environment."""

    envs: int
    capacity: int
    context: int
    length: int
    online: bool

    def __post_init__(self):
        self.streams = [[] for _ in range(self.envs)]
        self.queue = []

    @property
    def window(self):
        return self.context + self.length

    @property
    def time(self):
        return len(self.streams[0])

    @property
    def oldest(self):
        return max(0, self.time - self.capacity)

    def starts(self):
        last = self.time - self.window
        return [
            (env, start)
            for env in range(self.envs)
            for start in range(self.oldest, last + 1)
        ]

    def add(self, step):
        for env, stream in enumerate(self.streams):
            stream.append({k: np.copy(v[env]) for k, v in step.items()})
        if self.online and self.time % self.window == 0:
            start = self.time - self.window
            self.queue += [(env, start) for env in range(self.envs)]
        self.queue = [entry for entry in self.queue if entry[1] >= self.oldest]

    def pop_queue(self, count):
        served, self.queue = self.queue[:count], self.queue[count:]
        return served

    def gather(self, env, start):
        """One window, with the batch's corrections, step by step."""
        steps = self.streams[env][start : start + self.window]
        batch = {
            name: np.array([step[name] for step in steps], dtype)
            for name, (_, dtype) in FIELDS.items()
        }
        batch["is_first"][0] = True
        for t in range(1, self.window):
            if batch["is_first"][t] and not batch["is_last"][t - 1]:
                batch["is_last"][t - 1] = True
        carry = steps[self.context - 1]
        return batch | {name: carry[name] for name in LATENTS}

    def write_back(self, env, start, latents):
        for t in range(self.length):
            time = start + self.context + t
            if time >= self.oldest:
                for name, value in latents.items():
                    self.streams[env][time][name] = np.copy(value[t])
