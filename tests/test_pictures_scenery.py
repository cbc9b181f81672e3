"""What surrounds digits in pictures to learn from: all kinds of it, and no digit is hidden."""
import numpy as np
import pytest

from mnist_fastai.pictures.pages import Mark
from mnist_fastai.pictures.scenery import around, badges, clutter, ground, through_camera, uneven_light


@pytest.fixture
def rng(): return np.random.default_rng(0)


marks = [Mark(0, np.array([x, 48.]), np.eye(2), 24., 0., True) for x in (24, 72)]


def test_what_is_at_the_edges_hides_no_digit(rng):
    paper, ink = np.full((96, 96), .9), np.zeros((96, 96), np.float32)
    ink[40:56, 40:56] = 1
    edged = [around(rng, paper, ink) for _ in range(60)]
    assert all(np.abs(o - paper)[40:56, 40:56].mean() < .1 for o in edged)
    assert 5 < sum(o is not paper for o in edged) < 30
    ink[:] = 1  # digits are everywhere: nothing large may be there
    assert all(np.abs(around(rng, paper, ink) - paper).mean() < .1 for _ in range(60))


def test_everything_is_brightness_or_ink_from_0_to_1_of_the_shape_asked_for(rng):
    for _ in range(30):
        for o in ground(rng, 64, 96), clutter(rng, 96, 64, marks, np.ones(2), False):
            assert o is None or o.shape == (64, 96) and -.3 < o.min() and o.max() < 1.3
        lit = uneven_light(rng, np.full((64, 96), .8))
        assert lit.shape == (64, 96) and 0 <= lit.min() and lit.max() <= .8 + 1e-6
        taken = through_camera(rng, lit, .5, 20)
        assert taken.shape == (64, 96) and taken.dtype == np.uint8


def test_some_pages_have_clutter_and_what_encloses_a_digit_is_around_it(rng):
    found = [clutter(rng, 96, 96, marks, np.ones(2), False) for _ in range(60)]
    assert 10 < sum(o is None for o in found) < 50
    assert all(clutter(rng, 96, 96, marks, np.ones(2), True) is not None for _ in range(10))
    field = badges(rng, np.zeros((96, 96)), marks, np.ones(2))
    assert field[48, 24] > .15 < field[48, 72] and field[2, 2] == 0



