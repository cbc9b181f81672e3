"""Augmentation: each digit on its own, repeatable, training only, and still digits."""
import pickle

import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.core import TensorImageBW

from mnist_fastai.augment import (
    RandomAffine, RandomElastic, RandomErase, RandomPaper, RandomStroke, affine_mats, augmentations
)
from mnist_fastai.data.core import mnist_dls

kinds = ['affine', 'elastic', 'erase', 'stroke', 'paper']


def ring(n=1):
    "An off-centre bar on black, n times, which no turn by 180 degrees and no mirror maps to itself"
    x = torch.zeros(n, 1, 28, 28)
    x[:, :, 5:20, 8:11] = 1
    x[:, :, 5:8, 8:18] = 1
    return TensorImageBW(x)


def augment(names, x, split_idx=0):
    for tfm in augmentations(names): x = tfm(x, split_idx=split_idx)
    return x


@pytest.mark.parametrize('names', [*kinds, '+'.join(kinds)])
def test_a_batch_stays_a_batch_of_pictures(names):
    x = ring(64)
    before = x.clone()
    y = augment(names, x)
    assert type(y) is TensorImageBW and y.shape == x.shape and y.dtype == torch.float32
    assert y.min() >= 0 and y.max() <= 1.0001
    assert x.equal(before), 'the batch that was given has changed'
    assert augment(names, x, split_idx=1).equal(x)


@pytest.mark.parametrize('names', kinds)
def test_each_image_has_a_draw_of_its_own(names):
    y = augment(names, TensorImageBW(torch.rand(1, 1, 28, 28).repeat(100, 1, 1, 1))).flatten(1)
    assert len(torch.unique(y, dim=0)) > dict(erase=30, paper=75).get(names, 99)  # some are left alone


def test_the_seed_decides(digits):
    def first(seed):
        set_seed(seed, reproducible=True)
        return mnist_dls('digits', bs=64, batch_tfms=augmentations('+'.join(kinds))).one_batch()[0]
    assert first(3).equal(first(3)) and not first(3).equal(first(4))


def test_nothing_is_mirrored_or_upside_down():
    mats = affine_mats(5000, 10, .08, (.9, 1.1), 10)
    assert (torch.linalg.det(mats[:, :, :2]) > 0).all()  # a flip has a negative determinant
    assert (mats[:, 0, 0] > 0).all() and (mats[:, 1, 1] > 0).all()  # a half turn has negative ones


def test_the_ranges_are_kept_and_used():
    tfm = RandomAffine(rotate=0, translate=.25, scale=(1, 1), shear=0)
    dot = torch.zeros(4000, 1, 28, 28)
    dot[:, :, 13:15, 13:15] = 1
    rows = tfm(TensorImageBW(dot), split_idx=0).sum((1, 3))*torch.arange(28)
    moved = rows.sum(1)/4 - 13.5
    assert 6.5 < moved.max() < 7.01 and -7.01 < moved.min() < -6.5 and moved.mean().abs() < .3


def axis(x):
    "The direction of the ink of each image, in degrees from vertical, and how much ink there is"
    x = x[:, 0].as_subclass(torch.Tensor)
    at = torch.arange(28) - 13.5
    mass = x.sum((1, 2))
    cols, rows = at.expand(28, 28), at[:, None].expand(28, 28)
    def moment(a, b): return (x*a*b).sum((1, 2))/mass
    return (.5*torch.atan2(2*moment(cols, rows), moment(rows, rows) - moment(cols, cols))).rad2deg(), mass


def bars(n):
    x = torch.zeros(n, 1, 28, 28)
    x[:, :, 5:23, 12:16] = 1
    return TensorImageBW(x)


@pytest.mark.parametrize('kind', ['rotate', 'shear'])
def test_turning_and_slanting_use_their_range_and_keep_the_ink(kind):
    still = dict(rotate=0, translate=0, scale=(1, 1), shear=0)
    angles, mass = axis(RandomAffine(**{**still, kind: 20})(bars(1000), split_idx=0))
    assert 18 < angles.max() < 22 and -22 < angles.min() < -18 and angles.mean().abs() < 2
    assert mass.min() > .95*72 and mass.max() < 1.05*72


def test_shear_keeps_each_row_and_turning_does_not():
    still = dict(rotate=0, translate=0, scale=(1, 1), shear=0)
    def rows(**kind): return RandomAffine(**{**still, **kind})(bars(200), split_idx=0).sum((1, 3))
    assert (rows(shear=20) - rows()).abs().max() < .1 < (rows(rotate=20) - rows()).abs().max()


def test_scale_is_size():
    tfm = RandomAffine(rotate=0, translate=0, scale=(1.2, 1.2), shear=0)
    assert tfm(bars(1), split_idx=0).sum() == pytest.approx(72*1.2**2, rel=.05)


@pytest.mark.parametrize('p', [0., .3, 1.])
def test_erasing_meets_its_share_of_the_images(p):
    y = RandomErase(p=p)(TensorImageBW(torch.ones(3000, 1, 28, 28)), split_idx=0)
    assert (y.amin((1, 2, 3)) == 0).float().mean() == pytest.approx(p, abs=.05)


def test_erasing_takes_its_share():
    y = RandomErase(p=1., area=(.1, .1), aspect=1.)(TensorImageBW(torch.ones(3000, 1, 28, 28)), split_idx=0)
    gone = 1 - y.mean((1, 2, 3))
    assert gone.max() < .13 and .05 < gone.mean() < .1  # part of a rectangle may lie outside


def test_strokes_get_thicker_and_thinner_as_far_as_said():
    bar = torch.zeros(500, 1, 28, 28)
    bar[..., 12:16] = 1
    width = RandomStroke(thick=2, thin=1)(TensorImageBW(bar), split_idx=0)[:, 0, 14].sum(1)
    assert 5.8 < width.max() <= 6 and 3 <= width.min() < 3.2
    assert RandomStroke(thick=0, thin=0)(TensorImageBW(bar), split_idx=0).equal(bar)


def test_paper_meets_its_share_and_each_fault_its_strength():
    def faults(**kwargs):
        none = dict(blur=.01, contrast=0, shadow=0, grain=0)
        return RandomPaper(**(none | kwargs))(ring(1000), split_idx=0).as_subclass(torch.Tensor)[:, 0]
    ink, empty = ring()[0, 0] == 1, ring()[0, 0] == 0
    assert faults().allclose(ring(1000)[:, 0].as_subclass(torch.Tensor), atol=1e-6)
    faint = 1 - faults(contrast=.7).amax((1, 2))
    assert .6 < faint.max() <= .7 and .45 < (faint > .001).float().mean() < .55
    shadows = faults(shadow=.5)
    assert .4 < shadows[:, empty].max() <= .5 and shadows[:, ink].min() > .999
    grainy = faults(grain=.25, p=1)[:, ink].sub(1).abs().mean(1)  # half of it is cut off above 1
    assert .06 < grainy.max() < .2 and grainy.min() < .01
    blurred = faults(blur=1.2, p=1)
    assert (blurred.sum((1, 2))/ink.sum() - 1).abs().max() < .02 and blurred[:, ink].min() < .6


def test_elastic_moves_ink_and_keeps_it():
    y = RandomElastic(strength=.8)(ring(500), split_idx=0)
    assert y.sum((1, 2, 3)).mean() == pytest.approx(float(ring().sum()), rel=.05)
    assert (y - ring(500)).abs().mean() > .005


def test_other_sizes_and_channels_work():
    assert augment('+'.join(kinds), TensorImageBW(torch.rand(3, 3, 32, 20))).shape == (3, 3, 32, 20)


def test_augmentations_travel_with_an_exported_learner():
    for tfm in augmentations('+'.join(kinds)):
        tfm(ring(2), split_idx=0)
        assert pickle.loads(pickle.dumps(tfm))(ring(2), split_idx=0).shape == (2, 1, 28, 28)


@pytest.mark.parametrize('names', ['flip', 'affine,erase', '', 'affine+'])
def test_an_unknown_one_is_refused(names):
    with pytest.raises(ValueError, match='no augmentation .* expected none, or some of affine, elastic, erase'):
        augmentations(names)
