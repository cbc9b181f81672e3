"""Networks: parameters, sizes, multiply-adds, widths, and upright digits."""
import pytest
import torch
from fastai.layers import ConvLayer
from fastai.vision.core import TensorImageBW
from torch import nn

from mnist_fastai.augment import RandomAffine
from mnist_fastai.data.core import mnist_dls
from mnist_fastai.estimators import estimators
from mnist_fastai.learner import build_model
from mnist_fastai.models import Deskew, archs, layer_table, multiply_adds, n_params


parameters = dict(simple_cnn=108_922, two_conv=30_840, one_conv=18_820, classic_cnn=225_034, batchnorm_cnn=225_258,
                  conv_dense=693_962, mlp=109_386, fast_cnn=25_802, strong_cnn=237_946,
                  tiny_cnn=4_266, micro_cnn=697)


def test_every_network_has_its_count_and_is_sequential():
    assert {name: n_params(f()) for name, f in archs.items()} == parameters
    assert all(type(f()) is nn.Sequential for f in archs.values())


@pytest.mark.parametrize('name', archs)
def test_every_network_can_be_narrower_and_wider(name):
    sizes = [n_params(build_model(name, width)) for width in (.25, .5, 1, 2)]
    assert sizes == sorted(set(sizes)) and sizes[2] == parameters[name]
    for width in (.05, .5, 2): assert build_model(name, width).eval()(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize('name', archs)
def test_the_size_formula_agrees_with_the_tensors(name):
    rows = layer_table(archs[name]())
    checked = [r for r in rows if r['formula'] is not None]
    assert all(r['output'][1:] == (r['formula'], r['formula']) for r in checked)
    assert len(checked) == sum(isinstance(o, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, ConvLayer)) for o in archs[name]())
    assert rows[-1]['output'] == (10,)


def test_multiply_adds_are_those_that_pytorch_counts():
    from torch.utils.flop_counter import FlopCounterMode
    for arch in archs.values():
        with FlopCounterMode(display=False) as counter: (model := arch().eval())(torch.zeros(1, 1, 28, 28))
        assert 2*multiply_adds(model) == counter.get_total_flops()


def test_multiply_adds_are_those_of_the_textbook():
    conv1, conv2 = 10*26*26*25, 20*11*11*10*25
    assert multiply_adds(archs['two_conv']()) == conv1 + conv2 + 500*50 + 50*10
    assert multiply_adds(archs['mlp']()) == 784*128 + 128*64 + 64*10


def test_counting_leaves_the_network_as_it_was():
    model = archs['batchnorm_cnn']().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    multiply_adds(model), layer_table(model)
    assert model.training and all(v.equal(before[k]) for k, v in model.state_dict().items())


def test_one_conv_is_two_conv_without_its_second_convolution():
    one, two = ([str(o) for o in archs[name]()] for name in ('one_conv', 'two_conv'))
    dense = [o for o in two if 'Linear(in_features=500' in o]
    assert [o for o in one if 'Linear(in_features=360' not in o] == [*two[:3], *[o for o in two[5:] if o not in dense]]


def lean(x):
    "Covariance of the ink's row and column, in pixels^2"
    ink, at = x[:, 0], torch.arange(28.)
    total = ink.sum((1, 2))
    down, right = (ink.sum(2)@at)/total, (ink.sum(1)@at)/total
    return torch.einsum('nhw,h,w->n', ink, at, at)/total - down*right, down, right


def test_deskewed_digits_stand_upright_in_the_middle(digits):
    images, rows, _ = mnist_dls(digits).valid.store()
    x = images[rows, None].float()/255
    for moved in (x, RandomAffine(rotate=0, translate=.1, scale=(1, 1), shear=25)(TensorImageBW(x), split_idx=0)):
        moved = moved.as_subclass(torch.Tensor)
        before, after = lean(moved), lean(Deskew()(moved))
        assert after[0].abs().mean() < .1*before[0].abs().mean()
        assert (after[1] - 13.5).abs().max() < 1 and (after[2] - 13.5).abs().max() < 1


def test_deskew_knows_no_range_and_survives_an_empty_page(digits):
    images, rows, _ = mnist_dls(digits).valid.store()
    x = images[rows[:50], None].float()/255
    torch.testing.assert_close(Deskew()((x - .1307)/.3081), (Deskew()(x) - .1307)/.3081, rtol=1e-4, atol=1e-4)
    for page in (torch.zeros(2, 1, 28, 28), torch.ones(2, 1, 28, 28)): assert Deskew()(page).equal(page)
    assert n_params(Deskew()) == 0


@pytest.mark.parametrize('name', estimators)
def test_a_fitted_method_gives_scores_like_a_network_and_counts_what_it_keeps(name):
    x, y = torch.rand(60, 1, 28, 28), torch.arange(60) % 10
    model = estimators[name]()
    assert n_params(model) == 0
    scores = model.fit(x, y)(x)
    assert scores.shape == (60, 10) and scores.dtype == torch.float32
    assert scores.argmax(1).tolist() == model.estimator.predict(x.flatten(1).numpy()).tolist()
    assert n_params(model) == multiply_adds(model) > 7000


@pytest.mark.fault('bad data')
def test_a_fitted_method_needs_all_ten_digits():
    with pytest.raises(ValueError, match='only 9 digits have training images'):
        estimators['knn']().fit(torch.rand(60, 1, 28, 28), torch.arange(60) % 9)
