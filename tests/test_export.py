"""What is exported is what was trained, with where it comes from and what it is worth."""
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from fastai.learner import load_learner

from mnist_fastai.export import calibrate, export_weights
from mnist_fastai.models import n_params
from mnist_fastai.train import train
from mnist_fastai.weights import load_weights


@pytest.fixture(scope='module')
def run(exported): return exported[0]


@pytest.fixture(scope='module')
def files(exported): return exported[1]


def scores(model, x):
    with torch.no_grad(): return model(x).numpy()


def test_weights_and_onnx_say_what_the_learner_says(run, files):
    assert [o.name for o in files] == ['mine.safetensors', 'mine.onnx', 'mine.json', 'mine.md', 'mine.pkl']
    model, session = load_weights(files[0]), ort.InferenceSession(files[1])
    for n in (1, 7):
        x = torch.randn(n, 1, 28, 28)
        expected = scores(load_learner(run/'learner.pkl').model.eval(), x)
        np.testing.assert_allclose(scores(model, x), expected, atol=1e-5)
        np.testing.assert_allclose(session.run(['scores'], {'images': x.numpy()})[0], expected, atol=1e-5)


def test_the_weights_of_a_wider_network_are_read_as_one(digits, tmp_path):
    run = train('digits', 'mlp:epochs=1', width=1.5, out=tmp_path/'run')
    files = export_weights(run.path, tmp_path/'wide')
    assert n_params(load_weights(files[0])) == n_params(run.learn.model) == run.metrics['parameters'] > 150_000
    assert '--width 1.5' in json.loads(files[2].read_text())['command']


def test_the_json_says_where_the_weights_are_from(run, files):
    about = json.loads(files[2].read_text())
    assert about['sha256'] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert about['config']['recipe'] == 'simple' and about['config']['seed'] == 3
    assert about['metrics'] == json.loads((run/'metrics.json').read_text())
    assert about['command'] == 'mnist-train --data digits --recipe simple --epochs 2 --seed 3'
    assert len(about['data']['sha256']) == 64
    assert about['onnx_sha256'] == hashlib.sha256(files[1].read_bytes()).hexdigest()
    assert 'torch' in about['environment']['packages'] and str(Path.home()) not in files[2].read_text()
    assert b'site-packages' not in files[1].read_bytes()


def test_the_card_says_how_good_it_is_and_whose_data_it_knows(run, files):
    card, metrics = files[3].read_text(), json.loads((run/'metrics.json').read_text())
    low, high = metrics['test']['interval']
    assert f"{metrics['test']['accuracy']:.2%} (95% interval {100*low:.2f} to {100*high:.2f}, 360 digits)" in card
    assert 'CC BY 4.0' in card and 'mnist-train --data digits' in card and 'What it cannot do' in card


def test_a_temperature_makes_probabilities_honest(tmp_path):
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(0, 2, (20_000, 10)))
    labels = torch.multinomial(scores.softmax(1), 1)[:, 0].numpy()  # so these probabilities are right
    for factor in (.5, 1, 3):
        np.savez(tmp_path/'predictions.npz', valid_scores=scores*factor, valid_labels=labels)
        found = calibrate(tmp_path)
        assert found['temperature'] == pytest.approx(factor, rel=.05)
        energy = -torch.logsumexp(scores*factor/found['temperature'], 1)
        assert (energy <= found['energy_limit']).double().mean() == pytest.approx(.99, abs=.001)
    np.savez(tmp_path/'predictions.npz', valid_scores=scores[:0], valid_labels=labels[:0])
    assert calibrate(tmp_path) == dict(temperature=1, energy_limit=None)


def test_a_run_that_was_chosen_on_validation_is_named_and_is_of_the_same_recipe(run, digits, tmp_path):
    final = train('digits', epochs=2, seed=1, valid_size=0, out=tmp_path/'final').path
    about = json.loads(export_weights(final, tmp_path/'final', run)[2].read_text())
    assert about['metrics']['valid'] is None
    assert about['chosen']['valid'] == json.loads((run/'metrics.json').read_text())['valid']
    shutil.copytree(run, other := tmp_path/'other')
    config = json.loads((other/'config.json').read_text())
    (other/'config.json').write_text(json.dumps(config | dict(epochs=1)))
    with pytest.raises(ValueError, match='another recipe'): export_weights(final, tmp_path/'no', other)
    assert not list(tmp_path.glob('no*'))


def test_an_estimator_has_no_weights(digits, tmp_path):
    path = train('digits', 'linear', out=tmp_path/'run').path
    with pytest.raises(ValueError, match='no weights'): export_weights(path)
    assert not list(path.glob('weights*'))
