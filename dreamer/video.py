"""Frames to films: MP4 for people, GIF for TensorBoard.

Everything that can be watched is written here: dreams of the world model
while it trains (run/dreams.py) and episodes of an evaluation (evaluate.py).
A film is H.264 in the pixel format that every browser plays, and has its
name only once it is whole. Encoder: PyAV (FFmpeg). Next: run/dreams.py, for
what the frames show.
"""

import io
import os
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from dreamer.options import ConfigError


class Film:
    """Writes an MP4 frame by frame, so that length costs no memory.

        with Film(Path("episode.mp4"), fps=15) as film:
            film.add(frame)

    The file gets its name at the end; after an error, nothing stays. One of
    that name is replaced.

    Args:
      path: of the file; its folder is made if missing.
      fps: frames per second, above 0.
      scale: pixels of the film per pixel of a frame, in both directions, with
        sharp edges. A last odd row or column is repeated, for H.264 has even
        sizes alone.

    Raises:
      ConfigError: the package av is missing.
      ValueError: fps or scale is out of range, a frame is not like the
        first, or there is none.
      OSError: the disk does not take it.
    """

    def __init__(self, path: Path, fps: float, scale: int = 1) -> None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"fps={fps} of a video must be > 0")
        if scale < 1:
            raise ValueError(f"scale={scale} of a video must be >= 1")
        self._path = Path(path)
        self._partial = self._path.with_name(f"{self._path.name}.partial")
        self._fps = Fraction(fps).limit_denominator(1000)
        self._scale = scale
        self._shape: tuple[int, ...] | None = None
        self._av = _av()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._av.open(
            str(self._partial),
            "w",
            format="mp4",
            options={"movflags": "+faststart"},  # plays while it is loading
        )
        return self

    def add(self, frame: np.ndarray) -> None:
        """Appends a frame: (H, W, 3), or grey as (H, W, 1), uint8."""
        check_frame(frame)
        if self._shape is None:
            self._shape = frame.shape
            self._stream = self._begin(frame)
        if frame.shape != self._shape:
            raise ValueError(
                f"frame of shape {frame.shape}, expected {self._shape} as"
                " those before"
            )
        picture = self._av.VideoFrame.from_ndarray(self._fit(frame), "rgb24")
        self._file.mux(self._stream.encode(picture))

    def __exit__(self, kind: type | None, *error: Any) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                self._file.close()  # again, it does nothing
            finally:
                self._partial.unlink(missing_ok=True)

    def _begin(self, frame: np.ndarray) -> Any:
        height, width, _ = self._fit(frame).shape
        stream = self._file.add_stream("libx264", rate=self._fps)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        # Small files without visible blocks; slower presets gain nothing.
        stream.options = {"crf": "20", "preset": "veryfast"}
        codec = stream.codec_context
        codec.thread_count = 1  # others have work to do
        # How FFmpeg turns RGB into it; players guess by size otherwise.
        codec.colorspace = self._av.video.reformatter.Colorspace.SMPTE170M
        return stream

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        """In colour, enlarged, of even size: (H, W, 3)."""
        if frame.shape[-1] == 1:
            frame = np.repeat(frame, 3, -1)
        frame = frame.repeat(self._scale, 0).repeat(self._scale, 1)
        height, width, _ = frame.shape
        even = ((0, height % 2), (0, width % 2), (0, 0))
        return np.ascontiguousarray(np.pad(frame, even, "edge"))

    def _finish(self) -> None:
        if self._shape is None:
            raise ValueError(f"{self._path}: a video needs a frame")
        self._file.mux(self._stream.encode())  # what the encoder still holds
        self._file.close()
        with self._partial.open("rb") as written:
            os.fsync(written.fileno())
        self._partial.replace(self._path)


def save(path: Path, frames: np.ndarray, fps: float, scale: int = 1) -> None:
    """Writes frames (T, H, W, 3 or 1) uint8 as an MP4; raises as `Film`."""
    with Film(path, fps, scale) as film:
        for frame in frames:
            film.add(frame)


def gif(frames: np.ndarray, fps: float) -> bytes:
    """An endless GIF of frames (T, H, W, 3 or 1) uint8, T at least 1.

    Shown for hundredths of a second, so `fps` is met only nearly.

    Raises:
      ValueError: these are no frames.
    """
    from PIL import Image

    if not len(frames):
        raise ValueError("a GIF needs a frame")
    images = []
    for frame in frames:
        check_frame(frame)
        grey = frame.shape[-1] == 1
        images.append(Image.fromarray(frame[..., 0] if grey else frame))
    file = io.BytesIO()
    images[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=max(20, round(1000 / fps)),  # viewers slow shorter ones down
        loop=0,
    )
    return file.getvalue()


def check_frame(frame: np.ndarray) -> None:
    """Sees that an array is a picture.

    Raises:
      ValueError: it is not (H, W, 3) or (H, W, 1) uint8, or it is empty.
    """
    fits = frame.ndim == 3 and frame.shape[-1] in (1, 3) and frame.size
    if not fits or frame.dtype != np.uint8:
        raise ValueError(
            f"frame is {frame.dtype}{frame.shape}, expected uint8 of"
            " (height, width, 3 or 1)"
        )


def _av() -> ModuleType:
    try:
        import av
    except ImportError:
        raise ConfigError(
            "videos need the package av: pip install av"
        ) from None
    return av
