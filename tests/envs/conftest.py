"""What tests of several environments share."""

import multiprocessing

import pytest

from dreamer.envs.make import make_envs
from dreamer.envs.vector import Envs


@pytest.fixture
def build():
    """Makes `Envs` that are closed after the test, whatever happens."""
    made = []

    def make(*args, **kwargs):
        envs = (make_envs if len(args) == 1 else Envs)(*args, **kwargs)
        made.append(envs)
        return envs

    yield make
    for envs in made:
        envs.close()
    assert multiprocessing.active_children() == []
