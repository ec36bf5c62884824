"""The programs of docker/, which are no package; read as modules."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docker"


@pytest.fixture(scope="session")
def program():
    """Imports one by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    names = {path.stem for path in FOLDER.glob("*.py")}
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in names - before:
        sys.modules.pop(name, None)
