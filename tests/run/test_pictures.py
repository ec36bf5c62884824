"""Frames of dreams, pixel by pixel."""

import numpy as np

from dreamer.run.pictures import (
    BACKGROUND,
    BORDER,
    SEEN,
    UNSEEN,
    Picture,
    colour,
    columns,
    difference,
    with_text,
)


def test_columns_of_rows_in_frames_that_say_what_is_seen():
    seen = np.array([[True, False, False], [True, True, False]])
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (2, 2, 3, 4, 5, 3), np.uint8)
    frames = columns(list(rows), seen)
    assert frames.shape == (3, 8 + 2 * BORDER, 2 * (5 + 2 * BORDER), 3)
    assert frames.dtype == np.uint8
    for b, t in np.ndindex(2, 3):
        column = frames[t, :, b * (5 + 2 * BORDER) :][:, : 5 + 2 * BORDER]
        inner = column[BORDER:-BORDER, BORDER:-BORDER]
        assert np.array_equal(inner[:4], rows[0, b, t])
        assert np.array_equal(inner[4:], rows[1, b, t])
        around = [column[0], column[-1], column[:, 0], column[:, -1]]
        for line in around:
            assert (line == (SEEN if seen[b, t] else UNSEEN)).all()


def test_difference_is_grey_where_there_is_none():
    truth = np.array([0, 0, 100, 255, 255, 7], np.uint8)
    model = np.array([0, 255, 120, 255, 0, 6], np.uint8)
    expected = [128, 255, 138, 128, 0, 127]
    assert difference(model, truth).tolist() == expected


def test_any_number_of_channels_is_shown_in_three():
    image = np.arange(7, dtype=np.uint8)
    assert colour(image[:3]).tolist() == [0, 1, 2]
    assert colour(image[:6]).tolist() == [3, 4, 5]
    assert colour(image[:1]).tolist() == [0, 0, 0]
    assert colour(image[:4]).tolist() == [3, 3, 3]


def picture(rows=(), captions=((),), width=90):
    frames = np.zeros((len(captions), 20, width, 3), np.uint8)
    frames[:] = SEEN
    return Picture("Title", frames, rows, captions)


def drawn(frame):
    """Bounding box of the pictures' colour: top, bottom, left, right."""
    inside = (frame == SEEN).all(-1)
    y, x = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
    assert inside[y[0] : y[-1] + 1, x[0] : x[-1] + 1].all()
    return y[0], y[-1] + 1, x[0], x[-1] + 1


def test_text_is_around_the_pictures_and_never_on_them():
    words = ("true", "model")
    captions = [["one\ntwo", "three\nfour"], ["five\nsix", "seven\neight"]]
    first, second = with_text(picture(words, captions))
    top, bottom, left, right = drawn(first)
    assert (bottom - top, right - left) == (9 * 20, 9 * 90)  # enlarged
    assert np.array_equal(first[:bottom], second[:bottom])
    inked = (first != BACKGROUND).any(-1)
    assert inked[:top].any()  # the title
    assert inked[top : (top + bottom) // 2, :left].any()  # the words
    assert inked[(top + bottom) // 2 : bottom, :left].any()
    assert inked[bottom:, left : (left + right) // 2].any()  # the captions
    assert inked[bottom:, (left + right) // 2 :].any()
    assert not np.array_equal(first[bottom:], second[bottom:])


def test_without_words_there_is_less_room():
    with_words = next(with_text(picture(["a long word beside it"])))
    without = next(with_text(picture()))
    assert without.shape[0] == with_words.shape[0]
    assert without.shape[1] < with_words.shape[1] - 100
    small = next(with_text(picture([], [["one\ntwo"]])))
    assert small.shape[0] > without.shape[0] + 20


def test_captions_do_not_reach_into_one_another():
    """Images of 96 x 96 are enlarged where the text asks for it."""
    for width, text, scale in (
        (6 * 100, "value +0.00", 1),
        (6 * 100, "value +23695.53", 2),
        (6 * 89, "reward +0.00", 2),
        (6 * 68, "value +0.00", 2),
    ):
        captions = [[""] * 6, [text, *[""] * 5]]
        _, frame = with_text(picture([], captions, width))
        _, bottom, left, right = drawn(frame)
        assert right - left == scale * width
        ink = (frame[bottom + 1 :] != BACKGROUND).any((0, 2)).nonzero()[0]
        assert ink[-1] < left + scale * width // 6


def test_large_images_stay_as_they_are():
    frame = next(with_text(picture(width=1300)))
    top, bottom, left, right = drawn(frame)
    assert (bottom - top, right - left) == (20, 1300)
