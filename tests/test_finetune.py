"""A person's own digits are learned, MNIST is not forgotten, and the run is one like any other."""
from functools import wraps

import numpy as np
import pytest
from conftest import only_full
from PIL import Image, ImageOps

from mnist_fastai import cli
from mnist_fastai.data.own import held_out, own_dls, own_path
from mnist_fastai.export import export_weights
from mnist_fastai.finetune import finetune
from mnist_fastai.inference import Predictor
from mnist_fastai.report.measure import open_model
from mnist_fastai.runs import load_run, run_summary
from mnist_fastai.train import resume
from mnist_fastai.utils import read_json

lean = 1, 1, -30, 0, 1, 0  # an affine map, as Pillow takes it


def draw(folder, source, counts, which=0):
    "Digits that lean, larger than MNIST's, dark on light"
    for digit, n in counts.items():
        (folder/digit).mkdir(parents=True)
        for file in sorted((source/digit).iterdir())[which:which + n]:
            big = Image.open(file).resize((60, 60)).transform((60, 60), Image.Transform.AFFINE, lean)
            ImageOps.invert(big).save(folder/digit/file.name)
    return folder


@pytest.fixture(scope='module')
def own(tmp_path_factory, digits):
    return draw(tmp_path_factory.mktemp('drawn')/'own', digits/'training', {str(i): 4 for i in range(10)})


@pytest.fixture(scope='module')
def tuned(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tuned')
    return finetune(own, 'tiny', epochs=1, bs=64, images=640, mnist='digits', out=folder/'run')


def test_a_quarter_of_each_digit_is_held_out_and_at_least_one_of_two():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 5, 40])
    held = held_out(labels)
    assert np.bincount(labels[held], minlength=4).tolist() == [0, 1, 1, 10]
    assert (held == held_out(labels)).all()


@pytest.mark.fault('bad data')
def test_few_pictures_missing_digits_and_unreadable_ones_are_said(tmp_path, digits, capsys):
    own = draw(tmp_path/'own', digits/'training', {'1': 1, '3': 2, '7': 5})
    (own/'7'/'torn.png').write_bytes(b'no picture')
    Image.new('L', (50, 50), 255).save(own/'3'/'empty.png')
    dls = own_dls(own, images=128, bs=32, mnist='digits')
    said = capsys.readouterr().out
    for text in ('8 pictures, 6 to learn from and 2 held out', 'one picture only of 1',
                 'no pictures of 0, 2, 4, 5, 6, 8, 9',
                 '3/empty.png', '7/torn.png'): assert text in said
    assert sorted(o.parent.name for o in dls[2].dataset.items) == ['3', '7']
    path = own_path(own)
    (own/'7'/'torn.png').unlink()
    assert own_path(own) != path  # made anew when a picture changes


def test_an_epoch_has_a_fixed_share_of_own_pictures_and_none_that_is_to_check_with(own, digits):
    dls = own_dls(own, images=400, share=.25, bs=50, mnist='digits')
    path = own_path(own)
    mine = [o for o in dls.train_ds.items if path in o.parents]
    assert len(mine) == 100 and dls.train.n == 400 and len(set(mine)) == 30
    assert not set(dls.train_ds.items) & {*dls.valid_ds.items, *dls[2].dataset.items}
    assert dls.valid.n == 287 and all(digits in o.parents for o in dls.valid_ds.items)
    labels = [int(o.parent.name) for o in dls.train_ds.items]
    assert dls.train.store()[2][0].tolist() == labels


def test_it_is_a_run_like_any_other(tuned, own, digits):
    run, metrics = tuned.path, read_json(tuned.path/'metrics.json')
    assert {o.name for o in run.iterdir()} == {
        'config.json', 'environment.json', 'history.csv', 'metrics.json', 'learner.pkl', 'weights.safetensors',
        'predictions.npz', 'loss.png', 'accuracy.png', 'schedule.png', 'predictions.png'}
    assert metrics['own']['n'] == metrics['before']['own']['n'] == 10
    assert metrics['valid']['n'] == metrics['before']['valid']['n']
    assert metrics['test']['n'] == 360 and metrics['dataset'] == 'digits (not MNIST)'
    summary = run_summary(tuned)
    assert '10 digits); before: ' in summary and f'and {own}' in summary
    config = read_json(run/'config.json')
    assert (config['own'], config['model'], config['epochs'], config['bs']) == (str(own), 'tiny', 1, 64)
    assert open_model(run, trust=False)[2]['command'].startswith(f'mnist-train --data {own} --from tiny --seed 42')
    image = next((digits/'testing'/'4').iterdir())
    assert load_run(run).predict(image)[0] in map(str, range(10))
    *_, card, _ = export_weights(run)
    assert 'Own pictures, held out: ' in card.read_text()
    assert Predictor(run).predict(image).digit in range(10)


def test_the_same_again_and_from_a_run(tuned, own, tmp_path):
    again = finetune(own, 'tiny', epochs=1, bs=64, images=640, mnist='digits', out=tmp_path/'again')
    assert again.metrics['own'] == tuned.metrics['own'] and again.metrics['test'] == tuned.metrics['test']
    further = finetune(own, tuned.path, epochs=1, images=640, mnist='digits', out=tmp_path/'further')
    assert further.metrics['before']['own'] == tuned.metrics['own']


def test_the_command_passes_on_what_it_was_given(tuned, own, monkeypatch, capsys):
    given = {}
    @wraps(finetune)
    def record(**kwargs): given.update(kwargs); return tuned
    monkeypatch.setattr('mnist_fastai.finetune.finetune', record)
    cli.mnist_train(str(own), From='tiny', epochs=2, lr=.002, seed=1)
    assert given == dict(data=str(own), model='tiny', epochs=2, lr=.002, seed=1)
    assert 'own pictures   ' in capsys.readouterr().out


def test_it_is_not_resumed(tuned):
    with pytest.raises(ValueError, match='start it anew'): resume(tuned.path)


@pytest.mark.fault('mistaken option')
@pytest.mark.parametrize('given, message', [
    (dict(data='digits', From='tiny'), "'digits' is not a folder of your own digits: expected pictures in"),
    (dict(From='tiny'), "'auto' is not a folder of your own digits"),
    (dict(data='OWN', From='huge'), "there is no model 'huge'"),
    (dict(data='OWN', From='tiny', arch='mlp'), 'leave out --arch'),
    (dict(data='OWN', From='tiny', recipe='best'), 'leave out --recipe'),
    (dict(data='OWN', From='tiny', resume='run'), 'leave out --'),
    (dict(data='OWN', From='tiny', epochs=0), 'epochs=0 is not possible')])
def test_a_mistake_is_one_clear_error_and_leaves_nothing(given, message, own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {k: str(own) if v == 'OWN' else v for k, v in given.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message): cli.mnist_train(**given)
    assert not [*tmp_path.iterdir()]


@pytest.mark.fault('bad data')
def test_a_folder_without_a_readable_digit_is_one_error(tmp_path):
    (tmp_path/'4').mkdir()
    (tmp_path/'4'/'a.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='no digit could be read in .*; of the first: '): own_path(tmp_path)


@pytest.mark.mnist
@only_full
def test_a_hand_that_is_misread_is_learned_and_mnist_is_not_forgotten(tmp_path):
    from mnist_fastai.data.sources import mnist_path
    files = mnist_path('mnist')/'training'
    own = draw(tmp_path/'own', files, {str(i): 5 for i in range(10)})
    run = finetune(own, 'best', mnist='mnist', out=tmp_path/'run')
    assert run.metrics['own']['accuracy'] >= run.metrics['before']['own']['accuracy']
    assert run.metrics['valid']['accuracy'] > run.metrics['before']['valid']['accuracy'] - .003
