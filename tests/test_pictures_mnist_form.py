"""A digit's ink in MNIST's own form; what is in it already is left alone."""
import numpy as np
import pytest
from conftest import full
from known_pages import drawn, page
from PIL import Image, ImageDraw

from mnist_fastai.pictures import photos
from mnist_fastai.pictures.finding import find_digits, to_mnist
from mnist_fastai.pictures.mnist_form import as_mnist, in_mnist_form, stroke_width


def test_every_digit_is_28_by_28_centred_and_in_a_box_of_20():
    for line in find_digits(page(3)[0]):
        for o in line:
            assert o.image.shape == (28, 28) and o.image.dtype == np.uint8 and o.image.max() > 200
            rows, cols = np.flatnonzero((o.image > 40).any(1)), np.flatnonzero((o.image > 40).any(0))
            assert 18 <= max(np.ptp(rows), np.ptp(cols)) + 1 <= 20
            middle = np.array(np.nonzero(o.image))@o.image[o.image > 0]/o.image.sum()
            assert np.abs(middle - 13.5).max() < 1


def test_its_own_images_come_through_unchanged():
    rng = np.random.default_rng(0)
    for o in photos.others(rng, 20)[0]:
        o = np.pad(o[2:26, 2:26], 2)
        assert (to_mnist(o) == o).all() and (to_mnist(255 - o) == o).all() and (to_mnist(o/255) == o).all()
        assert find_digits(o)[0][0].box == (0, 0, 28, 28) and (find_digits(o)[0][0].image == o).all()


@pytest.mark.mnist
def test_mnist_comes_through_unchanged():
    from mnist_fastai.data.folders import image_files
    from mnist_fastai.data.sources import mnist_path
    for file in image_files(mnist_path('mnist')/'testing')[::1 if full else 10]:
        assert (to_mnist(file) == np.asarray(Image.open(file))).all(), file


def test_thin_and_thick_pens_come_near_the_width_of_mnist():
    for width in (2, 40):
        image = Image.new('L', (300, 300), 255)
        ImageDraw.Draw(image).line([(80, 60), (220, 60), (120, 240)], 0, width)
        assert 1.7 < stroke_width(to_mnist(image)/255) < 5


def test_what_is_in_mnists_form_is_left_alone_and_what_is_not_is_made_so():
    known = as_mnist(drawn(3)/255)
    assert (in_mnist_form(known) == known).all() and (in_mnist_form(255 - known) == known).all()
    assert in_mnist_form(np.pad(known, 2)) is None and in_mnist_form(np.full((28, 28), 200, np.uint8)) is None
    framed = known.copy()
    framed[0] = 255
    assert in_mnist_form(framed) is None
