"""Stress: what happens to the images, and what it says of a model."""
import numpy as np
import pytest
import torch
from fastai.torch_core import set_seed

from mnist_fastai.data.core import mnist_dls
from mnist_fastai.stress import plot_stress, stress, stress_accuracy, stress_kinds
from mnist_fastai.learner import mnist_learner


@pytest.fixture(scope='module')
def images():
    "An upright bar, 4 wide and 16 high, in the middle, 200 times"
    x = torch.zeros(200, 28, 28, dtype=torch.uint8)
    x[:, 6:22, 12:16] = 255
    return x


def ink(x): return x.float().sum((1, 2))/255
def centre(x, axis): return (x.float().sum(3 - axis)*torch.arange(28)).sum(1)/x.float().sum((1, 2))
def width(x): return ink(x)/(x.amax(2) > 127).sum(1)


def lean(x):
    "Degrees between the line through the centres of the rows and upright"
    rows, cols = torch.arange(8, 20.), torch.arange(28.)
    centres = (x[:, 8:20].float()*cols).sum(2)/x[:, 8:20].float().sum(2)
    slope = ((centres - centres.mean(1, keepdim=True))*(rows - rows.mean())).sum(1)/(rows - rows.mean()).square().sum()
    return slope.atan().rad2deg()


@pytest.mark.parametrize('kind, most', [('shear', 30), ('rotate', 20)])
def test_digits_lean_to_both_sides_as_far_as_said(kind, most, images):
    angles = lean(stress(images, kind))
    assert .85*most < angles.max() < 1.05*most and -1.05*most < angles.min() < -.85*most


def test_strokes_get_thinner_and_thicker(images):
    thin, thick = (width(stress(images, kind))[0].item() for kind in ('thin', 'thick'))
    assert thin == pytest.approx(3, abs=.5) and thick == pytest.approx(6, abs=.7)


def test_digits_change_in_size_and_place(images):
    area = ink(stress(images, 'scale'))/64
    assert .7**2*.95 < area.min() < .6 and 1.3 < area.max() < 1.2**2*1.05
    shifted = stress(images, 'shift')
    for axis in (1, 2):
        moved = centre(shifted, axis) - centre(images, axis)
        assert 3.7 < moved.max() < 4.1 and -4.1 < moved.min() < -3.7


def test_pictures_get_worse_and_digits_stay(images):
    inside, outside = images[0] == 255, images[0] == 0
    noisy, faint, paper, blurred = (stress(images, k).float()/255 for k in ('noise', 'contrast', 'background', 'blur'))
    assert noisy[:, inside].std() > .05 and noisy[:, outside].std() > .05
    assert .3 < faint.amax((1, 2)).min() < .4 and .9 < faint.amax((1, 2)).max() <= 1 and faint[:, outside].max() == 0
    assert paper[:, inside].min() == 1 and .25 < paper[:, outside].max() < .7
    assert abs(float(blurred.sum()/(images/255).sum()) - 1) < .01 and (blurred.diff(dim=2).abs().max() < .6)
    squeezed = stress(images, 'jpeg')
    assert 0 < (squeezed.float() - images).abs().max() < 150 and len(squeezed.flatten(1).unique(dim=0)) > 10


@pytest.mark.parametrize('kind', stress_kinds)
def test_stress_is_the_same_every_time_and_leaves_your_random_numbers(kind, images):
    before, state = images.clone(), torch.get_rng_state()
    one, two = stress(images, kind), stress(images, kind)
    assert one.equal(two) and torch.get_rng_state().equal(state) and images.equal(before)
    assert one.dtype == torch.uint8 and one.shape == images.shape and not one.equal(images)
    if kind not in ('thin', 'thick', 'blur'): assert not stress(images, kind, seed=1).equal(one)
    assert stress(images[:0], kind).shape == (0, 28, 28)


def test_an_unknown_kind_is_refused(images):
    with pytest.raises(ValueError, match="there is no kind of stress 'flip': expected one of shear, rotate"):
        stress(images, 'flip')


def test_a_model_is_scored_on_each_kind_by_its_own_transforms(digits):
    set_seed(1)
    learn = mnist_learner(mnist_dls(digits, bs=64), 'fast_cnn')
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(4, .01)
    images, rows, (labels,) = learn.dls.valid.store()
    found = stress_accuracy(learn)
    assert set(found.kinds) == set(stress_kinds) and found.worst == min(found.kinds, key=found.kinds.get)
    assert found.mean == pytest.approx(np.mean([*found.kinds.values()]))
    assert found.clean == pytest.approx(float(learn.validate()[1])) and found.clean > found.mean
    x = (stress(images[rows], 'rotate')[:, None].float()/255 - .1307)/.3081
    with torch.no_grad(): by_hand = (learn.model.eval()(x).argmax(1) == labels).float().mean()
    assert found.kinds['rotate'] == pytest.approx(float(by_hand))
    assert learn.dls.valid.store()[0] is images  # the validation images are what they were


def test_without_validation_images_there_is_nothing_to_stress(digits):
    learn = mnist_learner(mnist_dls(digits, valid_size=0), 'fast_cnn')
    with pytest.raises(ValueError, match='no validation images: expected valid_size > 0'): stress_accuracy(learn)


def test_the_plot_has_a_row_for_each_kind(images):
    fig = plot_stress(images[:5])
    assert [ax.get_ylabel() for ax in fig.axes] == ['clean', *stress_kinds]
    assert all(ax.images[0].get_array().shape == (28, 140) for ax in fig.axes)
