"""A run: what it writes, that it repeats itself, that it looks at the test set once, at the end."""
import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
from conftest import run_command
from fastai.learner import Learner, load_learner

from mnist_fastai import runs
from mnist_fastai.data import mnist_path

files = {'config.json', 'environment.json', 'history.csv', 'metrics.json', 'learner.pkl',
         'loss.png', 'accuracy.png', 'schedule.png', 'predictions.png'}
weights_hash = '''
import hashlib, warnings; warnings.simplefilter("ignore")
from mnist_fastai.runs import train
run = train("digits", epochs=2, bs=64, seed={seed}, out={out!r})
state = b"".join(p.cpu().numpy().tobytes() for p in run.learn.model.state_dict().values())
print(hashlib.sha256(state).hexdigest(), run.metrics["valid"], run.metrics["test"])
'''


def test_a_run_directory_holds_what_it_should(trained):
    run, _ = trained
    assert {o.name for o in run.iterdir()} == files
    assert all(o.stat().st_mode & 0o444 == 0o444 for o in run.iterdir())  # as the umask of most people says
    metrics, env = runs.read_json(run/'metrics.json'), runs.read_json(run/'environment.json')
    assert metrics['dataset'] == env['data']['name'] == 'digits (not MNIST)'
    assert metrics['test']['n'] == 360 and metrics['valid']['n'] == 287
    low, high = metrics['test']['interval']
    assert .9 < low < metrics['test']['accuracy'] < high < 1
    assert set(metrics['seconds']) == {'data', 'setup', 'training', 'evaluation'}
    assert env['data']['training']['images'] == 1437 and len(env['data']['training']['sha256']) == 64
    assert env['threads'] >= 1 and env['packages']['fastai']
    assert len((run/'history.csv').read_text().splitlines()) == 7
    for png in run.glob('*.png'): assert png.read_bytes()[:4] == b'\x89PNG'


def test_the_plots_show_every_batch_and_epoch(digits, tmp_path, monkeypatch):
    drawn = {}
    def save_plot(file, fig=None, real=runs.save_plot):
        lines = [line for ax in (fig or runs.plt.gcf()).axes for line in ax.lines]
        drawn[file.name] = [len(line.get_xdata()) for line in lines]
        real(file, fig)
    monkeypatch.setattr(runs, 'save_plot', save_plot)
    runs.train('digits', epochs=3, bs=64, out=tmp_path/'run')
    assert drawn == {'loss.png': [51, 3], 'accuracy.png': [3], 'schedule.png': [51, 51], 'predictions.png': []}


def test_same_seed_same_weights_in_another_process(tmp_path):
    def once(seed, name):
        done = run_command('python', weights_hash.format(seed=seed, out=str(tmp_path/name)), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]
    first = once(1, 'a')
    assert first == once(1, 'b')
    assert first.split()[0] != once(2, 'c').split()[0]


def test_the_configuration_repeats_the_run(trained, tmp_path):
    run, _ = trained
    again = runs.train(**runs.read_json(run/'config.json'), out=tmp_path/'again')
    old = runs.read_json(run/'metrics.json')
    assert (again.metrics['valid'], again.metrics['test']) == (old['valid'], old['test'])


opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)


def test_training_opens_no_test_image_and_the_test_set_is_scored_once(digits, tmp_path, monkeypatch):
    scored, during_training = [], []
    def score(learn, dl, real=runs.score): scored.append(dl); return real(learn, dl)
    def fit(*args, real=runs.fit):
        rows = real(*args)
        during_training.extend(o for o in opened if '/testing/' in o)
        return rows
    monkeypatch.setattr(runs, 'score', score)
    monkeypatch.setattr(runs, 'fit', fit)
    opened.clear()
    run = runs.train('digits', epochs=2, bs=64, out=tmp_path/'run')
    assert during_training == []
    assert any('/testing/' in o for o in opened)  # the hook does see such files, when the run is scored
    testing = [dl for dl in scored if dl.dataset.items[0].parent.parent.name == 'testing']
    assert len(testing) == 1 and len(run.learn.dls.loaders) == 2


def test_the_exported_learner_needs_nothing_but_the_package(trained, tmp_path):
    run, _ = trained
    code = f'''
import warnings; warnings.simplefilter("ignore")
from fastai.learner import Learner, load_learner
learn = load_learner({str(run/'learner.pkl')!r})
with learn.no_bar(): label, index, probs = learn.predict({str(mnist_path('digits')/'testing'/'4'/'246.png')!r})
print(label, round(float(probs.sum()), 4), len(learn.dls.train_ds))
'''
    done = run_command('python', code, cwd=tmp_path)
    assert done.stdout.split() == ['4', '1.0', '0'], done.stderr


def test_no_pixels_travel_in_the_export(trained):
    run, _ = trained
    assert (run/'learner.pkl').stat().st_size < 1_000_000
    assert load_learner(run/'learner.pkl').dls.train._store is None


def test_two_runs_in_the_same_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len({runs.new_run(name='x') for _ in range(5)}) == 5


def test_a_half_finished_run_is_not_the_newest(trained, tmp_path):
    run, _ = trained
    (run.parent/'zzz').mkdir(exist_ok=True)
    (run.parent/'zzz'/'config.json').write_text('{}')
    assert runs.find_run(folder=run.parent) == run
    with pytest.raises(FileNotFoundError, match='no finished run'): runs.find_run(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match='no finished run'): runs.find_run(run.parent/'zzz')


@pytest.mark.parametrize('kwargs', [dict(epochs=0), dict(bs=-1), dict(lr=0.), dict(lr=float('nan')),
                                    dict(lr=float('inf')), dict(wd=-1.), dict(valid_size=0), dict(seed=-1),
                                    dict(seed=2**64), dict(split_seed=-1), dict(arch='lenet'), dict(train_size=1)])
def test_a_wrong_value_is_refused_before_anything_is_written(kwargs, digits, tmp_path):
    with pytest.raises(ValueError, match=next(iter(kwargs)).replace('arch', 'network')):
        runs.train('digits', out=tmp_path/'run', **kwargs)
    assert not (tmp_path/'run').exists()


def test_a_training_that_diverges_is_an_error_and_no_result(digits, tmp_path):
    with pytest.raises(ValueError, match='diverged.*try a smaller lr'):
        runs.train('digits', epochs=1, bs=64, lr=1e12, out=tmp_path/'run')
    assert not (tmp_path/'run'/'metrics.json').exists() and not (tmp_path/'run'/'learner.pkl').exists()


def test_a_bad_test_image_does_not_cost_the_training(digits, tmp_path):
    shutil.copytree(digits, tmp_path/'mine')
    next((tmp_path/'mine'/'testing'/'3').iterdir()).write_bytes(b'no image')
    with pytest.raises(ValueError, match='not a readable image'):
        runs.train(tmp_path/'mine', epochs=1, bs=64, out=tmp_path/'run')
    assert isinstance(runs.load_run(tmp_path/'run'), Learner)


def test_a_name_inside_a_folder_of_somebodys_is_not_believed(digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path/'mine')
    (tmp_path/'mine'/'dataset.json').write_text(json.dumps(dict(name='../../../evil MNIST')))
    monkeypatch.chdir(tmp_path)
    run = runs.train('mine', epochs=1, bs=64)
    assert run.metrics['dataset'] == 'mine (not MNIST)' and run.path.parent == Path('runs')
    assert run.config['data'] == str(tmp_path/'mine')  # repeats from any folder


@pytest.mark.parametrize('content', [b'', b'hello', pickle.dumps({})])
def test_a_damaged_learner_is_one_clear_error(content, tmp_path):
    (tmp_path/'learner.pkl').write_bytes(content)
    with pytest.raises(ValueError, match='learner.pkl (cannot be loaded|holds a)'): runs.load_run(tmp_path)


def test_nothing_is_overwritten(trained):
    run, _ = trained
    before = {o.name: o.stat().st_mtime_ns for o in run.iterdir()}
    with pytest.raises(FileExistsError, match='nothing is overwritten'): runs.train('digits', epochs=1, out=run)
    assert {o.name: o.stat().st_mtime_ns for o in run.iterdir()} == before


def test_an_interval_is_wilsons():
    # Wilson's formula with z = 1.959964, worked out by hand for 8 of 10
    assert runs.share(8, 10)['interval'] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert runs.share(10, 10)['interval'][1] == 1.


def test_what_is_written_is_plain_json(trained):
    run, _ = trained
    for file in run.glob('*.json'): json.loads(file.read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity


@pytest.mark.mnist
def test_one_epoch_on_mnist_reaches_97_5_percent(tmp_path):
    run = runs.train('mnist', epochs=1, out=tmp_path/'run')
    assert run.metrics['dataset'] == 'MNIST' and run.metrics['test']['n'] == 10_000
    assert run.metrics['test']['accuracy'] > .975
