"""What several tests of pages begin with."""

import shutil

import pytest

from tests.pages import logdirs


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A whole run, not to be changed."""
    return logdirs.whole(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")
