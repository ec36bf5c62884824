"""What several tests of checkpoints begin with."""

import pytest

from dreamer.replay import disk
from dreamer.run.checkpoint import Checkpoints


@pytest.fixture
def small_chunks(monkeypatch):
    """Replays of a few steps are in several files."""
    monkeypatch.setattr(disk, "CHUNK", 8)


@pytest.fixture
def open_():
    """Opens the checkpoints of a logdir, and closes them at the end."""
    opened = []

    def make(logdir):
        opened.append(Checkpoints(logdir))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
