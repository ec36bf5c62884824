"""Rows and films in Weights & Biases, whose package comes in when asked for.

Next: logger.py, which writes here.
"""

import contextlib
import dataclasses
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from dreamer.config import Config
from dreamer.options import ConfigError, one_line
from dreamer.whole import write_whole


def check() -> None:
    """Sees, before any file is made, that W&B can be used.

    At a terminal, it asks for a key that is missing.

    Raises:
      ConfigError: it is not installed, or nobody has logged in.
    """
    try:
        import wandb
    except ImportError:
        raise ConfigError(
            "logger.outputs: wandb is not installed: pip install wandb"
        ) from None
    try:
        wandb.login()
    except wandb.errors.UsageError as error:
        reason = one_line(" ".join(str(error).split()))
        raise ConfigError(f"logger.outputs: wandb: {reason}") from error
    except Exception:  # out of reach, perhaps: `WandB` will tell
        return


class WandB:
    """One W&B run per logdir.

    Raises nothing: whatever fails is told once, and the run goes on without.

    Args:
      logdir: of the run, which exists.
      config: the run's settings, which W&B shows.
    """

    def __init__(self, logdir: Path, config: Config) -> None:
        import wandb

        self._failed = False
        self._newest = 0
        with self._unless_it_fails():
            self._run = wandb.init(
                project="dreamer",
                name=logdir.name,
                id=self._identity(logdir),
                resume="allow",
                dir=str(logdir),
                config=dataclasses.asdict(config),
            )

    @staticmethod
    def _identity(logdir: Path) -> str:
        """The W&B run that this logdir continues, or a new one."""
        path = logdir / "wandb_id.txt"
        if not path.exists():
            write_whole(path, secrets.token_hex(4) + "\n")
        return path.read_text().strip()

    def write(self, frames: int, row: Mapping[str, float]) -> None:
        """A row of metrics."""
        if self._failed:
            return
        # Steps that it has seen before are ignored by W&B itself.
        with self._unless_it_fails():
            self._run.log(dict(row), step=int(frames))
            self._newest = int(frames)

    def video(self, frames: int, tag: str, path: Path) -> None:
        """A copy of a film, shown with the newest row."""
        if self._failed:
            return
        import wandb

        with self._unless_it_fails():
            film = wandb.Video(str(path), format=path.suffix[1:])
            # A film took time to make; it comes with the newest row.
            self._newest = max(int(frames), self._newest)
            self._run.log({tag: film}, step=self._newest)

    def close(self) -> None:
        """Waits until all has been sent."""
        told = contextlib.suppress(Exception)
        with told if self._failed else self._unless_it_fails():
            self._run.finish()

    @contextlib.contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        """Says that rows are missing in W&B, whatever it raises.

        The run goes on, and sends no more.
        """
        try:
            yield
        except Exception as error:
            self._failed = True
            reason = " ".join(str(error).split()) or repr(error)
            line = one_line(f"W&B lacks rows from now on: {reason}")
            print(line, file=sys.stderr)
