"""How a dream is laid out: sequences side by side, captions around them.

Plain NumPy and Pillow, from arrays to frames. A column is one sequence,
framed in green while the model sees what happens and in red once it does not.
Next: dreams.py, which makes films of the frames; agent/dream.py for what the
images are.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SEEN = (70, 180, 90)
UNSEEN = (210, 70, 60)
BORDER = 2  # pixels around a column, and twice that between two
WIDTH = 800  # of a film, roughly; small images are enlarged
BACKGROUND = (22, 22, 26)
INK = (230, 230, 235)
FONT = 14
LINE = 18  # height of a line of text


class Picture(NamedTuple):
    """Frames without text, and the text around them.

    `frames: (T, H, W, 3) uint8`, columns of equal width and rows of equal
    height. `rows`: a word beside each row; `captions`: T times, one for each
    column, lines below it.
    """

    title: str
    frames: np.ndarray
    rows: Sequence[str]
    captions: Sequence[Sequence[str]]


def columns(rows: Sequence[np.ndarray], seen: np.ndarray) -> np.ndarray:
    """Rows of images, one column per sequence, framed by what it sees.

    Args:
      rows: (B, T, h, w, 3) uint8 each.
      seen: (B, T) bool.

    Returns:
      (T, rows * h + borders, B * (w + borders), 3) uint8.
    """
    inner = np.concatenate(rows, 2)  # (B, T, rows * h, w, 3)
    colour = np.where(seen[..., None], SEEN, UNSEEN).astype(np.uint8)
    count, length, height, width, _ = inner.shape
    shape = (count, length, height + 2 * BORDER, width + 2 * BORDER, 3)
    framed = np.broadcast_to(colour[:, :, None, None], shape).copy()
    framed[:, :, BORDER:-BORDER, BORDER:-BORDER] = inner
    return np.concatenate(framed, 2)


def colour(images: np.ndarray) -> np.ndarray:
    """Images (..., C) of any number of channels as (..., 3).

    Three times the last one, for instance the newest of a stack of grey
    frames; the last three if there are whole colours.
    """
    if images.shape[-1] % 3 == 0:
        return images[..., -3:]
    return np.repeat(images[..., -1:], 3, -1)


def difference(model: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Half of model - truth around a middle grey; all uint8."""
    return ((model.astype(np.int16) - truth + 256) // 2).astype(np.uint8)


def _scale(picture: Picture, font: ImageFont.FreeTypeFont) -> int:
    """How much the images are enlarged; at least so that captions fit."""
    width, columns = picture.frames.shape[2], len(picture.captions[0])
    lines = {x for y in picture.captions for z in y for x in z.splitlines()}
    longest = max(map(font.getlength, lines), default=0)
    needed = columns * (longest + LINE // 2)
    return max(1, round(WIDTH / width), math.ceil(needed / width))


def with_text(picture: Picture) -> Iterator[np.ndarray]:
    """Frames at the size of a film, with title, words and captions.

    Yields:
      (H, W, 3) uint8, as many as the picture has.
    """
    font = ImageFont.load_default(FONT)
    frames = picture.frames
    scale = _scale(picture, font)
    height, width = (n * scale for n in frames.shape[1:3])
    left = LINE + int(max(map(font.getlength, picture.rows), default=0))
    lines = max((x.count("\n") + 1 for x in picture.captions[0]), default=0)
    size = (left + width + LINE // 2, 2 * LINE + height + lines * LINE)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    kw = dict(fill=INK, font=font)
    draw.text((LINE // 2, LINE // 4), picture.title, **kw)
    for row, word in enumerate(picture.rows):
        y = LINE * 1.5 + height * (row + 0.5) / len(picture.rows)
        draw.text((LINE // 2, y), word, anchor="lm", **kw)
    for frame, captions in zip(frames, picture.captions, strict=True):
        now = canvas.copy()
        large = frame.repeat(scale, 0).repeat(scale, 1)
        now.paste(Image.fromarray(large), (left, int(1.5 * LINE)))
        draw = ImageDraw.Draw(now)
        for column, text in enumerate(captions):
            x = left + scale * BORDER + width * column // len(captions)
            draw.multiline_text((x, 1.5 * LINE + height), text, **kw)
        yield np.asarray(now)
