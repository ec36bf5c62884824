"""W&B, in place of whose package stands what each test needs of it."""

import errno
import math
import sys
import types

import pytest

from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.run import wandb_run
from tests.run.logs import make, rows


class CommError(Exception):
    """Of a package's own, as W&B has them."""


class UsageError(Exception):
    """Another one."""


@pytest.fixture
def wandb(monkeypatch):
    """A package of which nothing works."""

    def fail(*arguments, **options):
        raise CommError("not\nso\n")

    module = types.SimpleNamespace(login=fail, init=fail, Video=fail)
    module.errors = types.SimpleNamespace(UsageError=UsageError)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb") as error:
        wandb_run.check()
    assert "\n" not in str(error.value)


def test_nobody_has_logged_in(wandb):
    def login():
        raise UsageError("No key.\nUse `wandb login`.")

    wandb.login = login
    line = "^logger.outputs: wandb: No key. Use `wandb login`.$"
    with pytest.raises(ConfigError, match=line):
        wandb_run.check()


def test_out_of_reach(wandb, tmp_path, capsys):
    wandb_run.check()
    logger = make(tmp_path / "run", ("wandb", "jsonl"))
    logger.scalars(4, {"a": 1.0})
    logger.close()
    said = capsys.readouterr().err
    assert said == "W&B lacks rows from now on: not so\n"
    assert len(rows(tmp_path / "run" / "metrics.jsonl")) == 1


def test_one_logdir_is_one_run(wandb, tmp_path):
    started, logged = [], []

    def init(**options):
        started.append(options)
        return types.SimpleNamespace(
            log=lambda row, step: logged.append((step, row)), finish=list
        )

    wandb.init = init
    for frames in (4, 8):
        logger = make(tmp_path, ("wandb",))
        logger.scalars(frames, {"a": math.nan if frames == 4 else 1.0})
        logger.close()
    assert started[0] == started[1]
    assert started[0]["resume"] == "allow"
    assert started[0]["config"]["task"] == Config().task
    assert math.isnan(logged[0][1]["a"])
    assert logged[1] == (8, {"a": 1.0})


def test_films_come_with_the_newest_row(wandb, tmp_path):
    logged = []
    run = types.SimpleNamespace(
        log=lambda row, step: logged.append((row, step))
    )
    wandb.init = lambda **options: run
    wandb.Video = lambda *args, **options: (args, options)
    logger = make(tmp_path, ("wandb",))
    film = tmp_path / "film.mp4"
    logger.video(4, "report/openloop/image", film, b"a GIF")
    logger.scalars(12, {"a": 1.0})
    logger.video(8, "report/openloop/image", film, b"a GIF")
    row = {"report/openloop/image": ((str(film),), {"format": "mp4"})}
    # W&B ignores what comes for a step before the newest.
    assert logged == [(row, 4), ({"a": 1.0}, 12), (row, 12)]


@pytest.mark.parametrize(
    "error", [BrokenPipeError(errno.EPIPE, "gone"), CommError("not\nso\n")]
)
def test_a_failure_is_told_once(wandb, tmp_path, capsys, error):
    sent = []

    def fail(*arguments, **options):
        sent.append(arguments)
        raise error

    run = types.SimpleNamespace(log=fail, finish=fail)
    wandb.init, wandb.Video = lambda **options: run, fail
    logger = make(tmp_path, ("wandb", "jsonl"))
    for frames in (4, 8):
        logger.scalars(frames, {"a": 1.0})
    logger.video(8, "film", tmp_path / "film.mp4", b"a GIF")
    assert len(sent) == 1
    logger.close()
    assert logger.error is None
    err = capsys.readouterr().err
    assert err.startswith("W&B lacks rows from now on: ")
    assert err.count("\n") == 1
    assert len(rows(tmp_path / "metrics.jsonl")) == 2
