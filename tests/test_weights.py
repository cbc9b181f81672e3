"""Weights without code: nothing but the right weights is read, and those of the package are good."""
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from conftest import only_full
from safetensors.torch import load_file, save_file

import mnist_fastai
from mnist_fastai.data.core import mnist_dls, mnist_test_dl
from mnist_fastai.learner import mnist_learner
from mnist_fastai.models import n_params
from mnist_fastai.weights import load_pretrained, load_weights

pretrained = Path(mnist_fastai.__file__).parent/'pretrained'
names = sorted(o.stem for o in pretrained.glob('*.safetensors'))


def test_other_weights_are_refused(bundle):
    files = [*bundle.values()]
    state = load_file(files[0])
    save_file({k: v + 1e-3 if v.is_floating_point() else v for k, v in state.items()}, files[0])
    with pytest.raises(ValueError, match='other weights'): load_weights(files[0])
    files[0].write_bytes(files[0].read_bytes()[:-100])
    with pytest.raises(ValueError, match='other weights'): load_weights(files[0])
    files[2].unlink()
    with pytest.raises(ValueError, match='cannot be loaded with a JSON'): load_weights(files[0])


def test_a_pickle_in_disguise_does_not_run(bundle, tmp_path):
    files = [*bundle.values()]
    class Bad:
        def __reduce__(self): return Path.touch, (tmp_path/'it ran',)

    about = json.loads(files[2].read_text())
    files[0].write_bytes(pickle.dumps(Bad()))
    for sha in ('0', hashlib.sha256(files[0].read_bytes()).hexdigest()):
        files[2].write_text(json.dumps(about | dict(sha256=sha)))
        with pytest.raises(ValueError): load_weights(files[0])
    for arch in ('os.system', ['simple_cnn'], None):
        files[2].write_text(json.dumps(about | dict(config=dict(arch=arch))))
        with pytest.raises(ValueError): load_weights(files[0])
    assert not (tmp_path/'it ran').exists()


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(ValueError, match="there is no pretrained network 'worst': expected one of .*best"):
        load_pretrained('worst')


def test_the_package_brings_three_small_networks():
    assert names == ['best', 'strong', 'tiny']
    assert sum(o.stat().st_size for o in pretrained.iterdir()) < 6e6


@pytest.fixture(scope='module')
def dls(digits): return mnist_dls(digits, bs=64)


@pytest.mark.parametrize('name', names)
def test_a_pretrained_network_reads_digits_it_has_never_seen(name, dls):
    model, session = load_pretrained(name), ort.InferenceSession(pretrained/f'{name}.onnx')
    learn = mnist_learner(dls, model)
    with learn.no_bar(): assert learn.validate()[1] > .9
    x = learn.dls.one_batch()[0].as_subclass(torch.Tensor)
    model.eval()
    with torch.no_grad(): known = model(x).numpy()
    np.testing.assert_allclose(session.run(['scores'], {'images': x.numpy()})[0], known, atol=1e-4)
    about = json.loads((pretrained/f'{name}.json').read_text())
    assert about['config']['recipe'] == name and about['config']['seed'] == 1
    assert about['metrics']['train_images'] == 60000 and about['metrics']['parameters'] == n_params(model)


@pytest.mark.mnist
@pytest.mark.parametrize('name', ['best', *(pytest.param(o, marks=only_full) for o in names if o != 'best')])
def test_a_pretrained_network_scores_on_mnist_what_its_json_says(name):
    about = json.loads((pretrained/f'{name}.json').read_text())
    learn = mnist_learner(mnist_dls('mnist'), load_pretrained(name))
    with learn.no_bar(): acc = learn.validate(dl=mnist_test_dl(learn.dls))[1]
    assert acc == pytest.approx(about['metrics']['test']['accuracy'], abs=1e-4)  # at most one image
