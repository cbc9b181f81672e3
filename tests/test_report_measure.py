"""What a report says of a model is what the model does, and a stranger's files are checked before they are used."""
import json
import os
import shutil

import numpy as np
import pytest
from conftest import only_full
from PIL import Image
from scipy.special import softmax

from mnist_fastai.reader import packaged
from mnist_fastai.report.measure import calibration, measure_model, open_images, open_model, paired_counts
from mnist_fastai.runs import load_predictions
from mnist_fastai.train import train
from mnist_fastai.utils import read_json


def measure(model, data='digits'):
    with open_images(data) as images: return measure_model(open_model(model, trust=False), *images)


@pytest.fixture(scope='module')
def run(trained): return measure(trained[0])


@pytest.fixture(scope='module')
def tiny(): return measure('tiny')


def test_it_says_what_the_run_said(run, trained):
    scores, labels = load_predictions(trained[0])
    facts, metrics = run.facts, read_json(trained[0]/'metrics.json')
    preds = scores.argmax(1)
    assert facts['accuracy'] == metrics['test'] and facts['parameters'] == metrics['parameters']
    assert np.array(facts['confusion'])[3, 3] == ((labels == 3) & (preds == 3)).sum()
    eight = facts['by_digit'][8]
    assert eight['images'] == (labels == 8).sum()
    assert eight['recall'] == pytest.approx(((labels == 8) & (preds == 8)).sum()/eight['images'], abs=1e-6)
    assert eight['precision'] == pytest.approx(((labels == 8) & (preds == 8)).sum()/(preds == 8).sum(), abs=1e-6)
    assert sum(n for _, _, n in facts['confused']) == len(facts['mistakes']) == (preds != labels).sum() > 0
    worst = facts['mistakes'][0]
    wrong, probs = np.flatnonzero(preds != labels), softmax(scores/facts['temperature'], 1)
    i = max(wrong, key=lambda i: -np.log(softmax(scores, 1)[i, labels[i]]))
    assert worst['label'] == labels[i] and worst['predicted'] == preds[i]
    assert worst['probabilities'] == pytest.approx(probs[i].tolist(), abs=1e-4)
    assert facts['stress']['kinds'][facts['stress']['worst']] == min(facts['stress']['kinds'].values())


def test_two_models_are_told_apart_image_by_image(run, tiny):
    counts, a, b = paired_counts(run, tiny), run.facts, tiny.facts
    assert counts['both'] + counts['only_a'] == a['accuracy']['correct']
    assert counts['both'] + counts['only_b'] == b['accuracy']['correct']
    assert counts['both'] + counts['only_a'] + counts['only_b'] + counts['neither'] == 360
    wrong_a, wrong_b = ({mistake['file'] for mistake in facts['mistakes']} for facts in (a, b))
    assert counts['only_a'] == len(wrong_b - wrong_a) and counts['only_b'] == len(wrong_a - wrong_b)
    assert paired_counts(tiny, tiny) == dict(only_a=0, only_b=0, both=b['accuracy']['correct'], neither=len(wrong_b),
                                             neither_and_differ=0, p=1)


def test_each_model_gets_pixels_in_its_own_range_and_no_validation_images_are_needed(tmp_path):
    trained = train('digits', 'mlp', epochs=1, pixels='raw', valid_size=0, out=tmp_path/'raw').path
    facts = measure(trained).facts
    assert facts['accuracy'] == read_json(trained/'metrics.json')['test'] and facts['temperature'] == 1


def test_a_packaged_network_reads_digits_that_it_has_never_seen(tiny): assert tiny.facts['accuracy']['accuracy'] > .9


def test_odd_things_in_a_folder_of_pictures(tmp_path, digits):
    folder = tmp_path/os.fsdecode(b'\xff')
    for digit in '18':
        (folder/digit).mkdir(parents=True)
        for file in sorted((digits/'testing'/digit).iterdir())[:2]: shutil.copy(file, folder/digit)
    (folder/'.ipynb_checkpoints').mkdir()
    (folder/'1'/'gone.png').symlink_to('nowhere')
    Image.new('L', (50, 50), 255).save(os.fsencode(folder/'1')+b'/\xff.png')
    with open_images(folder) as (_, images, unread):
        assert len([*images.glob('*/*.png')]) == 4 and [*unread] == ['1/gone.png', '1/?.png']
    assert not images.exists()
    (folder/'a').mkdir()
    with pytest.raises(ValueError, match="has a folder 'a', which is not a digit"), open_images(folder): pass


def changed_tiny(folder, key, value):
    "A copy of a packaged network, whose JSON says something else"
    for suffix in ('safetensors', 'json'): shutil.copy(packaged['tiny'].with_suffix(f'.{suffix}'), folder)
    about = read_json(folder/'tiny.json')
    about[key] = about[key] | value if isinstance(value, dict) else value
    (folder/'tiny.json').write_text(json.dumps(about))
    return folder/'tiny.json'


hostile = {'temperature': ('use', dict(temperature=-1.)), 'nan': ('use', dict(temperature=float('nan'))),
           'text': ('use', dict(temperature='warm')), 'pixels': ('config', dict(pixels='neon')),
           'width': ('config', dict(width=1e6)), 'arch': ('config', dict(arch='__import__')),
           'environment': ('environment', [1]), 'score': ('metrics', dict(test='99%')), 'command': ('command', None)}


@pytest.mark.parametrize('name', hostile)
def test_a_bundle_from_a_stranger_is_looked_at_before_it_is_used(name, tmp_path):
    with pytest.raises(ValueError, match='tiny'): open_model(changed_tiny(tmp_path, *hostile[name]), trust=False)


def test_damaged_files_are_named(tmp_path, trained):
    run = shutil.copytree(trained[0], tmp_path/'run')
    for name, content in (('config.json', '{"arch": "simple_cnn"}'), ('metrics.json', '[]'),
                          ('weights.safetensors', 'no weights'), ('predictions.npz', '')):
        before = (run/name).read_bytes()
        (run/name).write_text(content)
        with pytest.raises(ValueError, match='damaged'): open_model(run, trust=False)
        (run/name).write_bytes(before)
    open_model(run, trust=False)


def test_calibration_is_the_difference_between_sure_and_right():
    rng = np.random.default_rng(1)
    conf = rng.uniform(.55, 1, 20_000)
    labels = np.where(rng.random(20_000) < conf, 4, 5)
    def probs(conf): return np.stack([conf if digit == 4 else (1 - conf)/9 for digit in range(10)], 1)
    fair, vain = calibration(probs(conf), labels), calibration(probs(1 - (1 - conf)/2), labels)
    assert fair.ece < .02 and sum(fair.images) == 20_000
    assert vain.ece == pytest.approx(np.mean((1 - conf)/2), abs=.01) and vain.cross_entropy > fair.cross_entropy


@pytest.mark.mnist
@only_full
def test_the_packaged_network_is_worth_what_its_card_says():
    facts = measure('tiny', 'mnist').facts
    assert facts['data'] == 'MNIST testing images' and facts['accuracy'] == facts['made']['metrics']['test']
