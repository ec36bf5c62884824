"""Films are read back with the decoder and compared with what went in."""

import io

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from PIL import Image

from dreamer import video

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (0, 0, 0)]


def blocks(shape=(24, 36, 3), count=10):
    """Frames of four quarters in colours that wander from frame to frame."""
    frames = np.zeros((count, *shape), np.uint8)
    high, wide = shape[0] // 2, shape[1] // 2
    for t, frame in enumerate(frames):
        for i, colour in enumerate(np.roll(COLOURS, t, 0)):
            y, x = high * (i // 2), wide * (i % 2)
            frame[y : shape[0] if y else high, x:] = colour
    return frames


def save(path, frames, fps=15):
    with video.Film(path, fps) as film:
        for frame in frames:
            film.add(frame)


def read(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = [x.to_ndarray(format="rgb24") for x in file.decode(video=0)]
        facts = stream.codec_context
        return np.stack(frames), stream.average_rate, facts


def test_what_goes_in_comes_out(tmp_path):
    frames = blocks()
    save(tmp_path / "new/film.mp4", frames)
    seen, rate, facts = read(tmp_path / "new/film.mp4")
    assert (facts.name, facts.pix_fmt) == ("h264", "yuv420p")
    assert facts.colorspace == Colorspace.SMPTE170M
    assert rate == 15
    assert seen.shape == frames.shape
    away = np.abs(seen.astype(int) - frames)
    assert away.mean() < 4  # colour is stored for 2 x 2 pixels
    assert np.abs(away[:, 2:8, 2:14]).max() < 12  # within a block
    assert [x.name for x in (tmp_path / "new").iterdir()] == ["film.mp4"]


def test_the_index_stands_before_the_frames(tmp_path):
    save(tmp_path / "film.mp4", blocks())
    content = (tmp_path / "film.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")


def test_an_odd_row_and_column_is_repeated(tmp_path):
    frames = blocks((21, 27, 3))
    save(tmp_path / "film.mp4", frames, fps=29.97)
    seen, rate, _ = read(tmp_path / "film.mp4")
    assert seen.shape == (10, 22, 28, 3)
    assert float(rate) == pytest.approx(29.97, abs=1e-3)
    even = np.pad(frames, ((0, 0), (0, 1), (0, 1), (0, 0)), "edge")
    assert np.abs(seen.astype(int) - even).mean() < 8
    assert np.abs(seen[:, -1, 17:].astype(int) - even[:, -1, 17:]).max() < 12


def test_a_film_is_whole_or_not_there(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"of before")

    def fail():
        with video.Film(path, 15) as film:
            film.add(blocks()[0])
            assert path.read_bytes() == b"of before"
            raise RuntimeError("while filming")

    with pytest.raises(RuntimeError, match="while filming"):
        fail()
    assert path.read_bytes() == b"of before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a frame"):
        save(tmp_path / "film.mp4", blocks()[:0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, frame):
    with pytest.raises(ValueError):
        save(tmp_path / "a.mp4", frame[None])
    assert not list(tmp_path.iterdir())


def test_frames_of_another_size_are_refused(tmp_path):
    with video.Film(tmp_path / "a.mp4", 15) as film:
        film.add(np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(ValueError, match=r"\(8, 6, 3\), expected \(8, 8"):
            film.add(np.zeros((8, 6, 3), np.uint8))


def test_a_folder_that_cannot_be_written_is_an_oserror(tmp_path):
    (tmp_path / "videos").write_bytes(b"a file")
    with pytest.raises(OSError):
        save(tmp_path / "videos/film.mp4", blocks())


def test_a_disk_that_fills_is_an_oserror(tmp_path):
    (tmp_path / "film.mp4.partial").symlink_to("/dev/full")
    noise = np.random.default_rng(0).integers(
        0, 256, (20, 64, 64, 3), np.uint8
    )
    with pytest.raises(OSError):
        save(tmp_path / "film.mp4", noise)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_the_end_keeps_nothing(tmp_path):
    class Full:
        def close(self):
            raise OSError(28, "No space left on device")

    film = video.Film(tmp_path / "film.mp4", 15).__enter__()
    film.add(blocks()[0])
    film._file.close()
    film._file = Full()
    with pytest.raises(OSError, match="No space"):
        film.__exit__(OSError)
    assert not list(tmp_path.iterdir())


def test_gif_reads_back(tmp_path):
    frames = blocks()
    with Image.open(io.BytesIO(video.gif(frames, 10))) as image:
        assert image.format == "GIF"
        assert image.n_frames == 10
        assert image.info["duration"] == 100
        assert image.info["loop"] == 0
        for t, frame in enumerate(frames):
            image.seek(t)
            assert np.array_equal(np.asarray(image.convert("RGB")), frame)
