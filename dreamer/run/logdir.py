"""The folder of a run: looked at first, then taken, then written.

Everything that speaks against a run is found before anything is created:
`look` reads only, `take` locks the folder and begins its files.  Next:
lock.py, logger.py, record.py for those files.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dreamer.config import Config
from dreamer.options import ConfigError
from dreamer.run import dreams, lock, wandb_run
from dreamer.run.logger import (
    METRICS,
    SCORES,
    Logger,
    kept_bytes,
)
from dreamer.run.peers import ALONE, Peers
from dreamer.run.record import FILE as STARTS
from dreamer.run.record import record
from dreamer.settings import check_resume, load, save
from dreamer.status import FILE as STATUS
from dreamer.trouble import PassingError, may_pass

# What a run keeps in its logdir; anything else of these names is in the way.
KINDS = {
    **dict.fromkeys(("ckpt", "replay", dreams.FOLDER), Path.is_dir),
    **dict.fromkeys(("config.yaml", lock.FILE), Path.is_file),
    **dict.fromkeys((METRICS, SCORES, STARTS, STATUS), Path.is_file),
}


def look(config: Config, peers: Peers = ALONE) -> None:
    """Sees, without touching it, whether the run may use its logdir.

    Args:
      config: all settings.
      peers: of several processes, each looks at its own folder.

    Raises:
      ConfigError: it is not writable, in use, or holds a run of other
        settings; or W&B is asked for and cannot be used.
    """
    logdir = peers.folder(Path(config.logdir))
    if "wandb" in config.logger.outputs and peers.leads:
        wandb_run.check()
    with explained(config):
        folders = (logdir, *logdir.absolute().parents)
        folder = next(folder for folder in folders if folder.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigError(f"logdir={logdir}: {folder} is not writable")
        for name, fits in KINDS.items():
            path = logdir / name
            if os.path.lexists(path) and not fits(path):
                kind = "file" if fits is Path.is_file else "folder"
                raise ConfigError(f"logdir={logdir}: {name} is no {kind}")
        lock.check(logdir)
        settings = logdir / "config.yaml"
        if settings.exists():
            # The old one may have been made elsewhere, and moved.
            here = ["--configs", str(settings), "--logdir", config.logdir]
            check_resume(load(here), config)


def take(
    config: Config,
    policy_steps: int,
    untouched: Callable[[], bool],
    closing: contextlib.ExitStack,
    peers: Peers = ALONE,
) -> tuple[Logger, str | None]:
    """Locks the logdir, made if missing, and begins the files in it.

    Args:
      config: saved there.
      policy_steps: where the run stands; what was logged later is dropped.
      untouched: whether the checkpoints are the ones that were looked at.
      closing: gets what is to be done at the end: the logger closed, the
        lock given back.
      peers: of several processes, the one that leads logs for all.

    Returns:
      The logger, and a warning to print if the folder cannot be locked.

    Raises:
      ConfigError: it cannot be written, another run has it, or what is there
        is not a log.
    """
    logdir = peers.folder(Path(config.logdir))
    frames = policy_steps * config.action_repeat
    with explained(config), contextlib.ExitStack() as opened:
        kept_bytes(logdir, frames)  # the last look
        held = lock.acquire(logdir)
        opened.callback(held.release)
        if not untouched():
            raise ConfigError(
                f"logdir={logdir}: another run used it while this one"
                " started; start again, or use another logdir"
            )
        outputs = config.logger.outputs if peers.leads else ()
        logger = Logger(logdir, config, outputs)
        opened.callback(logger.close)
        if peers.leads:
            logger.truncate_after(frames)
            dreams.forget_after(logdir, frames)
            save(config, logdir / "config.yaml")
            record(logdir, policy_steps)
        closing.push(opened.pop_all())
    return logger, held.warning


@contextlib.contextmanager
def explained(config: Config) -> Iterator[None]:
    """Turns an error of the file system into one that names the logdir.

    Raises:
      PassingError: it may be over the next time.
      ConfigError: it will not.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        kind = PassingError if may_pass(error) else ConfigError
        raise kind(f"logdir={config.logdir}: {reason}") from error
