"""A learner that was exported before modules were split still loads: the names in its pickle still resolve."""
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_fastai.data.sources import digits_arrays
from mnist_fastai.runs import load_run

names = {'mnist_fastai.data': ['DigitDL', 'training_files', 'image_files', 'stratified_splitter'],
         'mnist_fastai.learner': ['FusedAdam', 'OneHotCrossEntropy'],
         'mnist_fastai.models': ['Deskew', 'Estimator'],
         'mnist_fastai.augment': ['RandomAffine', 'RandomElastic', 'RandomErase', 'RandomPaper', 'RandomStroke']}


@pytest.mark.parametrize('module, name', [(module, name) for module in names for name in names[module]])
def test_a_name_in_an_old_pickle_is_found(module, name):
    assert pickle.loads(f'c{module}\n{name}\n.'.encode()).__name__ == name


def test_a_name_that_never_was_is_an_attribute_error():
    import mnist_fastai.data
    import mnist_fastai.models
    for module in (mnist_fastai.data, mnist_fastai.models): assert not hasattr(module, 'never_was')


def test_looking_for_old_names_costs_nothing_until_one_is_asked_for():
    code = 'import sys, mnist_fastai.data; assert not {"torch", "fastai"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason='fastai pickles bytecode, here that of Python 3.11')
def test_a_learner_of_before_the_split_loads_and_predicts_the_same():
    learn = load_run(Path(__file__).with_name('learner_before_the_split.pkl'))
    with learn.no_bar(): probs, _ = learn.get_preds(dl=learn.dls.test_dl([*digits_arrays()[0][:10]]))
    assert probs.argmax(1).tolist() == [0, 1, 2, 3, 4, 3, 6, 7, 8, 9]
    expected = torch.tensor([.9648, .9049, .9351, .9494, .9952, .5588, .9514, .9961, .9643, .9653])
    torch.testing.assert_close(probs.amax(1), expected, atol=2e-4, rtol=0)
