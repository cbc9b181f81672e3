"""The page about a model: it says what is true, needs nothing else, and does not run what others write."""
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import only_full
from PIL import Image, ImageOps
from scipy.special import softmax
from torch import nn

from mnist_fastai.data.core import mnist_dls
from mnist_fastai.reader import packaged
from mnist_fastai.interpret import batch_of, class_activation_map, feature_maps, last_hidden, plot_hidden
from mnist_fastai.models import archs
from mnist_fastai.report.measure import calibration
from mnist_fastai.report.page import report
from mnist_fastai.runs import load_predictions
from mnist_fastai.train import train
from mnist_fastai.utils import read_json


@pytest.fixture(scope='module')
def both(trained, tmp_path_factory):
    "The report of a run beside a packaged network, on the images of the run"
    return report(trained[0], 'tiny', out=tmp_path_factory.mktemp('report')/'both')


def test_it_says_what_the_run_said(both, trained):
    scores, labels = load_predictions(trained[0])
    m, metrics = both.models[0], read_json(trained[0]/'metrics.json')
    preds = scores.argmax(1)
    assert m['accuracy'] == metrics['test'] and m['parameters'] == metrics['parameters']
    assert np.array(m['confusion'])[3, 3] == ((labels == 3) & (preds == 3)).sum()
    eight = m['by_digit'][8]
    assert eight['images'] == (labels == 8).sum()
    assert eight['recall'] == pytest.approx(((labels == 8) & (preds == 8)).sum()/eight['images'], abs=1e-6)
    assert eight['precision'] == pytest.approx(((labels == 8) & (preds == 8)).sum()/(preds == 8).sum(), abs=1e-6)
    assert sum(n for _, _, n in m['confused']) == len(m['mistakes']) == (preds != labels).sum() > 0
    worst = m['mistakes'][0]
    wrong, probs = np.flatnonzero(preds != labels), softmax(scores/m['temperature'], 1)
    i = max(wrong, key=lambda i: -np.log(softmax(scores, 1)[i, labels[i]]))
    assert worst['label'] == labels[i] and worst['predicted'] == preds[i]
    assert worst['probabilities'] == pytest.approx(probs[i].tolist(), abs=1e-4)
    assert m['stress']['kinds'][m['stress']['worst']] == min(m['stress']['kinds'].values())


def test_two_models_are_told_apart_image_by_image(both):
    d, (a, b) = both.difference, both.models
    assert d['both'] + d['only_a'] == a['accuracy']['correct'] and d['both'] + d['only_b'] == b['accuracy']['correct']
    assert d['both'] + d['only_a'] + d['only_b'] + d['neither'] == 360
    wrong_a, wrong_b = ({o['file'] for o in m['mistakes']} for m in (a, b))
    assert d['only_a'] == len(wrong_b - wrong_a) and d['only_b'] == len(wrong_a - wrong_b)


def test_the_page_needs_nothing_but_itself(both):
    page = (both.path/'report.html').read_text()
    assert set(re.findall(r'<img[^>]* src="(.{20})', page)) == {'data:image/png;base6'}
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|<script|<link', page)
    pngs = {o.name for o in both.path.glob('*.png')}
    assert pngs >= {f'{m}-{k}.png' for m in 'ab' for k in (
        'confusion', 'confused', 'mistakes', 'calibration', 'stress', 'filters', 'feature_maps', 'class_activation',
        'hidden')} | {'difference.png'}
    assert page.count('<img') == len(pngs) and all(f'<h2>{o}</h2>' in page for o in ('Each digit', 'Where they differ'))
    assert json.loads((both.path/'report.json').read_text())['difference'] == both.difference
    for m in both.models: assert f"{m['accuracy']['accuracy']:.2%}" in page and f"{m['parameters']:,}" in page


def test_a_folder_of_pictures_whatever_they_are_called(tmp_path, digits):
    names = {3: '<img src=x onerror=alert(1)>.png', 7: '$\\frac{$.jpg'}
    for digit, name in names.items():
        (folder := tmp_path/'photos & <b>'/str(digit)).mkdir(parents=True)
        for i, file in enumerate(sorted((digits/'testing'/str(digit)).iterdir())[:3]):
            dark = ImageOps.invert(Image.open(file)).resize((200, 200))
            dark.save(folder/(name if i == 0 else f'{i}{name}'))
    shutil.copy(folder/name, tmp_path/'photos & <b>'/'3'/f'a seven {name}')
    Image.new('L', (99, 99), 250).save(tmp_path/'photos & <b>'/'7'/'<i>blank.png')
    found = report('best', data=tmp_path/'photos & <b>', out=tmp_path/'out')
    m, page = found.models[0], (tmp_path/'out'/'report.html').read_text()
    assert m['accuracy']['n'] == 8 and m['accuracy']['correct'] == 6 and m['by_digit'][7]['images'] == 4
    assert m['by_digit'][7]['recall'] == .75 and [*m['unread']] == ['7/<i>blank.png']
    assert [o['file'] for o in m['mistakes']] == [f'3/a seven {names[7]}']
    assert m['by_digit'][0] == dict(digit=0, images=0, precision=None, recall=None, f1=None)
    assert '<b>.' not in page and '<i>' not in page and '<img src=x' not in page and '7/&lt;i&gt;blank.png' in page
    assert 'The last layer' not in page  # seven images make no map


def test_a_model_without_a_mistake(tmp_path, digits):
    (tmp_path/'noughts'/'0').mkdir(parents=True)
    for o in sorted((digits/'testing'/'0').iterdir())[:2]: shutil.copy(o, tmp_path/'noughts'/'0'/o.name)
    page = (report('best', data=tmp_path/'noughts', out=tmp_path/'out').path/'report.html').read_text()
    assert '100.00%' in page and 'The worst mistakes' not in page and 'Who is taken for whom' in page


def test_what_scikit_learn_fitted_wants_trust(tmp_path):
    run = train('digits', 'knn', out=tmp_path/'knn').path
    with pytest.raises(ValueError, match='is a pickle of scikit-learn.*--trust'): report(run, out=tmp_path/'out')
    assert not (tmp_path/'out').exists()
    found = report(run, out=tmp_path/'out', trust=True)
    assert found.models[0]['accuracy'] == read_json(run/'metrics.json')['test']
    page = (found.path/'report.html').read_text()
    assert 'What each layer makes' not in page and 'Who is taken for whom' in page


def test_raw_pixels_and_no_validation_images(tmp_path):
    run = train('digits', 'mlp', epochs=2, pixels='raw', valid_size=0, out=tmp_path/'raw').path
    a, b = report(run, 'tiny', out=tmp_path/'out').models
    assert a['accuracy'] == read_json(run/'metrics.json')['test'] and a['temperature'] == 1
    assert b['accuracy']['accuracy'] > .9


def test_two_that_agree_and_odd_things_in_a_folder(tmp_path, digits, monkeypatch):
    for digit in '18': shutil.copytree(digits/'testing'/digit, tmp_path/'photos'/digit)
    (tmp_path/'photos'/'.ipynb_checkpoints').mkdir()
    (tmp_path/'photos'/'1'/'gone.png').symlink_to('nowhere')
    Image.new('L', (50, 50), 255).save(os.fsencode(tmp_path/'photos'/'1')+b'/\xff.png')
    (tmp_path/'here').mkdir()
    monkeypatch.chdir(tmp_path/'here')
    found = report('tiny', 'tiny', tmp_path/'photos', out='.')
    assert found.difference['both'] == found.models[0]['accuracy']['correct'] and found.difference['p'] == 1
    d = found.difference
    assert d['both'] + d['neither'] == found.models[0]['accuracy']['n'] and d['neither'] >= 2  # two could not be read
    assert [*found.models[0]['unread']] == ['1/gone.png', '1/?.png'] and 'chance' not in Path('report.html').read_text()
    assert not [o for o in Path().iterdir() if o.name.startswith('.')]
    odd = tmp_path/os.fsdecode(b'\xff')
    (tmp_path/'photos').rename(odd)
    assert report('tiny', data=odd, out='odd').path.name == 'odd'
    (odd/'a').mkdir()
    with pytest.raises(ValueError, match="has a folder 'a', which is no digit"): report('tiny', data=odd)


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
           'environment': ('environment', [1]), 'score': ('metrics', dict(test=None)), 'command': ('command', None)}


@pytest.mark.parametrize('name', hostile)
def test_a_bundle_from_a_stranger_is_looked_at_before_it_is_used(name, tmp_path):
    tiny = changed_tiny(tmp_path, *hostile[name])
    with pytest.raises(ValueError, match='tiny'): report(tiny, data='digits', out=tmp_path/'out')
    assert not (tmp_path/'out').exists()


def test_a_strangers_path_is_not_opened(tmp_path):
    tiny = changed_tiny(tmp_path, 'config', dict(data='/etc'))
    with pytest.raises(ValueError, match='name some with --data'): report(tiny, out=tmp_path/'out')


def test_damaged_files_are_named(tmp_path, trained):
    run = shutil.copytree(trained[0], tmp_path/'run')
    for name, content in (('config.json', '{"arch": "simple_cnn"}'), ('metrics.json', '[]'),
                          ('weights.safetensors', 'no weights'), ('predictions.npz', '')):
        before = (run/name).read_bytes()
        (run/name).write_text(content)
        with pytest.raises(ValueError, match='damaged'): report(run, out=tmp_path/'out')
        (run/name).write_bytes(before)
    assert not (tmp_path/'out').exists()


def test_calibration_is_the_difference_between_sure_and_right():
    rng = np.random.default_rng(1)
    conf = rng.uniform(.55, 1, 20_000)
    labels = np.where(rng.random(20_000) < conf, 4, 5)
    def probs(c): return np.stack([c if i == 4 else (1 - c)/9 for i in range(10)], 1)
    fair, vain = calibration(probs(conf), labels), calibration(probs(1 - (1 - conf)/2), labels)
    assert fair.ece < .02 and sum(fair.images) == 20_000
    assert vain.ece == pytest.approx(np.mean((1 - conf)/2), abs=.01) and vain.cross_entropy > fair.cross_entropy


@pytest.mark.parametrize('arch', archs)
def test_one_can_look_into_every_network_and_leaves_it_as_it_was(arch, digits):
    torch.manual_seed(1)
    model, (xb, yb) = archs[arch](), batch_of(mnist_dls(digits).valid, list(range(0, 280, 10)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    maps, cam, hidden = feature_maps(model, xb), class_activation_map(model, xb), last_hidden(model, xb)
    assert all(o.shape[0] == len(xb) and o.dim() == 4 for _, o in maps) and bool(maps) == (arch != 'mlp')
    if arch == 'mlp': assert cam is None
    else: assert cam.shape == (len(xb), 28, 28) and 0 <= cam.min() and cam.max() <= 1
    last = [o for o in model.modules() if isinstance(o, (nn.Conv2d, nn.Linear))][-1]
    if isinstance(last, nn.Linear): assert last(hidden).allclose(model(xb), atol=1e-5)
    assert plot_hidden(model, xb, yb).axes[0].collections[0].get_offsets().shape == (len(xb), 2)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(o._forward_hooks for o in model.modules())
    frozen = class_activation_map(model.requires_grad_(False), xb)
    assert frozen is None if cam is None else frozen.equal(cam)


def test_for_a_network_that_ends_in_an_average_the_map_is_the_classic_one():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    x = torch.rand(4, 1, 28, 28)
    maps, digits = model[:2](x), torch.tensor([1, 2, 3, 4])
    classic = torch.einsum('nchw,nc->nhw', maps, model[4].weight[digits]).relu()
    classic = nn.functional.interpolate(classic[:, None], (28, 28), mode='bilinear')[:, 0]
    classic = classic/classic.amax((1, 2), keepdim=True).clamp(1e-9)
    assert class_activation_map(model, x, digits).allclose(classic, atol=1e-5)


@pytest.mark.mnist
@only_full
def test_the_packaged_network_is_worth_what_its_card_says(tmp_path):
    found = report('tiny', out=tmp_path/'out')
    assert found.models[0]['data'] == 'MNIST testing images'
    assert found.models[0]['accuracy'] == found.models[0]['made']['metrics']['test']
