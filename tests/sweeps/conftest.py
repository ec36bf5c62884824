"""Programs of Slurm that do as a test says."""

import pytest


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Makes one by name; they come first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)

    return make
