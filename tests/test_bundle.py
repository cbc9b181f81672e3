"""A model by its name: every form of it gives the same answers, and none runs code that was not trusted."""
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_command
from fastai.learner import load_learner
from known_pages import drawn

from mnist_fastai.bundle import load_model, resolve_model
from mnist_fastai.export import export_weights
from mnist_fastai.inference import Predictor, read_digits
from mnist_fastai.weights import load_weights


@pytest.fixture(scope='module')
def run(exported): return exported[0]


def test_every_form_says_what_the_learner_says(bundle, run):
    x = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        known = load_learner(run/'learner.pkl').model.eval()(x).numpy()
        np.testing.assert_allclose(load_weights(bundle['.safetensors'])(x).numpy(), known, atol=1e-5)
    for suffix, trust in (('.onnx', False), ('.pkl', True)):
        np.testing.assert_allclose(Predictor(bundle[suffix], trust=trust).scores(x.numpy()), known, atol=1e-5)


def test_a_pickle_is_read_in_a_process_that_knows_nothing_of_it(bundle, tmp_path):
    np.save(tmp_path/'x.npy', x := np.random.default_rng(0).normal(size=(5, 1, 28, 28)).astype(np.float32))
    code = f"""
import numpy as np
from mnist_fastai.inference import Predictor
np.save('y.npy', Predictor({str(bundle['.pkl'])!r}, trust=True).scores(np.load('x.npy')))"""
    done = run_command('python', code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path/'y.npy'), Predictor(bundle['.onnx']).scores(x), atol=1e-5)


def test_a_run_is_read_from_its_folder_and_from_any_of_its_files(run, bundle):
    image = drawn(5)
    probs = Predictor(run).predict(image).probs
    for o in ('.onnx', '.safetensors', '.json', '.md'):
        np.testing.assert_allclose(Predictor(bundle[o]).predict(image).probs, probs, atol=1e-6)


def test_a_network_comes_with_what_is_known_about_it(bundle, run):
    for model in (run, bundle['.safetensors'], bundle['.onnx'], bundle['.json']):
        name, network, about = load_model(model)
        assert name == ('run' if model == run else 'mine') and about['config']['seed'] == 3
        assert sum(o.numel() for o in network.parameters()) == about['metrics']['parameters']
    assert load_model('tiny')[2]['config']['recipe'] == 'tiny'
    with pytest.raises(FileNotFoundError, match="there is no model 'vgg': expected best"): load_model('vgg')


def test_what_is_not_a_model_is_named(tmp_path):
    (tmp_path/'note.txt').write_text('hello')
    with pytest.raises(ValueError, match="note.txt' is not a model: expected"): resolve_model(tmp_path/'note.txt')
    with pytest.raises(ValueError, match='has no weights to predict with'): resolve_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="'vgg': expected best, strong, tiny"): resolve_model('vgg')


def test_no_default_path_runs_a_pickle(run, bundle, tmp_path, monkeypatch):
    class Bad:
        def __reduce__(self): return Path.touch, (tmp_path/'it ran',)

    bad = pickle.dumps(Bad())
    (tmp_path/'bad.pkl').write_bytes(bad)
    with pytest.raises(ValueError, match='can run any code.*--trust'): Predictor(tmp_path/'bad.pkl')
    monkeypatch.chdir(tmp_path)
    for name in ('bad.onnx', 'bad.safetensors', 'bad.json'):
        (tmp_path/name).write_bytes(bad)
        with pytest.raises((ValueError, FileNotFoundError)): Predictor(tmp_path/name)
    for suffix in ('.onnx', '.safetensors'):
        bundle[suffix].write_bytes(bad)
        about = json.loads(bundle['.json'].read_text())
        key = 'onnx_sha256' if suffix == '.onnx' else 'sha256'
        bundle['.json'].write_text(json.dumps(about | {key: hashlib.sha256(bad).hexdigest()}))
    with pytest.raises(ValueError): Predictor(bundle['.onnx'])
    (run/'learner.pkl').rename(tmp_path/'good.pkl')
    try:
        (run/'learner.pkl').write_bytes(bad)
        assert Predictor(run).predict(drawn(1)).prob > 0
        export_weights(run, tmp_path/'again')
        with pytest.raises(ValueError): read_digits(drawn(1), run/'learner.pkl')
    finally: (tmp_path/'good.pkl').replace(run/'learner.pkl')
    assert not (tmp_path/'it ran').exists()
    with pytest.raises(ValueError): Predictor(tmp_path/'bad.pkl', trust=True)  # it is no learner, but it was trusted
    assert (tmp_path/'it ran').exists()
