"""The processes that make one run together, on one host or several.

Each has its own environments and its own share of the replay and of every
batch; the updates they make together, in lockstep.  What one of them alone
knows, such as a signal or a score, goes round by `gather`.  Process 0 leads:
it logs, speaks and writes the train state; the others keep what is theirs in
`<logdir>/processes/<index>`.  Next: rollcall.py, how they meet; device.py.
"""

import dataclasses
import socket
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from dreamer.config import Config
from dreamer.options import ConfigError


@dataclasses.dataclass(frozen=True)
class Peers:
    """This process among all of the run."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0

    def folder(self, logdir: Path) -> Path:
        """Where this process keeps what is its own."""
        if self.leads:
            return logdir
        return logdir / "processes" / str(self.index)

    def share(self, config: Config) -> Config:
        """The settings that this process builds its own parts from.

        Its environments and its replay have a seed of their own.

        Raises:
          ConfigError: environments or sequences cannot be divided.
        """
        if self.count == 1:
            return config
        for key, number in (
            ("run.envs", config.run.envs),
            ("batch_size", config.batch_size),
        ):
            if number % self.count:
                raise ConfigError(
                    f"{key}={number}: expected a multiple of the"
                    f" {self.count} processes"
                )
        run, replay = config.run, config.replay
        mixed = np.random.SeedSequence([config.seed, self.index])
        return dataclasses.replace(
            config,
            seed=int(mixed.generate_state(1)[0])
            if self.index
            else config.seed,
            batch_size=config.batch_size // self.count,
            run=dataclasses.replace(
                run,
                envs=run.envs // self.count,
                steps=-(-run.steps // self.count),
            ),
            replay=dataclasses.replace(
                replay, size=max(1, replay.size // self.count)
            ),
        )

    def own_key(self, key: jax.Array) -> jax.Array:
        """A PRNG key for each process; the same one where there is one."""
        if self.count == 1:
            return key
        return jax.random.fold_in(key, self.index)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Values of all processes, (count, *shape); all must ask together."""
        if self.count == 1:
            return values[None]
        # As bytes, for JAX would round what has 64 bits.
        mine = np.frombuffer(values.tobytes(), np.uint8)
        everyone = np.asarray(multihost_utils.process_allgather(mine))
        rows = np.ascontiguousarray(everyone).view(values.dtype)
        return rows.reshape(self.count, *values.shape)

    def concatenate(
        self, rows: Sequence[tuple[float, int]], most: int
    ) -> list[tuple[float, int]]:
        """Rows of all processes, of which each has at most `most`."""
        if self.count == 1:
            return list(rows)
        mine = np.full((most, 2), np.nan)
        mine[: len(rows)] = np.array(rows).reshape(-1, 2)
        found = self.gather(mine).reshape(-1, 2)
        return [(float(x), int(n)) for x, n in found if not np.isnan(n)]

    def each(self, steps: Collection[int]) -> list[set[int]]:
        """Policy steps of the checkpoints of every process.

        Args:
          steps: policy steps of this process's checkpoints.
        """
        most = self.gather(np.array(len(steps))).max()
        mine = np.full(most + 1, -1)
        mine[: len(steps)] = sorted(steps)
        return [set(x[x >= 0].tolist()) for x in self.gather(mine)]

    def common(self, steps: Collection[int], began: bool) -> list[int]:
        """The checkpoints that all processes have, newest first.

        Args:
          steps: policy steps of this process's checkpoints.
          began: whether this process has been part of the run before.

        Returns:
          Policy steps. None too where all took part and were killed when
          the first checkpoint of some was complete, and not that of others.

        Raises:
          ConfigError: some have one, and all have none in common.
        """
        saved = self.each(steps)
        newcomers = self.who(not began)
        common = sorted(set.intersection(*saved), reverse=True)
        if common or not any(saved):
            return common
        if not newcomers and max(map(len, saved)) == 1:
            return []
        if not all(saved):
            raise ConfigError(
                f"jax.processes={self.count}: process {saved.index(set())} has"
                " no checkpoint, though others have; go on with as many"
                " processes as began and the same logdir, or use another one"
            )
        listed = [", ".join(map(str, sorted(x))) for x in saved]
        each = "; ".join(f"process {i}: {x}" for i, x in enumerate(listed))
        raise ConfigError(
            f"jax.processes={self.count}: no checkpoint is of all processes"
            f" ({each}); use another logdir"
        )

    def sharing(self) -> int:
        """How many of the processes are on this host, with this one."""
        host = np.array(zlib.crc32(socket.gethostname().encode()))
        return int((self.gather(host) == host).sum())

    def who(self, flag: bool) -> list[int]:
        """Which processes have it up."""
        return np.flatnonzero(self.gather(np.array(flag))).tolist()

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process has it up."""
        return self.gather(np.array(flags)).any(0).tolist()


ALONE = Peers()


def peers_here() -> Peers:
    """As JAX was started."""
    return Peers(jax.process_index(), jax.process_count())
