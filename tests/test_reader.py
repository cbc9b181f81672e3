"""Networks that read digits: a file that is not one of ours is refused."""
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mnist_fastai.inference import Predictor
from mnist_fastai.reader import Network, packaged


def with_metadata(file, **changes):
    "The same network, with other metadata and without a JSON"
    model = onnx.load(file)
    known = {o.key: o.value for o in model.metadata_props} | changes
    del model.metadata_props[:]
    helper.set_model_props(model, {k: str(v) for k, v in known.items() if v is not None})
    alone(file, model.SerializeToString())


def other(file, inputs, weights):
    "A network that takes and gives something else"
    def info(name, shape): return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    nodes = [helper.make_node('Flatten', ['images'], ['flat']), helper.make_node('MatMul', ['flat', 'w'], ['scores'])]
    w = helper.make_tensor('w', TensorProto.FLOAT, weights, np.zeros(weights, np.float32).ravel())
    graph = helper.make_graph(nodes, 'other', [info('images', inputs)], [info('scores', ['n', weights[1]])], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, dict(mean='.1', std='.3', temperature='1'))
    alone(file, model.SerializeToString())


def alone(file, content):
    file.write_bytes(content)
    file.with_suffix('.json').unlink()


refused = {
    'another':           (lambda b: b.write_bytes(b.read_bytes() + b' '), 'is not the file that its JSON is about'),
    'truncated':         (lambda b: b.write_bytes(b.read_bytes()[:5000]), 'is not the file that its JSON is about'),
    'seven classes':     (lambda b: other(b, ['n', 1, 28, 28], (784, 7)), 'n x 10 scores'),
    'a flat input':      (lambda b: other(b, ['n', 28], (28, 10)), 'n x 10 scores'),
    'no limit':          (lambda b: with_metadata(b, energy_limit='nan'), 'metadata that makes no sense'),
    'no metadata':       (lambda b: with_metadata(b, temperature=None), 'is not a model from mnist-export'),
    'odd metadata':      (lambda b: with_metadata(b, std=0.), 'metadata that makes no sense'),
    'NaN in metadata':   (lambda b: with_metadata(b, mean=float('nan')), 'metadata that makes no sense'),
    'no model':          (lambda b: alone(b, b'hello'), 'is not a model from mnist-export'),
    'nothing':           (lambda b: alone(b, b''), 'is not a model from mnist-export'),
    'a broken JSON':     (lambda b: b.with_suffix('.json').write_text('{'), 'is damaged'),
    'a JSON of nothing': (lambda b: b.with_suffix('.json').write_text('[]'), 'is damaged')}


@pytest.mark.parametrize('what', refused)
def test_what_is_not_a_bundle_of_ours_is_refused(what, bundle):
    spoil, said = refused[what]
    spoil(bundle['.onnx'])
    with pytest.raises(ValueError, match=said) as e: Network(bundle['.onnx'])
    assert '\n' not in str(e.value)


def test_a_network_that_takes_and_gives_what_ours_do_is_read(bundle):
    other(bundle['.onnx'], ['n', 1, 28, 28], (784, 10))
    np.testing.assert_allclose(Network(bundle['.onnx']).probs(np.zeros((3, 28, 28))), .1)


def test_probabilities_are_of_ten_digits_and_none_are_of_no_images():
    tiny = Network('tiny')
    assert tiny.probs(np.zeros((0, 28, 28))).shape == (0, 10)
    np.testing.assert_allclose(tiny.probs(np.zeros((600, 28, 28))).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize('name', packaged)
def test_the_temperature_is_that_of_the_json(name):
    known = json.loads(packaged[name].with_suffix('.json').read_text())['use']
    assert Network(name).numbers == pytest.approx(known)


@pytest.mark.fault('hostile or damaged files')
@pytest.mark.parametrize('key, value', [('std', '1e-320'), ('temperature', '1e-45'), ('mean', '1e300')])
def test_numbers_that_make_scores_meaningless_are_refused(key, value, tmp_path):
    model = onnx.load(packaged['tiny'])
    for prop in model.metadata_props:
        if prop.key == key: prop.value = value
    onnx.save(model, tmp_path/'a.onnx')
    with pytest.raises(ValueError, match='not a number|makes no sense'):
        Network(tmp_path/'a.onnx').probs(np.zeros((1, 28, 28), np.uint8) + np.eye(28, dtype=np.uint8)*200)


@pytest.mark.fault('hostile or damaged files')
def test_weights_that_are_not_numbers_answer_nothing(tmp_path):
    model = onnx.load(packaged['tiny'])
    weights = max(model.graph.initializer, key=lambda o: len(o.raw_data))
    weights.raw_data = np.full(len(weights.raw_data)//4, np.nan, np.float32).tobytes()
    onnx.save(model, tmp_path/'a.onnx')
    with pytest.raises(ValueError, match='not a number'):
        Predictor(tmp_path/'a.onnx').predict_batch([np.eye(28, dtype=np.uint8)*200])
