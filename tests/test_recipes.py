"""Recipes: what can be changed, and what is said when it cannot."""
from dataclasses import fields
from inspect import signature

import pytest
from fastcore.docments import docments
from torch import nn

from mnist_fastai.estimators import estimators
from mnist_fastai.learner import build_model
from mnist_fastai.models import archs
from mnist_fastai.recipes import Recipe, current_config, get_recipe, recipes
from mnist_fastai.train import make_config, train


def test_one_conv_is_two_conv_without_its_second_convolution():
    one, two = ([str(o) for o in archs[name]()] for name in ('one_conv', 'two_conv'))
    dense = [o for o in two if 'Linear(in_features=500' in o]
    assert [o for o in one if 'Linear(in_features=360' not in o] == [*two[:3], *[o for o in two[5:] if o not in dense]]
    same = {k: v for k, v in recipes['two_conv'].settings().items() if k != 'arch'}
    assert same == {k: v for k, v in recipes['one_conv'].settings().items() if k != 'arch'}
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


@pytest.mark.parametrize('args, message', [
    (dict(recipe='vgg'), "there is no recipe 'vgg': expected one of simple"),
    (dict(recipe='simple:speed=3'), "cannot read 'speed=3'"),
    (dict(recipe='simple:epochs'), "cannot read 'epochs'"),
    (dict(recipe='simple:name=two_conv'), "cannot read 'name=two_conv'"),
    (dict(recipe='simple:epochs=1.5'), "epochs='1.5' is not a valid int"),
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


def test_a_field_is_declared_once_and_known_everywhere():
    names = {o.name for o in fields(Recipe)} - {'about'}
    assert names <= set(signature(get_recipe).parameters) and names <= set(signature(train).parameters)
    assert names <= set(make_config('digits', 'simple', 1))
    helped = docments(train)
    assert helped['epochs'] == 'Passes over the training images' and all(helped[o] for o in names)
    with pytest.raises(TypeError, match="no field 'speed': expected one of arch"): get_recipe('simple', speed=3)


def test_the_old_word_for_a_field_is_still_read():
    assert get_recipe('strong:plain=1').no_aug_epochs == get_recipe('strong', plain=1).no_aug_epochs == 1
    old = {**make_config('digits', 'strong', 1), 'plain': 3}
    del old['no_aug_epochs'], old['width']  # as a run of before the width was a field
    assert current_config(old) == make_config('digits', 'strong', 1)
    assert current_config(dict(epochs=None))['width'] is None


def test_a_number_out_of_range_names_its_field():
    for change in ('epochs=0', 'bs=0', 'lr=0', 'wd=-1', 'ema=1', 'no_aug_epochs=-1', 'width=.01', 'width=20'):
        with pytest.raises(ValueError, match=f"{change.split('=')[0]}=.* is not possible: expected"):
            make_config('digits', f'simple:{change}', 1)
