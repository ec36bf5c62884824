"""Frames to films: MP4 for people, GIF for TensorBoard.

Everything that can be watched is written here: dreams of the world model
while it trains (run/dreams.py) and episodes of an evaluation (run/films.py).
A film is H.264 in the pixel format that every browser plays, and has its
name only once it is whole. Encoder: PyAV (FFmpeg), imported by what needs it,
as that takes a while. Next: run/dreams.py, for what the frames show.
"""

import io
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np


class Film:
    """Writes an MP4 frame by frame, so that length costs no memory.

        with Film(Path("episode.mp4"), fps=15) as film:
            film.add(frame)

    The file gets its name at the end; after an error, nothing stays. One of
    that name is replaced. A last odd row or column is repeated, for H.264 has
    even sizes alone.

    Args:
      path: of the file; its folder is made if missing.
      fps: frames per second, above 0.

    Raises:
      ValueError: a frame is no picture or not like the first, or there is
        none.
      OSError: the disk does not take it.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._fps = Fraction(fps).limit_denominator(1000)
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> Self:
        import av

        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = av.open(
            str(self._partial),
            "w",
            format="mp4",
            options={"movflags": "+faststart"},  # plays while it is loading
        )
        return self

    def add(self, frame: np.ndarray) -> None:
        """Appends a frame, (H, W, 3) uint8."""
        from av import VideoFrame

        if self._shape is None:
            self._shape = frame.shape
            self._stream = self._begin(*frame.shape[:2])
        if frame.shape != self._shape:
            raise ValueError(
                f"frame of shape {frame.shape}, expected {self._shape} as"
                " those before"
            )
        rows, columns = (size % 2 for size in frame.shape[:2])
        frame = np.pad(frame, ((0, rows), (0, columns), (0, 0)), "edge")
        picture = VideoFrame.from_ndarray(frame, "rgb24")
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

    def _begin(self, height: int, width: int) -> Any:
        from av.video.reformatter import Colorspace

        stream = self._file.add_stream("libx264", rate=self._fps)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        # Small files without visible blocks; slower presets gain nothing.
        stream.options = {"crf": "20", "preset": "veryfast"}
        codec = stream.codec_context
        codec.thread_count = 1  # others have work to do
        # How FFmpeg turns RGB into it; players guess by size otherwise.
        codec.colorspace = Colorspace.SMPTE170M
        return stream

    def _finish(self) -> None:
        if self._shape is None:
            raise ValueError(f"{self._path}: a video needs a frame")
        self._file.mux(self._stream.encode())  # what the encoder still holds
        self._file.close()
        with self._partial.open("rb") as written:
            os.fsync(written.fileno())
        self._partial.replace(self._path)


def gif(frames: np.ndarray, fps: float) -> bytes:
    """An endless GIF of frames (T, H, W, 3) uint8, T at least 1.

    Shown for hundredths of a second, so `fps` is met only nearly.
    """
    from PIL import Image

    images = list(map(Image.fromarray, frames))
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
