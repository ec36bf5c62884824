"""Films of what the world model predicts, made beside the run.

Now and then, a few sequences of the replay are predicted (agent/dream.py)
and become two films in the logdir: `open_loop`, truth above prediction above
their difference, and `imagined`, what the actor would do.  The run goes on
with the same bits as without them, and no failure in here ends it.  Next:
pictures.py for the layout, ../video.py for the files.
"""

import math
import re
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dreamer import video
from dreamer.agent.agent import Agent
from dreamer.agent.dream import Dream, dream
from dreamer.agent.types import Params
from dreamer.config import Config
from dreamer.replay import Replay
from dreamer.run import threads
from dreamer.run.logger import Logger
from dreamer.run.pictures import (
    Picture,
    colour,
    columns,
    difference,
    with_text,
)
from dreamer.run.when import Timer

FOLDER = "videos"
OURS = re.compile(r"(?:open_loop|imagined)-(\d+)\.mp4(\.partial)?")
COLUMNS = 6  # sequences in a film
IN_GIF = 3  # of them in TensorBoard's, which would else be megabytes
FPS = 10  # slower than most games, to see what happens
SALT = 0xD4EA  # no other part of a run draws with it


class Film(NamedTuple):
    """A film in the logdir, and its first sequences for TensorBoard.

    `frames`: of the run, when it was made.
    """

    frames: int
    tag: str
    path: Path
    gif: bytes


class Dreams:
    """Makes films every so many seconds; `turn` is called all the time.

    The device's part is dispatched between two updates, and takes less than
    one; compiling, drawing and writing are done by threads.

    Args:
      agent: for what it predicts.
      replay: looked at, in the thread that calls; nothing is drawn from it.
      logger: gets the films, after the folder `videos` of the logdir.
      config: for the seconds between two films, 0 for none; and for the seed,
        which decides with the number of updates what is filmed.
      updates: done before; there is no film before another one.

    Attributes:
      reports: lines for a person, each said once; the caller clears.
    """

    def __init__(
        self,
        agent: Agent,
        replay: Replay,
        logger: Logger,
        config: Config,
        updates: int,
    ) -> None:
        self.reports: list[str] = []
        self._agent = agent
        self._replay = replay
        self._logger = logger
        self._folder = Path(config.logdir) / FOLDER
        self._seed = config.seed
        self._filmed = updates
        every = config.run.report_every
        self._timer = Timer(every or math.inf)
        self._due = False
        self._failed = False
        self._program: Future[Callable] | None = None
        self._films: Future[list[Film]] | None = None
        kinds = {space.kind for space in agent.obs_spaces.values()}
        self._enabled = every > 0 and "image" in kinds
        if every > 0 and not self._enabled:
            self.reports.append("No videos: no observation is an image")

    def turn(self, params: Params, updates: int, frames: int) -> None:
        """Begins a film if it is time, logs one that is done.

        Args:
          params: of the train state; used before this returns.
          updates, frames: how far the run is.
        """
        self._due |= self._timer.due()
        try:
            if self._films is not None and self._films.done():
                self._log()
            if self._due and self._films is None and updates > self._filmed:
                self._go_on(params, updates, frames)
        except Exception as error:  # a film is not worth a run
            self._due = False
            self._films = None
            self._say(error)

    def last(self, params: Params, updates: int, frames: int) -> None:
        """As `turn`, for a run that ends: films its end and waits for it."""
        self._due = True
        for _ in range(3):  # what is being done, compiling, the film
            self.turn(params, updates, frames)
            wait([x for x in (self._program, self._films) if x])
        self.turn(params, updates, frames)

    def close(self) -> None:
        """Waits for a film that is being written; not for a compiler."""
        wait([self._films] if self._films else [])

    def _go_on(self, params: Params, updates: int, frames: int) -> None:
        """Compiles, or begins a film if that is done."""
        if not self._enabled or not self._replay.windows:
            self._due = False
            return
        if self._program is None:
            self._program = self._compile(params)
        if not self._program.done():
            return
        program = self._program.result()
        rng = np.random.default_rng([SALT, self._seed, updates])
        batch = self._replay.look(COLUMNS, rng)
        result = program(params, jax.device_put(batch), self._key(updates))
        self._due, self._filmed = False, updates
        self._films = threads.start("dream", self._write, result, frames)

    def _key(self, updates: int) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(self._seed), SALT)
        return jax.random.fold_in(key, updates)

    def _compile(self, params: Params) -> Future[Callable]:
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
        )
        spec = self._replay.batch_spec(COLUMNS)
        batch = {k: jax.ShapeDtypeStruct(*v) for k, v in spec.items()}
        key = self._key(0)
        return threads.start_compiling(dream, self._agent, shapes, batch, key)

    def _write(self, result: Dream, frames: int) -> list[Film]:
        """Writes both films; waits for the device."""
        result = jax.device_get(result)
        keys = "+".join(result.truth)
        films = []
        for name, tag, picture in (
            ("open_loop", f"report/openloop/{keys}", open_loop(result)),
            ("imagined", f"report/imagined/{keys}", imagined(result)),
        ):
            path = self._folder / f"{name}-{frames:012d}.mp4"
            with video.Film(path, FPS) as film:
                for frame in with_text(picture):
                    film.add(frame)
            part = picture.frames.shape[2] * IN_GIF // COLUMNS
            gif = video.gif(picture.frames[:, :, :part], FPS)
            films.append(Film(frames, tag, path, gif))
        return films

    def _log(self) -> None:
        films, self._films = self._films, None
        for film in films.result():
            self._logger.video(*film)
        self._failed = False

    def _say(self, error: Exception) -> None:
        """Why there is no film, unless it was the same with the last one."""
        if not self._failed:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.reports.append(f"No video this time: {reason}")
        self._failed = True


def forget_after(logdir: Path, frames: int) -> None:
    """Removes films made later than `frames`, and unfinished ones.

    A run that goes on from there makes them anew.

    Raises:
      OSError: it cannot.
    """
    for path in (logdir / FOLDER).glob("*"):
        name = OURS.fullmatch(path.name)
        if name and (name[2] or int(name[1]) > frames):
            path.unlink(missing_ok=True)


def open_loop(result: Dream) -> Picture:
    """Truth, prediction and difference below one another."""
    rows, words = [], []
    for key, truth in result.truth.items():
        true, model = colour(truth), colour(result.model[key])
        rows += [true, model, difference(model, true)]
        name = key if len(result.truth) > 1 else "true"
        words += [name, "model", "difference"]
    frames = columns(rows, result.seen)
    title = "Open-loop prediction. Green: seen by the model, red: predicted"
    return Picture(title, frames, words, [[]] * len(frames))


def imagined(result: Dream) -> Picture:
    """Rollouts of the actor, with the reward and value that it expects."""
    rollout = result.rollout
    seen = np.zeros(rollout.reward.shape, bool)
    seen[:, 0] = True
    words = list(rollout.images) if len(rollout.images) > 1 else []
    frames = columns([colour(x) for x in rollout.images.values()], seen)
    numbers = (rollout.reward, rollout.value, rollout.ends)
    captions = [
        [_caption(*column) for column in now]
        for now in np.stack(numbers, -1).swapaxes(0, 1).tolist()  # (T, B, 3)
    ]
    title = "Imagined by the model, played by the actor"
    return Picture(title, frames, words, captions)


def _caption(reward: float, value: float, ends: float) -> str:
    return f"reward {_number(reward)}\nvalue {_number(value)}\nends {ends:.0%}"


def _number(x: float) -> str:
    """A number in at most eight characters, as columns are narrow."""
    size = abs(x)
    kind = "z.2f" if size < 1e3 else ".0f" if size < 1e6 else ".1e"
    return f"{x:+{kind}}"
