"""Any picture in, digits out: without PyTorch, and without running what a file brings along."""
import csv
import hashlib
import io
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_command
from fastai.torch_core import set_seed
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

from mnist_fastai.data.sources import digits_arrays
from mnist_fastai.export import export_weights, onnx_bytes
from mnist_fastai.drawing import draw_predictions, rgb_photo
from mnist_fastai.inference import Page, Predictor, read_digits
from mnist_fastai.interpret import class_activation_map
from mnist_fastai.learner import build_model
from mnist_fastai.pictures import photos as pages
from mnist_fastai.pictures.finding import to_mnist
from mnist_fastai.train import train


@pytest.fixture(scope='module')
def run(digits, tmp_path_factory): return train('digits', epochs=2, out=tmp_path_factory.mktemp('run')/'run').path


@pytest.fixture
def bundle(run, tmp_path):
    "The files of a run elsewhere, by their suffix"
    return {o.suffix: o for o in export_weights(run, tmp_path/'mine')}


@pytest.fixture(scope='module')
def best(): return Predictor()


def drawn(digit, seed=0): return pages.drawn(np.random.default_rng(seed), digit)


def page(text='314159\n2653', kind='shadow', seed=0):
    "A photo of these digits, drawn"
    rng = np.random.default_rng(seed)
    lines = [[pages.drawn(rng, int(o), 112) for o in line] for line in text.splitlines()]
    return pages.photo(rng, pages.written(rng, lines, gap=(.3, .6))[0], kind)


def png(image):
    image.save(file := io.BytesIO(), 'png')
    return file.getvalue()


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
    tiny, images = Predictor('tiny'), [drawn(i) for i in range(10)]*51  # more than are computed at once
    many = tiny.predict_batch(images)
    np.testing.assert_allclose([o.probs for o in many[:10]], [tiny.predict(o).probs for o in images[:10]], atol=1e-5)
    assert [o.digit for o in many] == [o.digit for o in many[:10]]*51
    assert tiny.predict_batch([]) == [] and tiny.probs(np.zeros((0, 28, 28))).shape == (0, 10)


def test_what_is_not_sure_is_rejected():
    grain = np.random.default_rng(0).normal(size=(60, 60))
    scribble = (np.pad(gaussian_filter(grain, 4) > .05, 40)*255).astype(np.uint8)
    for least, rejected in ((0., False), (.99, True)):
        reader = Predictor(reject_below=least)
        assert (reader.predict(scribble).digit is None) == rejected
        assert reader.predict(drawn(3)).digit == 3
    with pytest.raises(ValueError, match='no probability'): Predictor(reject_below=95)


def test_letters_and_scribbles_are_no_digits_however_sure_the_network_is():
    careful, rng = Predictor(reject_below=.9), np.random.default_rng(0)
    letters = careful.predict_batch([*pages.letters()])
    scribbles = careful.predict_batch([pages.scribble(rng) for _ in range(100)])
    assert sum(o.digit is None for o in letters) > .8*len(letters)
    assert sum(o.digit is None for o in scribbles) > len(scribbles)/2  # some look like a digit
    known = [o for o in letters if not o.reason]  # what they look like to the network alone
    alone = careful.probs(np.array([o.image for o in known])).max(1)
    assert any(o.digit is None and p > .9 for o, p in zip(known, alone))
    assert sum(o.digit is None for o in careful.predict_batch([drawn(i % 10, i) for i in range(100)])) <= 2


def test_every_form_says_what_the_learner_says(bundle, run, tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 1, 28, 28)).astype(np.float32)
    np.save(tmp_path/'x.npy', x)
    ways = {
        '.onnx': 'from mnist_fastai.inference import Predictor; p = Predictor({0!r}); y = p.scores(x)',
        '.pkl': 'from mnist_fastai.inference import Predictor; p = Predictor({0!r}, trust=True); y = p.scores(x)',
        '.safetensors': 'import torch; from mnist_fastai.export import load_weights\n'
                        'with torch.no_grad(): y = load_weights({0!r})(torch.from_numpy(x)).numpy()'}
    from fastai.learner import load_learner
    import torch
    with torch.no_grad(): known = load_learner(run/'learner.pkl').model.eval()(torch.from_numpy(x)).numpy()
    for suffix, way in ways.items():
        code = f'import numpy as np; x = np.load("x.npy")\n{way.format(str(bundle[suffix]))}\nnp.save("y.npy", y)'
        done = run_command('python', code, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(np.load(tmp_path/'y.npy'), known, atol=1e-5)


def test_a_run_is_read_from_its_folder_and_from_any_of_its_files(run, bundle):
    image = drawn(5)
    probs = Predictor(run).predict(image).probs
    for o in ('.onnx', '.safetensors', '.json', '.md'):
        np.testing.assert_allclose(Predictor(bundle[o]).predict(image).probs, probs, atol=1e-6)


@pytest.mark.parametrize('arch', ['simple_cnn', 'two_conv', 'conv_dense', 'fast_cnn', 'mlp'])
def test_the_class_activation_map_is_that_of_pytorch_s_gradients(arch, tmp_path):
    set_seed(1, reproducible=True)
    images, labels = digits_arrays()
    x, y = torch.from_numpy(images[:500, None])/255, torch.from_numpy(labels[:500]).long()
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
    for o, said in zip(found[1:5], ('is no picture', 'there is no digit', f"No such file or directory: '{pictures[3]}'",
                                    'is no picture')):
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
    for doubts, said in ((dict(left_out=.6), ['60% of what looks like ink was taken for no digit']),
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


def test_answers_show_themselves_without_anything_from_elsewhere(best, tmp_path):
    Image.fromarray(drawn(4)).save(file := tmp_path/'<four>.png')
    large = Image.fromarray(drawn(6)).resize((3000, 3000))
    for o in best.predict([file, large, drawn(5)]):
        html = o._repr_html_()
        assert str(o) in html and html.count('<image') == 2 and html.count('%</text>') == 10
        assert not re.findall(r'(?:src|href)="(?!data:image/)|url\(|<script', html) and len(html) < 30_000
    found = best.predict(file)
    file.unlink()
    assert found._repr_html_().count('<image') == 1
    html = best.read(page())._repr_html_()
    assert html.count('<rect') == 10 and '314159\n2653' in html


def test_a_picture_keeps_its_colours_and_is_upright(tmp_path):
    left_red = Image.new('RGB', (3000, 2000), 'blue')
    left_red.paste('red', (0, 0, 1500, 2000))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    left_red.save(tmp_path/'turned.jpg', exif=exif)
    image, scale = rgb_photo(tmp_path/'turned.jpg', 300)
    assert (round(image.width*scale), round(image.height*scale)) == (2000, 3000) and max(image.size) < 600
    assert [np.argmax(image.getpixel((9, y))) for y in (9, image.height - 9)] == [0, 2]
    drawing = Image.new('RGBA', (60, 60))
    for ink, paper in (('black', 255), ('white', 0)):
        drawing.paste(ink, (20, 10, 30, 50))
        assert rgb_photo(drawing, 300)[0].getpixel((5, 5)) == (paper,)*3
    assert rgb_photo(tmp_path/'none.png', 300) is None and rgb_photo(b'nothing', 300) is None


def test_it_imports_neither_torch_nor_fastai(sh, tmp_path):
    Image.fromarray(drawn(4)).save(tmp_path/'four.png')
    code = '''
import sys
from mnist_fastai.inference import Predictor
digit = Predictor().predict("four.png").digit
print(digit, {"torch", "fastai", "pandas", "matplotlib"} & set(sys.modules))'''
    assert sh('python', code).stdout == '4 set()\n'


refused = {
    'another':           (lambda b: b.write_bytes(b.read_bytes() + b' '), 'is not the file that its JSON is about'),
    'truncated':         (lambda b: b.write_bytes(b.read_bytes()[:5000]), 'is not the file that its JSON is about'),
    'seven classes':     (lambda b: other(b, nn.Sequential(nn.Flatten(), nn.Linear(784, 7))), 'n x 10 scores'),
    'a flat input':      (lambda b: other(b, nn.Linear(28, 10)), 'n x 10 scores'),
    'no limit':          (lambda b: other(b, Ten(), energy_limit='nan'), 'metadata that make no sense'),
    'no metadata':       (lambda b: other(b, Ten(), temperature=None), 'is no model from mnist-export'),
    'odd metadata':      (lambda b: other(b, Ten(), std=0.), 'metadata that make no sense'),
    'NaN in metadata':   (lambda b: other(b, Ten(), mean=float('nan')), 'metadata that make no sense'),
    'no model':          (lambda b: alone(b, b'hello'), 'is no model from mnist-export'),
    'nothing':           (lambda b: alone(b, b''), 'is no model from mnist-export'),
    'a broken JSON':     (lambda b: b.with_suffix('.json').write_text('{'), 'is damaged'),
    'a JSON of nothing': (lambda b: b.with_suffix('.json').write_text('[]'), 'is damaged')}


def Ten(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def alone(file, content):
    file.write_bytes(content)
    file.with_suffix('.json').unlink()


def other(file, model, **changes):
    known = {k: v for k, v in (dict(mean=.1, std=.3, temperature=1.) | changes).items() if v is not None}
    alone(file, onnx_bytes(model, **known))


@pytest.mark.parametrize('what', refused)
def test_what_is_no_bundle_of_ours_is_refused(what, bundle):
    spoil, said = refused[what]
    spoil(bundle['.onnx'])
    with pytest.raises(ValueError, match=said) as e: Predictor(bundle['.onnx'])
    assert '\n' not in str(e.value)


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
        with pytest.raises(ValueError): read_digits(page(), run/'learner.pkl')
    finally: (tmp_path/'good.pkl').replace(run/'learner.pkl')
    assert not (tmp_path/'it ran').exists()
    with pytest.raises(ValueError): Predictor(tmp_path/'bad.pkl', trust=True)  # it is no learner, but it was trusted
    assert (tmp_path/'it ran').exists()


def test_a_picture_of_it_can_be_drawn(best, tmp_path):
    found = [(image, best.read(image).digits, 'costs $1, $x') for image in (page(), page(seed=1))]
    blank = Image.new('RGB', (90, 90), 'green')
    found += [(drawn(3), [best.predict(drawn(3))], 'one'), (blank, [], 'unread: ...'), ('none.png', [], 'unread: ...')]
    draw_predictions(found).savefig(tmp_path/'drawn.png')
    image = Image.open(tmp_path/'drawn.png').convert('RGB')
    assert image.width == 1200 and image.height > 2*1160*page().height/page().width
    colours = {o for _, o in image.getcolors(1_000_000)}
    assert (0, 128, 0) in colours  # the blank picture is shown as it is


def test_doubt_has_another_colour(best):
    three = best.predict(drawn(3))
    sure, unsure = (draw_predictions([(drawn(3), [replace(three, prob=p)], '')]).axes[2].patches[0] for p in (1., .6))
    sure, unsure = (np.array(o.get_edgecolor()[:3]) @ [.2, .7, .1] for o in (sure, unsure))
    assert sure > .6 > .4 > unsure


@pytest.fixture
def pictures(tmp_path):
    for i in (3, 6, 8): Image.fromarray(drawn(i)).save(tmp_path/f'{i}.png')
    (tmp_path/'note.txt').write_text('hello')
    page().save(tmp_path/'page.jpg')
    return tmp_path


def test_predict_prints_a_table_json_or_csv(pictures, sh):
    table = sh('mnist-predict', '3.png', '8.png', '--top', 2, '--show', 'seen.png')
    assert table.returncode == 0, table.stderr
    assert [o.split()[:2] for o in table.stdout.splitlines()] == [['3.png', '3'], ['8.png', '8']]
    assert all(len(o.split()) == 5 for o in table.stdout.splitlines())
    unsure = sh('mnist-predict', '6.png', '--reject-below', 1).stdout.split()
    assert unsure[:2] == ['6.png', '?'] and unsure[3:] == ['perhaps', '6']
    assert Image.open(pictures/'seen.png').height > 300
    rows = json.loads(sh('mnist-predict', '3.png', '8.png', '--json').stdout)
    assert [(o['file'], o['digit'], o['probability'] > .5) for o in rows] == [('3.png', 3, True), ('8.png', 8, True)]
    rows = [*csv.DictReader(sh('mnist-predict', '3.png', '8.png', '--csv').stdout.splitlines())]
    assert [(o['file'], o['digit']) for o in rows] == [('3.png', '3'), ('8.png', '8')]
    [row] = json.loads(sh('mnist-predict', '6.png', '--json', '--reject-below', 1).stdout)
    assert row['digit'] is None and row['perhaps'] == 6 and row['probability'] > .5


def test_a_bad_picture_does_not_keep_the_others_from_being_read(pictures, sh):
    done = sh('mnist-predict', '3.png', 'note.txt', 'none.png', '8.png')
    assert done.returncode == 1
    assert [o.split()[:2] for o in done.stdout.splitlines()] == [
        ['3.png', '3'], ['note.txt', 'unread:'], ['none.png', 'unread:'], ['8.png', '8']]
    assert done.stderr == 'mnist-predict: 2 of 4 pictures could not be read\n'
    done = sh('mnist-predict', 'note.txt', '3.png', '--csv', '--top', 2, '--show', 'seen.png')
    rows = [*csv.DictReader(done.stdout.splitlines())]
    assert [(o['file'], o['digit']) for o in rows] == [('note.txt', ''), ('3.png', '3')]
    assert 'is no picture' in rows[0]['reason'] and rows[0]['digit_2'] == rows[1]['reason'] == ''
    assert done.returncode == 1
    assert (pictures/'seen.png').exists()
    done = sh('mnist-read', 'note.txt', 'page.jpg', '--json')
    first, second = json.loads(done.stdout)
    assert first['lines'] == [] and 'is no picture' in first['reason'] and len(second['lines']) == 2
    assert done.returncode == 1 and done.stderr == 'mnist-read: 1 of 2 pictures could not be read\n'
    alone = sh('mnist-predict', 'note.txt', '--json')
    assert json.loads(alone.stdout)[0]['digit'] is None and 'is no picture' in alone.stderr


def test_standard_input_is_a_picture_too(pictures):
    import subprocess
    import sys
    exe = Path(sys.executable).parent/'mnist-predict'
    done = subprocess.run([exe, '-'], input=png(Image.fromarray(drawn(7))), capture_output=True, timeout=60)
    assert done.stdout.split()[:2] == [b'-', b'7'], done.stderr


def test_read_prints_the_lines_of_a_page(pictures, sh):
    done = sh('mnist-read', 'page.jpg', '--show', 'seen.png')
    assert done.stdout == '314159\n2653\n', done.stderr
    assert (pictures/'seen.png').exists()
    [found] = json.loads(sh('mnist-read', 'page.jpg', '--json').stdout)
    assert [o['text'] for o in found['lines']] == ['314159', '2653']
    assert all(len(o['box']) == 4 and 0 <= o['probability'] <= 1 for o in found['lines'][0]['digits'])
    assert found['left_out'] < .1 and found['angle'] == 0 and found['upright'] is True
    page().rotate(180).save(pictures/'turned.jpg')
    [found] = json.loads(sh('mnist-read', 'turned.jpg', '--json').stdout)
    assert [o['text'] for o in found['lines']] == ['314159', '2653'] and abs(found['angle']) == 180


def test_kaggles_test_file_becomes_a_submission(tmp_path, sh, best):
    known = [to_mnist(drawn(i)) for i in range(10)]
    head = ','.join(f'pixel{i}' for i in range(784))
    rows = [','.join(map(str, o.ravel())) for o in known]
    (tmp_path/'test.csv').write_text('\n'.join([head, *rows]) + '\n')
    done = sh('mnist-kaggle', 'test.csv', 'submission.csv')
    assert done.returncode == 0, done.stderr
    answers = ''.join(f'{i + 1},{o.digit}\n' for i, o in enumerate(best.predict_batch(known)))
    assert (tmp_path/'submission.csv').read_text() == 'ImageId,Label\n' + answers
    (tmp_path/'test.csv').write_text('\n'.join([head, rows[0], rows[1].replace('0', '300', 1)]) + '\n')
    done = sh('mnist-kaggle', 'test.csv', 'other.csv')
    assert done.returncode == 1 and 'line 3: pixel0 is 300' in done.stderr
    assert not (tmp_path/'other.csv').exists()
