"""A training run: what it writes, that it repeats itself, that it looks at the test set once, at the end."""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import only_full, run_command
from digit_files import as_csv, some_images, some_labels
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, load_learner

from mnist_fastai.compare.core import compare
from mnist_fastai.data.cache import _decoded, cache_file, file_states
from mnist_fastai.export import export_weights
from mnist_fastai.learner import recipe_learner, score_dl, seeded_dls
from mnist_fastai.models import archs
from mnist_fastai.report.page import report
from mnist_fastai.runs import find_run, load_predictions, load_run, run_summary
from mnist_fastai.stats import accuracy_interval
from mnist_fastai.train import export_learner, fit, make_config, resume, run_config, train
from mnist_fastai.utils import read_json

files = {'config.json', 'environment.json', 'history.csv', 'metrics.json', 'learner.pkl', 'weights.safetensors',
         'predictions.npz', 'loss.png', 'accuracy.png', 'schedule.png', 'predictions.png'}


def test_a_run_directory_holds_what_it_should(trained):
    run, _ = trained
    assert {o.name for o in run.iterdir()} == files
    assert all(o.stat().st_mode & 0o444 == 0o444 for o in run.iterdir())  # as the umask of most people says
    metrics, env = read_json(run/'metrics.json'), read_json(run/'environment.json')
    assert metrics['dataset'] == env['data']['name'] == 'digits (not MNIST)'
    assert metrics['test']['n'] == 360 and metrics['valid']['n'] == 287
    low, high = metrics['test']['interval']
    assert .9 < low < metrics['test']['accuracy'] < high < 1
    assert set(metrics['seconds']) == {'data', 'training', 'evaluation'}
    assert env['data']['training']['images'] == 1437 and len(env['data']['training']['sha256']) == 64
    assert env['threads'] >= 1 and env['packages']['fastai']
    assert len((run/'history.csv').read_text().splitlines()) == 7
    for png in run.glob('*.png'): assert png.read_bytes()[:4] == b'\x89PNG'


def test_same_seed_same_weights_in_another_process(tmp_path):
    def once(seed, name):
        done = run_command('mnist-train', '--data', 'digits', '--epochs', 2, '--bs', 64, '--seed', seed, '--out', name,
                           cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        metrics = read_json(tmp_path/name/'metrics.json')
        return (tmp_path/name/'weights.safetensors').read_bytes(), metrics['valid'], metrics['test']
    first = once(1, 'a')
    assert first == once(1, 'b')
    assert first[0] != once(2, 'c')[0]


def test_the_configuration_repeats_the_run(trained, tmp_path):
    run, _ = trained
    again = train(**read_json(run/'config.json'), out=tmp_path/'again')
    old = read_json(run/'metrics.json')
    assert (again.metrics['valid'], again.metrics['test']) == (old['valid'], old['test'])




opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)


@pytest.mark.parametrize('recipe', ['simple', 'batchnorm_aug', 'knn'])
def test_training_opens_no_test_image_and_the_test_set_is_scored_once(recipe, digits, tmp_path, monkeypatch):
    scored, during_training = [], []
    def score(learn, dl, real=score_dl): scored.append(dl); return real(learn, dl)
    def train_once(*args, real=fit):
        rows = real(*args)
        during_training.extend(opened)
        return rows
    monkeypatch.setattr('mnist_fastai.train.score_dl', score)
    monkeypatch.setattr('mnist_fastai.train.fit', train_once)
    test_cache = str(cache_file(digits/'testing', file_states(digits/'testing')))
    _decoded.cache_clear()
    opened.clear()
    run = train('digits', recipe, out=tmp_path/'run', **({} if recipe == 'knn' else dict(epochs=1, bs=64)))
    assert not [o for o in during_training if '/testing/' in o or o == test_cache]
    assert [o for o in opened if '/testing/' in o or o == test_cache]  # the hook does see them, later
    testing = [dl for dl in scored if dl.dataset.items[0].parent.parent.name == 'testing']
    assert len(testing) == 1 and len(run.learn.dls.loaders) == 2


@pytest.mark.parametrize('recipe', ['simple', 'knn'])
def test_training_goes_the_same_way_when_no_test_image_can_be_read(recipe, digits, tmp_path):
    shutil.copytree(digits, tmp_path/'blind')
    for file in (tmp_path/'blind'/'testing').rglob('*.png'): file.write_bytes(b'nothing to see')
    fields = {} if recipe == 'knn' else dict(epochs=1, bs=64)
    seen = train(digits, recipe, out=tmp_path/'seen', **fields)
    with pytest.raises(ValueError, match='testing.*is not a readable image'):  # only now, when it is scored
        train(tmp_path/'blind', recipe, out=tmp_path/'run', **fields)
    blind = load_run(tmp_path/'run')
    with blind.no_bar(): probs, _ = blind.get_preds(dl=blind.dls.test_dl(seen.learn.dls.valid_ds.items))
    assert np.array_equal(probs, torch.from_numpy(load_predictions(seen.path, 'valid')[0]).softmax(1))


@pytest.mark.parametrize('recipe', ['linear', 'knn', 'svm'])
def test_a_classical_method_is_a_run_like_any_other(recipe, digits, tmp_path):
    run = train('digits', recipe, out=tmp_path/'run')
    assert {o.name for o in run.path.iterdir()} == files - {
        'weights.safetensors', 'history.csv', 'loss.png', 'accuracy.png', 'schedule.png'}
    assert run.metrics['test']['accuracy'] > .9 and run.metrics['parameters'] > 0
    assert read_json(run.path/'config.json')['epochs'] is None
    again = train(**read_json(run.path/'config.json'), out=tmp_path/'again')
    assert again.metrics['test'] == run.metrics['test']
    digit, _, probs = load_run(run.path).predict(digits/'testing'/'4'/'246.png')
    assert digit == '4' and float(probs.sum()) == pytest.approx(1)


def test_every_field_of_a_recipe_changes_the_training(digits, tmp_path):
    base = dict(epochs=2, bs=64, train_size=200)
    other = dict(arch='mlp', augment='affine', pixels='raw', opt='sgd', schedule='flat', epochs=3, bs=32, lr=.001,
                 wd=.5)
    losses = {}
    for i, change in enumerate([{}, *({k: v} for k, v in other.items())]):
        run = train('digits', out=tmp_path/str(i), **{**base, **change})
        losses[str(change)] = (run.path/'history.csv').read_text().splitlines()[-1].split(',')[1]
        for k, v in {**base, **change}.items(): assert read_json(run.path/'config.json')[k] == v
    assert len(set(losses.values())) == 1 + len(other), losses


def test_one_hot_targets_train_to_the_same_network(digits, tmp_path):
    a, b = (train('digits', epochs=2, bs=64, loss=o, out=tmp_path/o) for o in ('class_index', 'one_hot'))
    assert a.metrics['valid']['accuracy'] == pytest.approx(b.metrics['valid']['accuracy'], abs=.02)
    assert type(b.learn.loss_func).__name__ == 'OneHotCrossEntropy'
    _, _, probs = load_run(b.path).predict(digits/'testing'/'4'/'246.png')
    assert float(probs.sum()) == pytest.approx(1)  # the loss knows its activation


def test_a_training_looks_at_its_images_once(digits, tmp_path, monkeypatch):
    looked, states = [], file_states
    monkeypatch.setattr('mnist_fastai.data.cache.file_states', lambda o: looked.append(o.name) or states(o))
    train(str(digits), 'fast', epochs=1, bs=64, out=tmp_path/'run')
    assert looked.count('training') == 1


def test_a_gpu_means_mixed_precision_and_a_cpu_does_not(digits, tmp_path, monkeypatch):
    c = make_config(str(digits), 'fast', 1)
    dls = seeded_dls(digits, c, 1)
    assert not hasattr(recipe_learner(dls, c, tmp_path), 'mixed_precision')
    with monkeypatch.context() as m:
        m.setattr(DataLoaders, 'device', torch.device('cuda'))  # only the name: no tensor goes there
        learn = recipe_learner(dls, c, tmp_path)
    assert learn.mixed_precision.amp_mode.value == 'bf16'
    export_learner(learn)
    assert not hasattr(load_learner(tmp_path/'learner.pkl'), 'mixed_precision')  # and on a CPU it predicts in float32


def test_without_validation_all_images_train_and_the_test_is_scored(digits, tmp_path):
    run = train(str(digits), 'fast', valid_size=0, epochs=8, bs=32, out=tmp_path/'run')
    assert run.metrics['train_images'] == 1437 and run.metrics['valid'] is None and run.metrics['test']['n'] == 360
    assert run.metrics['test']['accuracy'] > .9
    assert 'none: trained on all' in run_summary(run) and not (run.path/'accuracy.png').exists()
    assert np.load(run.path/'predictions.npz')['valid_scores'].shape == (0, 10)
    model = run.learn.model
    assert model[0].weight.equal(archs['fast_cnn']()[0].weight)  # the fixed filters have stayed as they were


def test_without_test_images_no_score_is_claimed_and_nothing_is_compared(tmp_path, digits):
    source = f"{as_csv(tmp_path/'train.csv', some_images, some_labels)}:all"
    run = train(source, 'fast', epochs=1, bs=32, out=tmp_path/'run')
    assert run.metrics['train_images'] == 160 and run.metrics['valid']['n'] == 40 and run.metrics['test'] is None
    assert 'test accuracy  none: trained on all' in run_summary(run) and not (run.path/'predictions.png').exists()
    export_weights(run.path)
    assert 'Test images: none: trained on all\n' in (run.path/'weights.md').read_text()
    with pytest.raises(ValueError, match='has no test images: name others with --data'):
        report(run.path, out=tmp_path/'page')
    with pytest.raises(ValueError, match='has no test images: compare'):
        compare(['fast'], source, out=tmp_path/'compared')
    assert not (tmp_path/'page').exists() and not (tmp_path/'compared').exists()


@pytest.mark.fault('mistaken option')
@pytest.mark.parametrize('kwargs', [dict(epochs=0), dict(bs=-1), dict(lr=0.), dict(lr=float('nan')),
                                    dict(lr=float('inf')), dict(wd=-1.), dict(valid_size=9), dict(seed=-1),
                                    dict(seed=2**64), dict(split_seed=-1), dict(arch='lenet'), dict(train_size=1)])
def test_a_wrong_value_is_refused_before_anything_is_written(kwargs, digits, tmp_path):
    with pytest.raises(ValueError, match=next(iter(kwargs)).replace('arch', 'network')):
        train('digits', out=tmp_path/'run', **kwargs)
    assert not (tmp_path/'run').exists()


@pytest.mark.fault('loss not finite')
def test_a_training_that_diverges_is_an_error_and_no_result(digits, tmp_path):
    with pytest.raises(ValueError, match='diverged.*try a smaller lr'):
        train('digits', epochs=1, bs=64, lr=1e12, out=tmp_path/'run')
    assert not (tmp_path/'run'/'metrics.json').exists() and not (tmp_path/'run'/'learner.pkl').exists()
    assert 'diverged' in read_json(tmp_path/'run'/'failed.json')['error']
    with pytest.raises(ValueError, match='run has failed: .*try a smaller lr'): resume(tmp_path/'run')
    with pytest.raises(FileNotFoundError, match='no finished run'): find_run(folder=tmp_path)


@pytest.mark.fault('bad data')
def test_a_bad_test_image_does_not_cost_the_training(digits, tmp_path):
    shutil.copytree(digits, tmp_path/'mine')
    next((tmp_path/'mine'/'testing'/'3').iterdir()).write_bytes(b'no image')
    with pytest.raises(ValueError, match='not a readable image'):
        train(tmp_path/'mine', epochs=1, bs=64, out=tmp_path/'run')
    assert isinstance(load_run(tmp_path/'run'), Learner)


def test_a_name_inside_a_folder_of_somebodys_is_not_believed(digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path/'mine')
    (tmp_path/'mine'/'dataset.json').write_text(json.dumps(dict(name='../../../evil MNIST')))
    monkeypatch.chdir(tmp_path)
    run = train('mine', epochs=1, bs=64)
    assert run.metrics['dataset'] == 'mine (not MNIST)' and run.path.parent == Path('runs')
    assert run.config['data'] == str(tmp_path/'mine')  # repeats from any folder


def test_nothing_is_overwritten(trained):
    run, _ = trained
    before = {o.name: o.stat().st_mtime_ns for o in run.iterdir()}
    with pytest.raises(FileExistsError, match='nothing is overwritten'): train('digits', epochs=1, out=run)
    assert {o.name: o.stat().st_mtime_ns for o in run.iterdir()} == before


def test_an_interval_is_wilsons():
    # Wilson's formula with z = 1.959964, worked out by hand for 8 of 10
    assert accuracy_interval(8, 10)['interval'] == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert accuracy_interval(10, 10)['interval'][1] == 1.


def test_what_is_written_is_plain_json(trained):
    run, _ = trained
    for file in run.glob('*.json'): json.loads(file.read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity


@pytest.mark.mnist
@pytest.mark.parametrize('recipe, least', [('fast', .985), pytest.param('simple', .975, marks=only_full)])
def test_one_epoch_on_mnist_is_enough_for_most_digits(recipe, least, tmp_path):
    run = train('mnist', recipe, epochs=1, out=tmp_path/'run')
    assert run.metrics['dataset'] == 'MNIST' and run.metrics['test']['n'] == 10_000
    assert run.metrics['test']['accuracy'] > least


def test_the_callbacks_of_a_recipe_reach_its_training(digits, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(Learner, 'add_cb', lambda self, cb, add=Learner.add_cb: used.append(cb) or add(self, cb))
    run = train('digits', 'mlp', epochs=2, ema=.9, no_aug_epochs=1, precision='bfloat16', augment='affine',
                     mix='cutmix', teacher='strong', out=tmp_path/'run')
    wanted = {'EMA', 'NoAugEnd', 'BFloat16', 'CutMix', 'Distill'}
    assert {type(o).__name__ for o in used} >= wanted
    assert next(run.learn.model.parameters()).dtype == torch.float32
    assert not wanted & {type(o).__name__ for o in load_run(run.path).cbs}


def test_an_interrupted_training_leaves_no_bfloat16_behind(digits, tmp_path):
    class Interrupt(Callback):
        order = 99
        def before_batch(self): raise KeyboardInterrupt

    config = make_config('digits', 'mlp:precision=bfloat16', 1)
    with pytest.raises(KeyboardInterrupt): run_config(config, tmp_path/'run', cbs=[Interrupt()])
    assert not torch.is_autocast_enabled('cpu')
    assert (torch.randn(2, 2)@torch.randn(2, 2)).dtype == torch.float32


def test_a_teacher_wants_standardized_pixels_and_must_exist(digits, tmp_path):
    with pytest.raises(ValueError, match='expected standardized'): make_config('digits', 'tiny:pixels=raw', 1)
    with pytest.raises(ValueError, match="no pretrained network 'nobody': expected one of"):
        train('digits', 'mlp', epochs=1, teacher='nobody', out=tmp_path/'run')
    assert not (tmp_path/'run').exists()


@pytest.mark.fault('hostile or damaged files')
def test_a_link_in_a_strangers_run_is_not_written_through(trained, tmp_path):
    learn = load_run(trained[0])
    learn.path = tmp_path/'run'
    learn.path.mkdir()
    (tmp_path/'mine').write_text('mine')
    for name in ('.learner.pkl', 'learner.pkl'): (learn.path/name).symlink_to(tmp_path/'mine')
    export_learner(learn)
    assert (tmp_path/'mine').read_text() == 'mine'
    assert not (learn.path/'learner.pkl').is_symlink() and load_learner(learn.path/'learner.pkl')
