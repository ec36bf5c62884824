"""From emulator frames to the image that the agent sees.

The element-wise maximum of the last two frames in RGB, resized with Pillow's
bilinear filter, optionally turned gray after that ("Mastering diverse control
tasks through world models", arXiv 2301.04104v2, Atari settings).

Little changes on the screen from one policy step to the next, and resizing is
the most expensive part of a step beside the emulator. Pillow resizes rows
first and columns of the result after that, rounding to bytes in between, so
rows and then columns that did not change can be kept: the pixels are the
same. Where most rows changed, looking for the others does not pay. For some
sizes Pillow takes columns first; then nothing is kept. Read next:
`palette.py`, and `atari.py`, which decides when a frame is shown and when an
image is taken.
"""

import numpy as np
from ale_py import ALEInterface
from PIL import Image

from dreamer.envs.palette import PALETTE

# Of all rows, the share above which it is faster to do all of them.
MANY = 0.5


class Screen:
    """The last two frames of one emulator, pooled and resized.

    Args:
        ale: emulator with a game loaded.
        size: (height, width) of the image.
        gray: whether the image has one channel instead of three.

    Raises:
        RuntimeError: if the emulator has other colours than expected.
    """

    def __init__(
        self, ale: ALEInterface, size: tuple[int, int], gray: bool
    ) -> None:
        self._ale = ale
        self._gray = gray
        shape = ale.getScreenDims()
        # Colour numbers: the older and the newer frame, and the same as they
        # were in the last image. Number 0 is black, as is all of that image.
        self._older = np.zeros(shape, np.uint8)
        self._newer = np.zeros(shape, np.uint8)
        self._seen_older = np.zeros(shape, np.uint8)
        self._seen_newer = np.zeros(shape, np.uint8)
        # The last image between its two resizings, and when done.
        self._rows = np.zeros((shape[0], size[1], 3), np.uint8)
        self._image = np.zeros((*size, 3), np.uint8)
        self._rows_first = _rows_first(shape, size)
        colors = PALETTE[ale.getScreen()].view(np.uint8).reshape(*shape, 4)
        if not np.array_equal(colors[..., :3], ale.getScreenRGB()):
            raise RuntimeError(
                "the emulator's colours are not those of "
                "dreamer/envs/palette.py; install the version of ale-py "
                "that the requirements name"
            )

    def show(self) -> None:
        """Takes in the emulator's current frame as the newest of the two."""
        self._older, self._newer = self._newer, self._older
        self._ale.getScreen(self._newer)

    def image(self) -> np.ndarray:
        """The agent's image of the last two frames, uint8 (H, W, 3 or 1)."""
        if not self._rows_first:
            image = self._resize_all()
            return to_gray(image) if self._gray else image
        rows = np.flatnonzero(
            _rows_differ(self._older, self._seen_older)
            | _rows_differ(self._newer, self._seen_newer)
        )
        if rows.size > MANY * len(self._rows):
            self._resize_rows_and_columns()
        elif rows.size:
            self._resize_columns(self._resize_rows(rows))
        return to_gray(self._image) if self._gray else self._image.copy()

    def _resize_all(self) -> np.ndarray:
        pooled = _pool(self._older, self._newer)
        return _resize(pooled, "RGBX", self._image.shape[:2])[..., :3].copy()

    def _resize_rows_and_columns(self) -> None:
        """Does all of them again, and keeps what can be kept next time."""
        self._seen_older[:], self._seen_newer[:] = self._older, self._newer
        size = len(self._rows), self._rows.shape[1]
        pooled = _pool(self._older, self._newer)
        rows = _resize(pooled, "RGBX", size)
        self._rows[:] = rows[..., :3]
        image = _resize(rows, "RGBX", self._image.shape[:2])
        self._image[:] = image[..., :3]

    def _resize_rows(self, rows: np.ndarray) -> np.ndarray:
        """Brings these rows to the image's width, and says what it changed.

        Returns:
            The indices of columns of the image that are to be done again.
        """
        older, newer = self._older[rows], self._newer[rows]
        self._seen_older[rows] = older
        self._seen_newer[rows] = newer
        size = len(rows), self._rows.shape[1]
        after = _resize(_pool(older, newer), "RGBX", size)[..., :3]
        columns = (after != self._rows[rows]).any((0, 2))
        self._rows[rows] = after
        return np.flatnonzero(columns)

    def _resize_columns(self, columns: np.ndarray) -> None:
        """Brings these columns of the image to its height."""
        if not columns.size:
            return
        before = self._rows.take(columns, 1)  # (rows, columns, 3)
        # The filter goes down: channels may lie beside each other as pixels.
        before = before.reshape(len(before), -1)  # (rows, columns * 3)
        size = self._image.shape[0], before.shape[1]
        after = _resize(before, "L", size)
        self._image[:, columns] = after.reshape(size[0], -1, 3)


def _pool(older: np.ndarray, newer: np.ndarray) -> np.ndarray:
    """Colour numbers (H, W) of two frames -> pooled uint8 (H, W, 4)."""
    pooled = np.maximum(
        PALETTE[older].view(np.uint8), PALETTE[newer].view(np.uint8)
    )
    return pooled.reshape(*older.shape, 4)


def _resize(
    pixels: np.ndarray, mode: str, size: tuple[int, int]
) -> np.ndarray:
    """Pillow's resizing of an array in one of its modes, without a copy."""
    height, width = pixels.shape[:2]
    picture = Image.frombuffer(
        mode, (width, height), pixels, "raw", mode, 0, 1
    )
    picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _rows_first(source: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether Pillow resizes rows before columns for these sizes."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*source, 4), np.uint8)
    rows = _resize(noise, "RGBX", (source[0], size[1]))
    both = _resize(np.ascontiguousarray(rows), "RGBX", size)
    return np.array_equal(both, _resize(noise, "RGBX", size))


def _rows_differ(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which rows of two frames differ, bool (rows,), 8 pixels at a time."""
    return (left.view(np.uint64) != right.view(np.uint64)).any(1)


def to_gray(image: np.ndarray) -> np.ndarray:
    """Luma of an RGB image, truncated: uint8 (H, W, 3) -> (H, W, 1).

    As floats, 0.299, 0.587 and 0.114 are together less than 1, and what is
    gray before would be darker then. So the last one is what they lack.
    """
    red, green, blue = np.moveaxis(image, -1, 0)
    luma = 0.299 * red + 0.587 * green + (1 - (0.299 + 0.587)) * blue
    return luma.astype(np.uint8)[..., None]
