"""Networks and recipes: shapes, sizes, formulas, and what can be changed."""
import pytest
import torch
from fastai.layers import ConvLayer
from fastai.vision.core import TensorImageBW
from torch import nn

from mnist_fastai.augment import RandomAffine
from mnist_fastai.data.core import mnist_dls
from mnist_fastai.learner import OneHotCrossEntropy, build_model
from mnist_fastai.estimators import estimators
from mnist_fastai.models import Deskew, archs, layer_table, multiply_adds, n_params
from mnist_fastai.recipes import get_recipe, recipes
from mnist_fastai.train import make_config

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
    same = {k: v for k, v in recipes['two_conv'].items() if k not in ('arch', 'about')}
    assert same == {k: v for k, v in recipes['one_conv'].items() if k not in ('arch', 'about')}
    assert (same['bs'], same['epochs']) == (32, 10)


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


def test_all_recipes_of_the_issue_are_there():
    assert set(recipes) >= {'simple', 'two_conv', 'one_conv', 'classic_cnn', 'mlp', 'batchnorm_aug', 'conv_dense',
                            'linear', 'knn', 'svm'}
    for name, r in recipes.items():
        assert r.about and make_config('digits', name, 1).arch == r.arch
        assert (r.arch in archs) == (r.epochs is not None) and (r.arch in estimators) == (r.epochs is None)
    r = recipes['batchnorm_aug']
    first, *rest = build_model(r.arch)
    assert (first.out_channels, first.kernel_size) == (32, (3, 3)) and (r.loss, r.augment) == ('one_hot', 'affine')
    assert sum(isinstance(o, (nn.BatchNorm2d, nn.BatchNorm1d)) for o in rest) == 3


def test_one_hot_targets_give_the_same_loss_and_the_same_gradients():
    x, y = torch.randn(50, 10, dtype=torch.float64, requires_grad=True), torch.randint(10, (50,))
    losses = nn.CrossEntropyLoss()(x, y), OneHotCrossEntropy()(x, y)
    found = [(loss, torch.autograd.grad(loss, x)[0]) for loss in losses]
    (a, da), (b, db) = found
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(da, db)


@pytest.mark.parametrize('args, message', [
    (dict(recipe='vgg'), "there is no recipe 'vgg': expected one of simple"),
    (dict(recipe='simple:speed=3'), "cannot read 'speed=3'"),
    (dict(recipe='simple:epochs'), "cannot read 'epochs'"),
    (dict(recipe='simple:name=two_conv'), "cannot read 'name=two_conv'"),
    (dict(recipe='simple:epochs=1.5'), "epochs='1.5' is no int"),
    (dict(recipe='simple:epochs=0'), 'epochs=0 is not possible'),
    (dict(recipe='knn:lr=1'), 'knn is fitted in one piece: it has no lr'),
    (dict(recipe='knn:arch=two_conv'), "there is no network 'two_conv': expected one of linear, knn, svm"),
    (dict(recipe='simple', arch='svm'), "there is no network 'svm'"),
    (dict(recipe='simple', opt='lion'), "there is no optimizer 'lion': expected one of adam, sgd"),
    (dict(recipe='simple', schedule='step'), "there is no schedule 'step': expected one of one_cycle, flat, flat_cos"),
    (dict(recipe='simple', pixels='inv'), "there is no range of pixels 'inv': expected one of standardized, raw"),
    (dict(recipe='simple', loss='mse'), "there is no loss 'mse': expected one of class_index, one_hot"),
    (dict(recipe='simple', augment='flip'), "there is no augmentation 'flip'"),
])
def test_what_is_not_possible_is_said(args, message):
    with pytest.raises(ValueError) as e: make_config('digits', args.pop('recipe'), 1, **args)
    assert message in str(e.value)


def test_a_parameter_wins_over_the_name_and_the_name_over_the_recipe():
    assert get_recipe('one_conv:epochs=30').epochs == 30
    assert get_recipe('one_conv:epochs=30', epochs=7).epochs == 7
    assert recipes['one_conv'].epochs == 10
