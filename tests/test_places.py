"""Walking through folders: what is found, how often, and in which order."""

import pytest

from dreamer.places import walk


@pytest.fixture
def top(tmp_path):
    """Two folders with the marker, and one elsewhere."""
    for name in ("top/b/run", "top/c", "elsewhere/runs/d", "elsewhere/e"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "mark").touch()
    return tmp_path / "top"


def marked(top):
    closed = {}
    places = [x for x, names in walk(top, "mark", closed) if "mark" in names]
    assert closed == {}
    return [str(x.relative_to(top)) for x in places]


def test_links_to_folders_are_followed(top):
    (top / "a").symlink_to(top.parent / "elsewhere" / "runs")
    (top / "link").symlink_to("../elsewhere/e")
    (top / "nowhere").symlink_to("../none")
    # What is really there comes first.
    assert marked(top) == ["b/run", "c", "a/d", "link"]


def test_a_folder_comes_once(top):
    (top / "a").symlink_to(top / "c")
    (top / "latest").symlink_to(top / "b" / "run")
    (top / "x").symlink_to(top.parent / "elsewhere")
    (top / "y").symlink_to(top.parent / "elsewhere" / "e")
    assert marked(top) == ["b/run", "c", "x/e", "x/runs/d"]


def test_links_upwards_lead_nowhere(top):
    (top / "b" / "loop").symlink_to(top)
    (top / "b" / "itself").symlink_to(top / "b" / "itself")
    (top / "up").symlink_to(top.parent)
    (top.parent / "elsewhere" / "back").symlink_to(top)
    (top / "z").symlink_to(top.parent / "elsewhere")
    assert marked(top) == ["b/run", "c", "z/e", "z/runs/d"]


def test_a_link_may_be_the_first(top):
    (top.parent / "link").symlink_to(top)
    assert marked(top.parent / "link") == ["b/run", "c"]


def test_nothing_below_the_marker(top):
    (top / "c" / "link").symlink_to(top.parent / "elsewhere")
    assert marked(top) == ["b/run", "c"]
