"""Online queue: windows of new steps, each to be trained on once.

Each environment's stream is cut into consecutive windows that do not overlap,
and batches take these before any others. Read `replay.py` next.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

Window = tuple[int, int]  # environment, time of its first step


@dataclasses.dataclass
class OnlineQueue:
    """Windows that no batch has had yet, oldest first.

    Args:
      envs: Number of environments, which step together.
      window: Steps of one window.
    """

    envs: int
    window: int
    _waiting: deque[Window] = dataclasses.field(
        default_factory=deque, init=False
    )

    def __len__(self) -> int:
        """How many there are."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Window]:
        """The windows in the order in which `take` gives them."""
        return iter(self._waiting)

    def step(self, time: int) -> None:
        """Puts in the windows that end before `time`, where some just do."""
        if time % self.window == 0:
            start = time - self.window
            self._waiting.extend((env, start) for env in range(self.envs))

    def take(self, count: int) -> list[Window]:
        """Takes out the oldest windows, `count` or as many as there are."""
        count = min(count, len(self))
        return [self._waiting.popleft() for _ in range(count)]

    def drop_before(self, time: int) -> None:
        """Takes out the windows that start before `time`."""
        while self._waiting and self._waiting[0][1] < time:
            self._waiting.popleft()

    def clear(self) -> None:
        """Takes out all of them."""
        self._waiting.clear()

    def restore(self, windows: Iterable[Window]) -> None:
        """Holds these windows instead, oldest first."""
        self._waiting = deque(windows)
