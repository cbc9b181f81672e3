"""Pages to learn from: the picture, its ink, whose ink it is and where their centres are say the same."""
from itertools import islice

import numpy as np
import pytest

from mnist_fastai.data.sources import digits_arrays
from mnist_fastai.pictures.glyphs import Pen, as_glyphs, bars, draw_glyph, letter_glyphs
from mnist_fastai.pictures.mnist_form import stroke_width
from mnist_fastai.pictures.pages import Mark, ignored, page_truth, training_page


@pytest.fixture(scope='module')
def glyphs(): return as_glyphs(digits_arrays()[0][:200])


@pytest.fixture(scope='module')
def pages(glyphs):
    rng = np.random.default_rng(0)
    return [training_page(rng, glyphs) for _ in range(60)]


def test_the_same_seed_makes_the_same_pages(glyphs, pages):
    rng = np.random.default_rng(0)
    for known in islice(pages, 5):
        for a, b in zip(training_page(rng, glyphs), known): np.testing.assert_array_equal(a, b)
    other = training_page(np.random.default_rng(1), glyphs)
    assert (other[0] != pages[0][0]).any()


@pytest.mark.parametrize('shape', [(128, 128), (64, 256), (176, 96)])
def test_a_page_is_of_the_shape_that_was_wanted(shape, glyphs):
    image, ink, number, table = training_page(np.random.default_rng(2), glyphs, shape)
    assert image.shape == ink.shape == shape and image.dtype == ink.dtype == np.uint8
    assert number.shape == (shape[0]//2, shape[1]//2) and number.dtype == np.uint8 and table.shape == (64, 3)


def test_ink_number_and_table_agree(pages):
    several = 0
    for _, ink, number, table in pages:
        n = int((table[:, 2] > 0).sum())
        known = {*np.unique(number).tolist()} - {0, ignored}
        assert known <= {*range(1, n + 1)} and not table[n:].any()
        most = ink.reshape(number.shape[0], 2, number.shape[1], 2).max((1, 3))
        assert (most[number > 0] > 0).all(), 'a pixel of a digit has ink'
        assert (number[most > 128] > 0).mean() > .95 if (most > 128).any() else True, 'and ink is of a digit'
        for i in known:
            y, x = np.nonzero(number == i)
            *centre, height = table[i - 1]
            away = np.hypot(2*x + 1 - centre[0], 2*y + 1 - centre[1])
            assert away.max() < 1.5*max(height, 16), 'its pixels lie around its centre'
        several += n > 3
    assert several > 5


def test_of_a_digit_that_is_mostly_outside_nothing_is_to_be_found(glyphs):
    def page(x):
        mark = Mark(0, np.array([x, 64.]), 3*np.eye(2), 60., 0., True)
        return page_truth(glyphs, [mark], Pen(None, 1., False, False), [], (128, 128))
    ink, number, table = page(64.)
    assert ink.max() > 200 and {*np.unique(number)} == {0, 1} and table[0].tolist() == [64, 64, 60]
    left, _, right, _ = 3*glyphs.boxes[0]
    ink, number, table = page(-.3*(right - left))  # less than a quarter of it is to be seen
    assert not ink.any() and not number.any() and not table.any()
    ink, number, table = page(0.)  # half of it: it has ink, but nobody has to know what it is
    assert ink.any() and {*np.unique(number)} == {0, ignored} and not table.any()


def test_some_pages_have_no_digits_and_most_have(pages):
    without = [o for o in pages if not o[1].any()]
    assert 1 <= len(without) < len(pages)/4
    for *_, number, table in without:
        assert not number.any() and not table.any()
    assert any(np.ptp(o[0]) > 60 for o in without), 'but there are other things to see'


def test_pages_are_of_all_shades(pages):
    means = np.array([o[0].mean() for o in pages])
    assert means.min() < 90 < 170 < means.max()


def test_letters_are_none_that_look_like_digits():
    found = letter_glyphs()
    assert len(found.images) > 100 and found.images.shape[1:] == (28, 28) and (found.images.max((1, 2)) > 120).all()


@pytest.mark.parametrize('width', [2, 5])
def test_a_pen_is_as_wide_as_it_should_be(width, glyphs):
    drawn = draw_glyph(glyphs, 0, Pen(width, 1., False, False), 4*np.eye(2), np.array([100., 100.]), (200, 200))[2]
    assert stroke_width(drawn) == pytest.approx(4*width, rel=.35)


def test_bars_are_straight_strokes_of_all_widths():
    found = bars(np.random.default_rng(0), 40)
    glyphs, ink = as_glyphs(found), found/np.float32(255)
    high, wide = (glyphs.boxes[:, 3] - glyphs.boxes[:, 1]), (glyphs.boxes[:, 2] - glyphs.boxes[:, 0])
    assert found.shape == (40, 28, 28) and (15 < high).all() and (high <= 24).all() and (wide < high).all()
    widths = [stroke_width(o) for o in ink]
    assert min(widths) < 2 and max(widths) > 3
