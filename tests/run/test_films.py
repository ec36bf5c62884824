"""What films show, and which of them stay."""

import av
import numpy as np
import pytest

from dreamer.envs.watched import FRAME
from dreamer.options import ConfigError
from dreamer.run.films import BACKGROUND, Films, Sheet
from dreamer.spaces import Space
from dreamer.video import Film

LONG = 80  # pictures, of which the encoder writes some at once
IMAGE = Space("image", (16, 16, 1))
SPACES = {"depth": IMAGE, "v": Space("vector", (3,)), FRAME: IMAGE}


def obs(first=False, value=0):
    image = np.full((16, 16, 1), value, np.uint8)
    picture = np.full((21, 30, 3), value, np.uint8)
    return {"depth": image, FRAME: picture, "is_first": first, "v": None}


def add(films, episode, count, first=True):
    for step in range(count):
        now = obs(first and step == 0)
        films.add(episode, now, {"depth": now["depth"]}, f"step {step}")


def pictures(path):
    with av.open(str(path)) as file:
        rate = file.streams.video[0].average_rate
        return rate, [x.to_ndarray(format="rgb24") for x in file.decode()]


def test_one_film_for_each_episode(tmp_path):
    paths = [tmp_path / "videos" / f"{n}.mp4" for n in range(2)]
    with Films(paths, 12.5, SPACES, "game") as films:
        assert films.count == 2
        add(films, 0, 2)
        add(films, 1, 3)
        add(films, 0, 2, first=False)
        films.end(0)
        assert paths[0].exists()
        films.end(1)
    assert [len(pictures(path)[1]) for path in paths] == [4, 3]
    assert pictures(paths[0])[0] == 12.5


def test_a_film_that_does_not_end_leaves_nothing(tmp_path):
    path = tmp_path / "videos" / "0.mp4"
    with Films([path], 15, SPACES, "game") as films:
        add(films, 0, LONG)
        assert list(path.parent.iterdir())
    assert not list(path.parent.iterdir())


def test_an_episode_that_begins_anew_begins_its_film_anew(
    tmp_path, monkeypatch
):
    path, ends, end = tmp_path / "0.mp4", [], Film.__exit__

    def noted(film, kind, *error):
        ends.append(kind)
        end(film, kind, *error)

    monkeypatch.setattr(Film, "__exit__", noted)
    with Films([path], 15, SPACES, "game") as films:
        add(films, 0, LONG)
        add(films, 0, 2)
        films.end(0)
    assert len(pictures(path)[1]) == 2
    assert ends == [InterruptedError, None]


def test_where_there_is_nothing_to_be_seen(tmp_path):
    spaces = {"v": Space("vector", (3,))}
    with pytest.raises(ConfigError, match="CartPole-v1 has no image"):
        Films([tmp_path / "x"], 15, spaces, "CartPole-v1")
    Films([tmp_path / "x"], 15, {**spaces, FRAME: IMAGE}, "CartPole-v1")
    assert not list(tmp_path.iterdir())


def test_the_game_the_input_and_the_reconstruction_side_by_side(tmp_path):
    with Films([tmp_path / "0.mp4"], 15, SPACES, "game") as films:
        now = obs(True, 200)
        films.add(0, now, {"depth": 0 * now["depth"] + 90}, "line")
        films.end(0)
    (picture,) = pictures(tmp_path / "0.mp4")[1]
    middle = picture[len(picture) // 2].astype(int)
    near = {
        value: np.flatnonzero((abs(middle - value) < 12).all(1))
        for value in (200, 90)
    }
    # 30 pixels 20 times larger and 16 pixels 26 times larger, then one.
    assert abs(len(near[200]) - 600 - 416) < 12
    assert abs(len(near[90]) - 416) < 12
    assert near[200].max() < near[90].min()


def test_pixels_are_enlarged_and_not_blurred():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (100, 90, 3), np.uint8)
    picture = Sheet({"image": image}).draw({"image": image}, "")
    assert (picture[0, 0] == BACKGROUND).all()
    top, left = 40, 12
    inside = picture[top : top + 400, left : left + 360]
    np.testing.assert_array_equal(inside[::4, ::4], image)
    np.testing.assert_array_equal(inside[3::4, 3::4], image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_of_any_number_of_channels(channels):
    image = np.full((20, 20, channels), 77, np.uint8)
    picture = Sheet({"image": image}).draw({"image": image}, "")
    assert (picture[200, 200] == 77).all()


def test_names_have_room():
    image = np.zeros((400, 2, 3), np.uint8)
    panels = {"a very long name": image, "another name": image}
    assert Sheet(panels).draw(panels, "").shape[1] > 200
