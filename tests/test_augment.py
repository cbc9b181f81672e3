"""Augmentation: each digit on its own, repeatable, training only, and still digits."""
import pickle

import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.core import TensorImageBW

from mnist_fastai.augment import RandomAffine, RandomElastic, RandomErase, affine_mats, augmentations
from mnist_fastai.data import mnist_dls

kinds = ['affine', 'elastic', 'erase']


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
    assert len(torch.unique(y, dim=0)) > (30 if names == 'erase' else 99)  # half of them are not erased


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


def test_scale_and_shear_do_what_they_say():
    still = dict(rotate=0, translate=0, scale=(1, 1), shear=0)
    square = torch.zeros(1, 1, 28, 28)
    square[:, :, 10:18, 10:18] = 1
    def out(**kind): return RandomAffine(**{**still, **kind})(TensorImageBW(square), split_idx=0)
    assert out(scale=(1.5, 1.5)).sum() == pytest.approx(64*1.5**2, rel=.05)
    assert out(shear=20).sum() == pytest.approx(64, rel=.05)


def test_erasing_takes_its_share():
    y = RandomErase(p=1., area=(.1, .1), aspect=1.)(TensorImageBW(torch.ones(3000, 1, 28, 28)), split_idx=0)
    gone = 1 - y.mean((1, 2, 3))
    assert gone.max() < .13 and .05 < gone.mean() < .1  # part of a rectangle may lie outside


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
