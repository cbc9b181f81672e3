"""Any picture in, digits out: without PyTorch, and with a reason where there is no answer."""
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import full, only_full
from fastai.torch_core import set_seed
from known_pages import drawn, drawn_page, saved
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from mnist_fastai.cli import mnist_kaggle, mnist_predict, mnist_read
from mnist_fastai.data.sources import digits_arrays
from mnist_fastai.export import onnx_bytes
from mnist_fastai.inference import Page, Predictor, read_digits
from mnist_fastai.interpret import class_activation_map
from mnist_fastai.learner import build_model
from mnist_fastai.pictures import photos
from mnist_fastai.pictures.finding import to_mnist


@pytest.fixture(scope='module')
def best(): return Predictor()


def page(text='314159\n2653', kind='shadow', seed=0): return drawn_page(text, seed, kind)


def test_drawn_digits_are_read(best):
    found = best.predict_batch([drawn(i % 10, i) for i in range(50)])
    assert sum(o.digit == i % 10 for i, o in enumerate(found)) >= 48
    for o in found: assert o.probs.shape == (10,) and 0 < o.probs.sum() < 1 + 1e-6 and o.prob == o.probs.max()


def test_a_page_is_read_line_by_line(best):
    lines = best.read(page())
    assert [o.text for o in lines] == ['314159', '2653']
    for line in lines:
        assert [str(o.digit) for o in line.digits] == [*line.text]
        assert all(a.box[0] < b.box[0] for a, b in zip(line.digits, line.digits[1:]))
    assert [o.text for o in read_digits(page(), 'tiny')] == ['314159', '2653']


def test_the_answer_for_one_is_the_answer_among_many():
    tiny, images = Predictor('tiny'), [drawn(i) for i in range(10)]
    many = tiny.predict_batch(images)
    np.testing.assert_allclose([o.probs for o in many], [tiny.predict(o).probs for o in images], atol=1e-5)
    found = np.array([o.image for o in many])
    probs = tiny.probs(np.concatenate([found]*51))  # more than are computed at once
    np.testing.assert_allclose(probs, np.concatenate([tiny.probs(found)]*51), atol=1e-5)
    assert tiny.predict_batch([]) == [] and tiny.probs(np.zeros((0, 28, 28))).shape == (0, 10)


def test_what_is_not_sure_is_rejected():
    grain = np.random.default_rng(0).normal(size=(60, 60))
    scribble = (np.pad(gaussian_filter(grain, 4) > .05, 40)*255).astype(np.uint8)
    for least, rejected in ((0., False), (.99, True)):
        reader = Predictor(reject_below=least)
        assert (reader.predict(scribble).digit is None) == rejected
        assert reader.predict(drawn(3)).digit == 3
    with pytest.raises(ValueError, match='not a probability'): Predictor(reject_below=95)


def test_letters_and_scribbles_are_no_digits_however_sure_the_network_is():
    careful, rng = Predictor(reject_below=.9), np.random.default_rng(0)
    letters = careful.predict_batch([*photos.letters()])
    scribbles = careful.predict_batch([photos.scribble(rng) for _ in range(100 if full else 50)])
    assert sum(o.digit is None for o in letters) > .8*len(letters)
    assert sum(o.digit is None for o in scribbles) > len(scribbles)/2  # some look like a digit
    known = [o for o in letters if not o.reason]  # what they look like to the network alone
    alone = careful.probs(np.array([o.image for o in known])).max(1)
    assert any(o.digit is None and p > .9 for o, p in zip(known, alone))
    assert sum(o.digit is None for o in careful.predict_batch([drawn(i % 10, i) for i in range(100)])) <= 2


@pytest.mark.parametrize('arch', ['simple_cnn', 'fast_cnn', 'mlp',
                                  *(pytest.param(o, marks=only_full) for o in ('two_conv', 'conv_dense'))])
def test_the_class_activation_map_is_that_of_pytorch_s_gradients(arch, tmp_path):
    set_seed(1, reproducible=True)
    images, labels = digits_arrays()
    x, y = torch.from_numpy(images[:200, None])/255, torch.from_numpy(labels[:200]).long()
    model = build_model(arch)
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(20):
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
    (file := tmp_path/'model.onnx').write_bytes(onnx_bytes(model, mean=0., std=1., temperature=1.))
    found, known = Predictor(file).class_activation_map(images[:8]), class_activation_map(model, x[:8])
    if arch == 'mlp':
        assert found is None and known is None
        return
    assert np.abs(found - known.numpy()).mean() < .005  # where a max-pool has two maxima, its gradient knows only one
    assert np.corrcoef(found.ravel(), known.ravel())[0, 1] > .99


def test_each_picture_gets_an_answer_or_a_reason(best, tmp_path):
    (tmp_path/'note.txt').write_text('hello')
    pictures = [drawn(3), tmp_path/'note.txt', np.full((60, 60), 200, np.uint8), tmp_path/'gone.png', None, drawn(8)]
    found = best.predict_batch(pictures)
    assert [o.digit for o in found] == [3, None, None, None, None, 8]
    assert [o.digit for o in best.predict(tuple(pictures))] == [o.digit for o in found]
    reasons = ('is not a picture', 'there is no digit', f"No such file or directory: '{pictures[3]}'",
               'is not a picture')
    for o, said in zip(found[1:5], reasons):
        assert said in o.reason and str(o) == f'unread: {o.reason}' and '\n' not in o.reason
        assert o.prob == 0 == o.probs.sum() and o.probs.shape == (10,) and o.box is o.image is o.perhaps is None
        assert o.reason.split("'")[0] in o._repr_html_()
    for o, error in zip(pictures[1:5], (ValueError, ValueError, FileNotFoundError, ValueError)):
        with pytest.raises(error): best.predict(o)
    with pytest.raises(ValueError, match='use predict'): best.predict_batch('four.png')
    read, unread = best.read_batch([page(), pictures[2]])
    assert [o.text for o in read] == ['314159', '2653'] and not read.reason
    assert unread == [] and str(unread) == f'unread: {found[2].reason}'


def test_predict_takes_one_or_a_list(best, tmp_path):
    Image.fromarray(drawn(4)).save(file := tmp_path/'four.png')
    assert [o.digit for o in best.predict([str(file), file, file.read_bytes(), drawn(7)])] == [4, 4, 4, 7]
    with file.open('rb') as f: assert best.predict([f])[0].digit == 4
    with file.open('rb') as f: assert best.predict(f).digit == 4
    assert best.predict([]) == [] and best.predict(best.predict(drawn(5)).image.tolist()).digit == 5


def test_an_answer_is_a_line_and_a_dictionary(best):
    three = best.predict(drawn(3))
    assert re.fullmatch(r'3 \(\d\d+\.\d%\) at \d+,\d+ to \d+,\d+', str(three)) and repr(three) == str(three)
    known = json.loads(json.dumps(three.to_dict(), allow_nan=False))
    assert known['digit'] == known['perhaps'] == 3 and known['prob'] == three.prob and known['reason'] == ''
    assert known['probs'] == pytest.approx(three.probs.tolist()) and tuple(known['box']) == three.box
    unsure = Predictor(reject_below=1.).predict(drawn(6))
    assert unsure.to_dict()['digit'] is None and unsure.perhaps == 6 and str(unsure).startswith('? (perhaps 6, ')


def test_what_is_unsure_on_a_page_is_marked_and_said():
    reader = Predictor(reject_below=.9)
    reader.numbers['energy_limit'] = -np.inf  # nothing looks like a digit
    [line] = reader.read(page('35'))
    assert line.text == '??' and re.fullmatch(r'\?\?  \(\?: perhaps 3 \d+%, 5 \d+%\)', str(line))
    assert str(Predictor().read(page())) == '314159\n2653'


def test_what_is_doubtful_about_a_page_is_said(best):
    lines = [*best.read(page('35'))]
    for doubts, said in ((dict(left_out=.6), ['60% of what looks like ink was not read as digits']),
                         (dict(upright=False, angle=90.), ['it is not sure which side of the page is up']),
                         (dict(left_out=.1), [])):
        assert (found := Page(lines, **doubts)).doubts == said
        assert str(found) == '\n'.join(['35', *(f'({o})' for o in said)])


def test_predict_takes_what_is_wrapped(best):
    image = drawn(3)
    for o in (dict(composite=image), image[None, ..., None], image[None, None]):
        found = best.predict(o)
        assert found.digit == 3 and found._repr_html_().count('<image') == 2
        assert ''.join(line.text for line in best.read(o)) == '3'
    assert [o.digit for o in best.predict_batch(np.stack([image, image])[..., None])] == [3, 3]


def test_it_imports_neither_torch_nor_fastai(sh, tmp_path):
    Image.fromarray(drawn(4)).save(tmp_path/'four.png')
    code = '''
import sys
from mnist_fastai.inference import Predictor
digit = Predictor().predict("four.png").digit
print(digit, {"torch", "fastai", "pandas", "matplotlib"} & set(sys.modules))'''
    assert sh('python', code).stdout == '4 set()\n'


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    for i in (3, 6, 8): Image.fromarray(drawn(i)).save(tmp_path/f'{i}.png')
    (tmp_path/'note.txt').write_text('hello')
    page().save(tmp_path/'page.jpg')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_predict_prints_a_table_json_or_csv(pictures, capsys):
    def printed(*args, **kwargs):
        mnist_predict([*args], **kwargs)
        return capsys.readouterr().out
    table = printed('3.png', '8.png', top=2, show='seen.png')
    assert [o.split()[:2] for o in table.splitlines()] == [['3.png', '3'], ['8.png', '8']]
    assert all(len(o.split()) == 5 for o in table.splitlines())
    unsure = printed('6.png', reject_below=1).split()
    assert unsure[:2] == ['6.png', '?'] and unsure[3:] == ['perhaps', '6']
    assert Image.open(pictures/'seen.png').height > 300
    rows = json.loads(printed('3.png', '8.png', json=True))
    assert [(o['file'], o['digit'], o['probability'] > .5) for o in rows] == [('3.png', 3, True), ('8.png', 8, True)]
    rows = [*csv.DictReader(printed('3.png', '8.png', csv=True).splitlines())]
    assert [(o['file'], o['digit']) for o in rows] == [('3.png', '3'), ('8.png', '8')]
    [row] = json.loads(printed('6.png', json=True, reject_below=1))
    assert row['digit'] is None and row['perhaps'] == 6 and row['probability'] > .5


def test_a_bad_picture_does_not_keep_the_others_from_being_read(pictures, sh, capsys):
    done = sh('mnist-predict', '3.png', 'note.txt', 'none.png', '8.png')
    assert done.returncode == 1
    assert [o.split()[:2] for o in done.stdout.splitlines()] == [
        ['3.png', '3'], ['note.txt', 'unread:'], ['none.png', 'unread:'], ['8.png', '8']]
    assert done.stderr == 'mnist-predict: 2 of 4 pictures could not be read\n'
    with pytest.raises(ValueError, match='1 of 2 pictures could not be read'):
        mnist_predict(['note.txt', '3.png'], csv=True, top=2, show='seen.png')
    rows = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert [(o['file'], o['digit']) for o in rows] == [('note.txt', ''), ('3.png', '3')]
    assert 'is not a picture' in rows[0]['reason'] and rows[0]['digit_2'] == rows[1]['reason'] == ''
    assert (pictures/'seen.png').exists()
    with pytest.raises(ValueError, match='1 of 2 pictures could not be read'):
        mnist_read(['note.txt', 'page.jpg'], json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert first['lines'] == [] and 'is not a picture' in first['reason'] and len(second['lines']) == 2
    with pytest.raises(ValueError, match='is not a picture'): mnist_predict('note.txt', json=True)
    assert json.loads(capsys.readouterr().out)[0]['digit'] is None


def test_standard_input_is_a_picture_too(pictures):
    exe = Path(sys.executable).parent/'mnist-predict'
    done = subprocess.run([exe, '-'], input=saved(Image.fromarray(drawn(7))), capture_output=True, timeout=60)
    assert done.stdout.split()[:2] == [b'-', b'7'], done.stderr


def test_read_prints_the_lines_of_a_page(pictures, sh, capsys):
    done = sh('mnist-read', 'page.jpg', '--show', 'seen.png')
    assert done.stdout == '314159\n2653\n', done.stderr
    assert (pictures/'seen.png').exists()
    page().rotate(180).save(pictures/'turned.jpg')
    mnist_read(['page.jpg', 'turned.jpg'], json=True)
    found, turned = json.loads(capsys.readouterr().out)
    for o in (found, turned): assert [line['text'] for line in o['lines']] == ['314159', '2653']
    assert all(len(o['box']) == 4 and 0 <= o['probability'] <= 1 for o in found['lines'][0]['digits'])
    assert found['left_out'] < .1 and found['angle'] == 0 and found['upright'] is True
    assert abs(turned['angle']) == 180


def test_kaggles_test_file_becomes_a_submission(tmp_path, best):
    known = [to_mnist(drawn(i)) for i in range(10)]
    head = ','.join(f'pixel{i}' for i in range(784))
    rows = [','.join(map(str, o.ravel())) for o in known]
    (tmp_path/'test.csv').write_text('\n'.join([head, *rows]) + '\n')
    mnist_kaggle(tmp_path/'test.csv', tmp_path/'submission.csv')
    answers = ''.join(f'{i + 1},{o.digit}\n' for i, o in enumerate(best.predict_batch(known)))
    assert (tmp_path/'submission.csv').read_text() == 'ImageId,Label\n' + answers
    (tmp_path/'test.csv').write_text('\n'.join([head, rows[0], rows[1].replace('0', '300', 1)]) + '\n')
    with pytest.raises(ValueError, match='line 3: pixel0 is 300'):
        mnist_kaggle(tmp_path/'test.csv', tmp_path/'other.csv')
    assert not (tmp_path/'other.csv').exists()
