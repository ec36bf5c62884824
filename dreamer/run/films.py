"""Films of an agent that plays: the game, what it sees, how it pictures it.

The reconstruction beside the input shows what the world model knows of the
game, and what it overlooks. Next: ../video.py, which writes files.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dreamer.envs.watched import FRAME
from dreamer.options import ConfigError
from dreamer.spaces import Space
from dreamer.video import Film

HEIGHT = 420  # pixels that a picture is enlarged to at most
MARGIN, LINE = 12, 16
BACKGROUND, TEXT = (24, 24, 27), (228, 228, 231)


class Films:
    """One film for each of the first episodes, a picture per policy step.

    A context manager; films that are not at their end when it is left are
    thrown away.

    Args:
      paths: files of the films, in the order of episodes.
      fps: policy steps per second.
      spaces: spaces of the observations, with `FRAME` if there is a picture
        for people.
      title: title of that picture.

    Attributes:
      count: number of films.

    Raises:
      ConfigError: there is nothing to be seen.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        fps: float,
        spaces: Mapping[str, Space],
        title: str,
    ) -> None:
        self._paths = list(paths)
        self.count = len(self._paths)
        self._fps = fps
        self._images = [
            key
            for key, space in spaces.items()
            if space.kind == "image" and key != FRAME
        ]
        self._title = title if FRAME in spaces else None
        if not self._images and not self._title:
            raise ConfigError(
                f"{title} has no image among its observations, and offers"
                " none for people (render_mode rgb_array)"
            )
        self._sheet: Sheet | None = None
        self._open: dict[int, Film] = {}

    def add(
        self,
        episode: int,
        obs: Mapping[str, Any],
        reconstruction: Mapping[str, np.ndarray],
        line: str,
    ) -> None:
        """A policy step of an episode; `is_first` begins its film anew.

        Args:
          episode: number of the episode, from 0.
          obs: observation of one environment.
          reconstruction: images of the world model by key.
          line: text that stands below the pictures.

        Raises:
          OSError: the disk does not take it.
        """
        panels = self._panels(obs, reconstruction)
        if obs["is_first"]:
            self._drop(episode)
            film = Film(self._paths[episode], self._fps)
            self._open[episode] = film.__enter__()
        if self._sheet is None:
            self._sheet = Sheet(panels)
        self._open[episode].add(self._sheet.draw(panels, line))

    def end(self, episode: int) -> None:
        """Finishes the film of an episode.

        Raises:
          OSError: the disk does not take it.
        """
        self._open.pop(episode).__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for episode in list(self._open):
            self._drop(episode)

    def _drop(self, episode: int) -> None:
        film = self._open.pop(episode, None)
        if film is not None:
            film.__exit__(InterruptedError, None, None)

    def _panels(
        self,
        obs: Mapping[str, Any],
        reconstruction: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        panels = {self._title: obs[FRAME]} if self._title else {}
        for key in self._images:
            of = f" {key}" if len(self._images) > 1 else ""
            panels[f"model's input{of}"] = obs[key]
            panels[f"its reconstruction{of}"] = reconstruction[key]
        return panels


class Sheet:
    """Pictures side by side, each below its name, and a line below all.

    Args:
      panels: images (H, W, C) uint8 by name; their sizes stay the same.
    """

    def __init__(self, panels: Mapping[str, np.ndarray]) -> None:
        self._font = ImageFont.load_default(LINE)
        self._scale = {
            name: max(1, HEIGHT // len(image))
            for name, image in panels.items()
        }
        tallest = max(self._scale[x] * len(y) for x, y in panels.items())
        self._place: dict[str, tuple[int, int]] = {}
        x, top = MARGIN, 2 * MARGIN + LINE
        for name, image in panels.items():
            height, width = (self._scale[name] * n for n in image.shape[:2])
            self._place[name] = (x, top + (tallest - height) // 2)
            x += max(width, int(self._font.getlength(name))) + MARGIN
        self._line = (MARGIN, top + tallest + MARGIN)
        size = (x, self._line[1] + LINE + MARGIN)
        self._empty = Image.new("RGB", size, BACKGROUND)
        draw = ImageDraw.Draw(self._empty)
        for name, (left, _) in self._place.items():
            draw.text((left, MARGIN), name, TEXT, self._font)

    def draw(self, panels: Mapping[str, np.ndarray], line: str) -> np.ndarray:
        """The whole, (height, width, 3) uint8."""
        sheet = self._empty.copy()
        for name, image in panels.items():
            scale = self._scale[name]
            # Colours as far as there are three channels, otherwise grey.
            image = image[..., : 3 if image.shape[-1] >= 3 else 1]
            image = np.broadcast_to(image, (*image.shape[:2], 3))
            image = image.repeat(scale, 0).repeat(scale, 1)
            sheet.paste(Image.fromarray(image), self._place[name])
        ImageDraw.Draw(sheet).text(self._line, line, TEXT, self._font)
        return np.asarray(sheet)
