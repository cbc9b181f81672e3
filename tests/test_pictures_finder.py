"""The network that finds digits: what it takes and gives, that it can learn, and that an interrupted run is resumed."""
import hashlib
import json
import shutil

import numpy as np
import onnxruntime as ort
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from safetensors.torch import load_file

from mnist_fastai.data.sources import digits_arrays
from mnist_fastai.models import n_params
from mnist_fastai.pictures import finder as f
from mnist_fastai.pictures.glyphs import as_glyphs


@pytest.fixture(scope='module')
def batch():
    "Pages as tensors: picture, ink, number, table"
    return f.PageBatches([f.page_batch(0, as_glyphs(digits_arrays()[0][:100]), (64, 96), 12)], False)[0]


@pytest.mark.parametrize('shape', [(32, 32), (64, 96), (176, 48)])
def test_it_says_something_of_every_pixel(shape):
    h, w = shape
    ink, fields = f.Finder().eval()(torch.rand(2, 1, h, w))
    assert ink.shape == (2, 1, h, w) and fields.shape == (2, 3, h//2, w//2)
    assert n_params(f.Finder()) < 250_000


def right_fields(number, table):
    "What would be right to say"
    n, h, w = number.shape
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    at = torch.stack([2*x + 1, 2*y + 1]).float()
    mine = torch.stack([t[(o.long() - 1).clamp(0, 63)] for o, t in zip(number, table)])  # n x h x w x 3
    away = (mine[..., :2].permute(0, 3, 1, 2) - at)/f.unit
    return torch.cat([away, torch.log2(mine[..., 2].clamp(min=1)/f.unit)[:, None]], 1)


def test_the_loss_falls_when_what_is_said_is_right(batch):
    _, ink, number, table = batch
    nothing = torch.full((len(ink), 1, *ink.shape[1:]), -3.), torch.zeros(len(ink), 3, *number.shape[1:])
    logits, fields = torch.logit((ink[:, None]/255).clamp(.001, .999)), right_fields(number, table)
    losses = [f.finder_loss(o, ink, number, table).item()
              for o in (nothing, (logits, nothing[1]), (nothing[0], fields), (logits, fields))]
    assert losses[3] < min(losses[1:3]) and max(losses[1:3]) < losses[0] and losses[3] < .3*losses[0]
    errors = [f.centre_error(o, ink, number, table) for o in (nothing, (logits, fields))]
    assert errors[0] > .1 and errors[1] < 1e-4
    assert f.ink_iou((logits, fields), ink, number, table) > .99


def test_what_is_cut_off_is_neither_right_nor_wrong(batch):
    _, ink, number, table = batch
    pred = torch.zeros(len(ink), 1, *ink.shape[1:], requires_grad=True), torch.zeros(len(ink), 3, *number.shape[1:])
    number = number.clone()
    number[:, 10:20] = f.ignored
    f.finder_loss(pred, ink, number, table).backward()
    grad = pred[0].grad[:, 0]
    assert not grad[:, 20:40].any() and grad[:, :20].any()


def test_it_learns(batch):
    set_seed(1, reproducible=True)
    x, *truth = batch
    model, losses = f.Finder(), []
    opt = torch.optim.Adam(model.parameters(), 4e-3)
    for _ in range(25):
        loss = f.finder_loss(model(x), *truth)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < .5*losses[0]


def test_light_and_dark_are_turned_around_only_to_train(batch):
    made = [f.page_batch(0, as_glyphs(digits_arrays()[0][:20]), (32, 32), 16)]
    set_seed(0)
    plain, other = f.PageBatches(made, False)[0][0], f.PageBatches(made, True)[0][0]
    turned = [torch.allclose(b, 1 - a) for a, b in zip(plain, other)]
    assert 0 < sum(turned) < 16 and all(t or torch.equal(a, b) for t, a, b in zip(turned, plain, other))


def test_onnx_says_what_pytorch_says(tmp_path):
    set_seed(1, reproducible=True)
    model = f.Finder()
    with torch.no_grad():
        for _ in range(3): model(torch.rand(4, 1, 64, 64))  # so that BatchNorm has seen something
    content = f.finder_onnx(model)
    assert len(content) < 1_000_000 and b'/mnist_fastai' not in content and b'site-packages' not in content
    session, model = ort.InferenceSession(content, providers=['CPUExecutionProvider']), model.eval()
    for h, w in ((32, 48), (128, 64)):
        x = torch.rand(1, 1, h, w)
        with torch.no_grad(): ink, fields = model(x)
        found = session.run(['ink', 'fields'], {'picture': x.numpy()})
        np.testing.assert_allclose(found[0], ink.sigmoid(), atol=1e-4)
        np.testing.assert_allclose(found[1], fields, atol=1e-3)


small = dict(pages=32, epochs=2, bs=8, seed=3)


@pytest.fixture(scope='module')
def few(digits, tmp_path_factory):
    "Twelve images of each digit to learn from"
    folder = tmp_path_factory.mktemp('few')
    for split, n in (('training', 12), ('testing', 1)):
        for digit in range(10):
            (to := folder/split/str(digit)).mkdir(parents=True)
            for file in sorted((digits/split/str(digit)).iterdir())[:n]: shutil.copy(file, to)
    return str(folder)


@pytest.fixture(scope='module')
def run(few, tmp_path_factory): return f.train_finder(few, **small, out=tmp_path_factory.mktemp('finder')/'run')


def test_a_training_run_writes_all_its_files(run, few):
    assert {o.name for o in run.iterdir()} == {
        'config.json', 'environment.json', 'finder.json', 'finder.md', 'finder.onnx', 'history.csv', 'metrics.json',
        'weights.safetensors'}  # and no checkpoint
    about = json.loads((run/'finder.json').read_text())
    for key, name in (('onnx_sha256', 'finder.onnx'), ('sha256', 'weights.safetensors')):
        assert about[key] == hashlib.sha256((run/name).read_bytes()).hexdigest()
    assert about['config'] == json.loads((run/'config.json').read_text()) == small | {k: about['config'][k] for k in (
        'data', 'lr', 'wd', 'ema', 'start')}
    assert about['command'].startswith(f'mnist-train-finder --data {few} --pages 32 --epochs 2 --bs 8')
    assert about['command'] in (run/'finder.md').read_text()
    assert len((run/'history.csv').read_text().splitlines()) == 3
    assert 0 <= about['metrics']['valid']['ink_iou'] <= 1


def test_its_command_is_one_that_can_be_given(run):
    import shlex
    from fastcore.script import anno_parser
    from mnist_fastai.cli import mnist_train_finder
    name, *args = shlex.split(json.loads((run/'finder.json').read_text())['command'])
    given = vars(anno_parser(mnist_train_finder.__wrapped__, name).parse_args(args))
    assert {k: given[k] for k in small} == small


class Stop(Callback):
    "Interrupt in the middle of the second epoch"
    order = 99
    def after_batch(self):
        if self.training and self.epoch == 1 and self.iter == 1: raise KeyboardInterrupt


@pytest.mark.fault('Ctrl-C or SIGTERM')
def test_the_same_command_again_goes_on_and_ends_as_if_nothing_had_happened(run, few, tmp_path, monkeypatch):
    plain = f.finder_learner
    monkeypatch.setattr(f, 'finder_learner', lambda *args, **kwargs: plain(*args, **kwargs, cbs=[Stop()]))
    with pytest.raises(KeyboardInterrupt): f.train_finder(few, **small, out=tmp_path/'run')
    assert {o.name for o in (tmp_path/'run').iterdir()} >= {'checkpoint.pt', 'history.csv'}
    monkeypatch.setattr(f, 'finder_learner', plain)
    f.train_finder(few, **small, out=tmp_path/'run')
    assert not (tmp_path/'run'/'checkpoint.pt').exists()
    a, b = (load_file(o/'weights.safetensors') for o in (run, tmp_path/'run'))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert len((tmp_path/'run'/'history.csv').read_text().splitlines()) == 3


def test_it_begins_with_weights_that_it_is_given(run, few, tmp_path):
    other = f.train_finder(few, **small | dict(epochs=1), lr=1e-6, start=run/'weights.safetensors', out=tmp_path/'run')
    a, b = (load_file(o/'weights.safetensors')['ink.0.weight'] for o in (run, other))
    assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize('wrong', [dict(pages=3), dict(epochs=0), dict(lr=0.), dict(ema=2.)])
def test_settings_that_make_no_sense_are_refused(wrong, tmp_path):
    with pytest.raises(ValueError, match=f'{[*wrong][0]}=.* is not possible'):
        f.train_finder(**small | wrong, out=tmp_path/'run')
    assert not (tmp_path/'run').exists()
