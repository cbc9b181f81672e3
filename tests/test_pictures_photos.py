"""Pictures of known digits: the same generator makes the same ones, for the figures in results/ depend on it."""
import numpy as np
import pytest

from mnist_fastai.pictures import photos

seven = np.asarray(photos.Image.fromarray(photos.drawn(np.random.default_rng(7), 7)).resize((28, 28)))
# The number that follows a photo, as it was when results/ were written
after = dict(plain=403238, pen=525617, texture=281910, shadow=950100, vignette=403238, ruled=5352, squared=5352,
             fold=5352, edge=525617, perspective=379523, blur=5352, noise=173359, jpeg=28319, board=5352, all=285947)


def test_it_needs_neither_torch_nor_fastai_nor_what_only_one_function_uses(sh):
    done = sh('python', 'import mnist_fastai.pictures.photos, sys; print([o for o in ("torch", "fastai", "sklearn", '
              '"matplotlib") if o in sys.modules])')
    assert done.stdout.strip() == '[]', done.stderr


@pytest.mark.parametrize('kind', photos.kinds)
def test_chance_is_asked_in_the_same_order_as_ever(kind):
    rng = np.random.default_rng(0)
    sheet, _ = photos.written(rng, [[seven]*3, [seven]])
    photo = photos.photo(rng, sheet, kind)
    assert photo.size == sheet.shape[::-1]
    assert int(rng.integers(1_000_000)) == after[kind]


@pytest.mark.parametrize('kind', photos.picture_kinds)
def test_every_kind_of_picture_shows_its_digit(kind):
    make, rng = photos.picture_kinds[kind], np.random.default_rng(0)
    grey = np.asarray(make(seven, rng).convert('L'), float)
    other = np.asarray(make(seven[:, ::-1].copy(), rng).convert('L'), float)
    assert min(grey.shape) >= 16 and np.ptp(grey) > 50 and np.abs(grey - other).max() > 50
