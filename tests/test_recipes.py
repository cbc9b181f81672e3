"""Recipes: which there are, and what can be changed."""
import pytest
import torch
from torch import nn

from mnist_fastai.estimators import estimators
from mnist_fastai.learner import OneHotCrossEntropy, build_model
from mnist_fastai.models import archs
from mnist_fastai.recipes import get_recipe, recipes
from mnist_fastai.train import make_config


def test_one_conv_is_trained_like_two_conv():
    same = {k: v for k, v in recipes['two_conv'].items() if k not in ('arch', 'about')}
    assert same == {k: v for k, v in recipes['one_conv'].items() if k not in ('arch', 'about')}
    assert (same['bs'], same['epochs']) == (32, 10)


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
