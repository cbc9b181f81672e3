"""Comparisons: every combination once, ranked on validation, honest about noise, and going on after a fault."""
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import cpu_count
import torch
from conftest import listen_to_ctrl_c, only_full
from scipy import stats

import mnist_fastai
from mnist_fastai.compare.core import comparison_summary
from mnist_fastai.compare.ensemble import choose_members, ensemble
from mnist_fastai.compare.leaderboard import compare_pair, compare_pairs, leaderboard
from mnist_fastai.compare.trials import plan_trials, run_trial, trial_name
from mnist_fastai.environment import code_version
from mnist_fastai.compare.core import compare
from mnist_fastai.compare.leaderboard import leaderboard_table
from mnist_fastai.data.cache import describe
from mnist_fastai.recipes import recipes as all_recipes
from mnist_fastai.utils import read_json

bin = Path(sys.executable).parent
recipes = ['mlp:epochs=2:bs=64', 'simple:epochs=2:bs=64', 'knn']
written = {'trials', 'trials.csv', 'leaderboard.csv', 'leaderboard.md', 'pairs.csv', 'accuracy.png', 'parameters.png',
           'seconds.png', 'learning_curves.png', 'training_sizes.png'}


@pytest.fixture(scope='module')
def compared(tmp_path_factory, digits):
    "A small comparison on the offline digits: (what `compare` gave, its folder)"
    out = tmp_path_factory.mktemp('compared')
    return compare(recipes, 'digits', seeds=3, train_sizes=[300, 1437], jobs=2, out=out), out


def test_every_combination_is_run_once(compared):
    found, out = compared
    trials = pd.read_csv(out/'trials.csv')
    assert set(trials.threads) == {1 if cpu_count() < 4 else cpu_count()//2} and trials.torch.notna().all()
    done = sorted(zip(trials.recipe, trials.train_images, trials.seed))
    networks = [(r, n, s) for r in recipes[:2] for n in (300, 1150) for s in (1, 2, 3)]
    assert done == sorted([*networks, ('knn', 300, 1), ('knn', 1150, 1)])  # knn has no randomness
    assert found.failed == [] and {o.name for o in out.iterdir()} == written
    assert not list((out/'trials').glob('.*'))
    for png in out.glob('*.png'): assert png.read_bytes()[:4] == b'\x89PNG'


def test_the_leaderboard_is_what_the_runs_say(compared):
    _, out = compared
    board = pd.read_csv(out/'leaderboard.csv')
    assert len(board) == 6
    for _, row in board.iterrows():
        runs = [o for o in (out/'trials').iterdir() if read_json(o/'config.json')['recipe'] == row.recipe
                and read_json(o/'metrics.json')['train_images'] == row.train_images]
        test = [read_json(o/'metrics.json')['test']['accuracy'] for o in runs]
        assert len(runs) == row.seeds and row.test == pytest.approx(np.mean(test), abs=1e-5)
        if row.recipe == 'knn':
            assert np.isnan(row.test_std) and np.isnan(row.epochs)
            assert row.parameters == row.multiply_adds == 784*row.train_images
            continue
        low, high = stats.ttest_1samp(test, 0).confidence_interval(.95)
        assert (row.test_std, row.test_low, row.test_high) == pytest.approx((np.std(test, ddof=1), low, high), abs=1e-5)
        assert row.parameters == (109_386 if 'mlp' in row.recipe else 108_922) and row.epochs == 2 and row.seconds > 0
    assert (out/'leaderboard.md').read_text() == leaderboard_table(board) + '\n'


def test_validation_ranks_and_the_test_set_does_not():
    trials = pd.DataFrame([dict(recipe=r, train_images=100, seed=s, epochs=1, parameters=1, multiply_adds=1, seconds=1.,
                                valid=v, test=t, stress=v,
                                worst=v, dataset='x', trial='') for r, v, t in (('a', .9, .5), ('b', .8, .99))
                           for s in (1, 2)])
    assert list(leaderboard(trials).recipe) == ['a', 'b']


def test_pairs_are_compared_seed_by_seed(compared):
    found, out = compared
    trials, pairs = pd.read_csv(out/'trials.csv'), pd.read_csv(out/'pairs.csv')
    assert len(pairs) == 6 and set(pairs.train_images) == {300, 1150}
    for p in pairs.itertuples():
        of = {r: trials[(trials.recipe == r) & (trials.train_images == p.train_images)].set_index('seed').test
              for r in (p.a, p.b)}
        a, b = ([*v]*(3 if len(v) == 1 else 1) for v in of.values())
        assert p.test_difference == pytest.approx(np.mean(a) - np.mean(b), abs=1e-4) and p.seeds == 3
        assert p.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-2)
        assert len(str(p.mcnemar).split()) == 3
    assert found.pairs.larger_than_noise.dtype == bool


def pretend(folder, recipe, seed, right, epochs=1.):
    "A row as from `read_trials`, and its predictions: `right` says which of the test images are"
    (folder/f'{recipe}-{seed}').mkdir()
    labels = np.arange(len(right)) % 10
    np.savez(folder/f'{recipe}-{seed}'/'predictions.npz', test_scores=np.eye(10)[np.where(right, labels, 9 - labels)],
             test_labels=labels)
    return dict(recipe=recipe, train_images=100, seed=seed, epochs=epochs, parameters=1, multiply_adds=1, seconds=1.,
                valid=right.mean(), test=right.mean(), stress=0, worst=0, dataset='x', trial=f'{recipe}-{seed}')


@pytest.mark.parametrize('seeds', [1, 5])  # McNemar's test for a single seed, else the paired t-test
def test_equal_models_are_within_the_noise_and_unequal_ones_are_not(seeds, tmp_path):
    rng = np.random.default_rng(3)
    trials = pd.DataFrame([pretend(tmp_path, r, s, rng.random(1000) < acc)
                           for r, acc in (('a', .9), ('b', .9), ('worse', .8)) for s in range(seeds)])
    pairs = compare_pairs(trials, leaderboard(trials), tmp_path)
    assert list(pairs.larger_than_noise) == list((pairs.a == 'worse') | (pairs.b == 'worse'))


def test_only_what_has_no_randomness_stands_for_all_seeds(tmp_path):
    rng = np.random.default_rng(1)
    def rows(recipe, seeds, epochs=1.):
        return pd.DataFrame([pretend(tmp_path, recipe, s, rng.random(1000) < .9, epochs) for s in range(seeds)])
    five, one, fitted = rows('five', 5), rows('one', 1), rows('fitted', 1, epochs=None)
    assert compare_pair(five, one, tmp_path)['seeds'] == 1
    assert compare_pair(five, fitted, tmp_path)['seeds'] == 5
    assert compare_pair(rows('late', 3).assign(seed=[7, 8, 9]), five, tmp_path) == {}


def test_the_same_difference_with_every_seed_is_no_certainty(tmp_path):
    def rows(recipe, counts):
        return pd.DataFrame([pretend(tmp_path, recipe, s, np.arange(360) < n) for s, n in enumerate(counts)])
    found = compare_pair(rows('a', [345, 349, 342]), rows('b', [340, 344, 337]), tmp_path)
    assert found['p'] == pytest.approx(2/2**5)  # five images of one kind and none of the other: McNemar's


def test_what_is_done_is_not_run_again(compared, capfd):
    _, out = compared
    before = {o: o.stat().st_mtime_ns for o in (out/'trials').rglob('*')}
    compare(recipes, 'digits', seeds=3, train_sizes=[300, 1150], jobs=2, out=out)
    assert '14 trials, 14 of them done before' in capfd.readouterr().out
    assert {o: o.stat().st_mtime_ns for o in (out/'trials').rglob('*')} == before


def test_other_data_other_code_and_other_settings_are_other_trials(digits, monkeypatch):
    trial = plan_trials('digits', ['mlp'], 1, [None], describe(digits))[0]
    names = {trial_name(trial, 'x'), trial_name(trial, 'y'), trial_name({**trial, 'lr': .5}, 'x')}
    assert len(names) == 3
    version = code_version()
    assert version == code_version()
    monkeypatch.setattr('mnist_fastai.environment.environment', lambda: dict(packages=dict(torch='0.1')))
    assert version != code_version()


def test_only_code_counts_as_code(tmp_path, monkeypatch):
    package = Path(mnist_fastai.__file__).parent
    shutil.copytree(package, tmp_path/'copy')
    version = code_version()
    monkeypatch.setattr(mnist_fastai, '__file__', str(tmp_path/'copy'/'__init__.py'))
    runs = tmp_path/'copy'/'runs.py'
    runs.write_text(runs.read_text().replace('"Train by a recipe', '# a comment\n    "Teach by a recipe'))
    assert code_version() == version
    runs.write_text(runs.read_text().replace('reproducible=True', 'reproducible=False'))
    assert code_version() != version


def test_an_edited_recipe_is_another_one(tmp_path, digits, monkeypatch, capsys):
    monkeypatch.setitem(all_recipes, 'mlp', all_recipes['mlp'] | dict(epochs=1))
    compare(['mlp', 'linear'], 'digits', 2, jobs=1, out=tmp_path)
    monkeypatch.setitem(all_recipes, 'mlp', all_recipes['mlp'] | dict(epochs=2))
    board = compare(['mlp', 'linear'], 'digits', 2, jobs=1, out=tmp_path).board
    assert board.set_index('recipe').seeds.to_dict() == dict(mlp=2, linear=1)
    assert board.set_index('recipe').epochs['mlp'] == 2
    assert '2 trials of other code, data or recipes are left out' in capsys.readouterr().out


def test_the_same_thing_by_two_names_is_trained_once(digits):
    found = plan_trials('digits', ['mlp', 'mlp:epochs=10', 'mlp', 'mlp:epochs=9'], 1, [None], describe(digits))
    assert [o.recipe for o in found] == ['mlp', 'mlp:epochs=9']


@pytest.mark.parametrize('names', [['linear'], ['linear', 'knn'], ['mlp:epochs=1']])
def test_few_recipes_are_enough(names, tmp_path, digits):
    found = compare(names, 'digits', 1, jobs=1, out=tmp_path)
    assert set(found.board.recipe) == set(names) and all(f'`{o}`' in comparison_summary(found) for o in names)
    assert (tmp_path/'learning_curves.png').exists() == ('mlp:epochs=1' in names)
    assert len(pd.read_csv(tmp_path/'pairs.csv')) == len(names) - 1


def dies_of_knn(trial, dest, work, *args, real=run_trial):
    "As `run_trial`, but the process is gone when it comes to the nearest neighbours"
    (work/dest.name).mkdir()
    if trial['arch'] == 'knn': os._exit(1)
    time.sleep(.2)
    (work/dest.name).rmdir()
    return real(trial, dest, work, *args)


@pytest.mark.fault('trial or worker killed')
def test_a_killed_process_costs_one_trial(tmp_path, digits, monkeypatch, capsys):
    monkeypatch.setattr('mnist_fastai.compare.trials.run_trial', dies_of_knn)
    found = compare(['mlp:epochs=1', 'knn', 'linear'], 'digits', 2, jobs=2, out=tmp_path)
    assert len(found.failed) == 1 and found.failed[0]['name'].startswith('knn-all-1')
    assert 'killed' in found.failed[0]['error'] and 'FAILED' in comparison_summary(found)
    assert found.board.set_index('recipe').seeds.to_dict() == {'mlp:epochs=1': 2, 'linear': 1}
    assert not list((tmp_path/'trials').glob('.*'))


@pytest.mark.fault('two at once')
def test_two_at_once_in_one_folder_lose_nothing(tmp_path, digits):
    args = [bin/'mnist-compare', '--data', 'digits', '--recipes', 'mlp:epochs=1, linear,', '--seeds', '3', '--out', 'c']
    both = [subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    assert sorted(o.name[:9] for o in (tmp_path/'c'/'trials').iterdir()) == ['linear-al', *['mlp-epoch']*3]
    assert len(pd.read_csv(tmp_path/'c'/'trials.csv')) == 4


def test_a_folder_that_is_no_finished_trial_is_replaced(tmp_path, digits, capsys):
    compare(['linear'], 'digits', 1, jobs=1, out=tmp_path)
    trial = next((tmp_path/'trials').iterdir())
    (trial/'metrics.json').unlink()
    assert compare(['linear'], 'digits', 1, jobs=1, out=tmp_path).failed == [] and (trial/'metrics.json').exists()


def test_a_trial_that_fails_is_reported_and_the_others_go_on(sh, tmp_path):
    done = sh('mnist-compare', '--data', 'digits', '--recipes', 'mlp:epochs=1,mlp:epochs=1:lr=1e12,knn', '--seeds', 2,
              '--out', 'c')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert '2 trials failed' in done.stderr and done.stdout.count('FAILED') == 2 and 'diverged' in done.stdout
    board = pd.read_csv(tmp_path/'c'/'leaderboard.csv')
    assert set(board.recipe) == {'mlp:epochs=1', 'knn'} and '1e12' not in (tmp_path/'c'/'trials.csv').read_text()
    assert len(list((tmp_path/'c'/'trials').iterdir())) == 3


@pytest.mark.fault('Ctrl-C or SIGTERM')
@pytest.mark.parametrize('sign, code, says', [
    (signal.SIGINT, 1, 'interrupted'), pytest.param(signal.SIGTERM, 143, '', marks=only_full)])
def test_interrupted_it_goes_on_where_it_was(sign, code, says, tmp_path, digits):
    args = [bin/'mnist-compare', '--data', 'digits', '--recipes', 'mlp:epochs=2,simple:epochs=30', '--seeds', '2',
            '--out', 'c']
    process = subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=listen_to_ctrl_c)
    first = next(line for line in process.stdout if line.startswith('1/4'))
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and err.strip().endswith(says) and 'Traceback' not in err
    time.sleep(1)
    kept = {o.name: o.stat().st_mtime_ns for o in (tmp_path/'c'/'trials').iterdir()}
    assert re.split(r'\s+', first)[1] in kept and len(kept) < 4 and not any(o.startswith('.') for o in kept)
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'4 trials, {len(kept)} of them done before' in done.stdout
    now = {o.name: o.stat().st_mtime_ns for o in (tmp_path/'c'/'trials').iterdir()}
    assert len(now) == 4 and kept.items() <= now.items()


def test_side_by_side_gives_what_one_after_the_other_gives(tmp_path, digits):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two processes has; another number rounds differently
    try: boards = [compare(['mlp:epochs=1', 'simple:epochs=1'], 'digits', 2, jobs=jobs, out=tmp_path/str(jobs)).board
                   for jobs in (1, 2)]
    finally: torch.set_num_threads(threads)
    one, two = (o.drop(columns='seconds').sort_values('recipe', ignore_index=True) for o in boards)
    pd.testing.assert_frame_equal(one, two)


def test_the_ranking_does_not_depend_on_the_test_labels(tmp_path, digits):
    shutil.copytree(digits, tmp_path/'turned')
    folders = [tmp_path/'turned'/'testing'/str(i) for i in range(10)]
    for o in folders: o.rename(f'{o}x')
    for i, o in enumerate(folders): Path(f'{o}x').rename(folders[(i + 1) % 10])  # every test label is wrong now
    right, wrong = (compare(['mlp:epochs=2', 'linear', 'knn'], data, 2, jobs=1, out=tmp_path/out).board
                    for data, out in (('digits', 'a'), (str(tmp_path/'turned'), 'b')))
    assert list(right.recipe) == list(wrong.recipe) and list(right.valid) == list(wrong.valid)
    assert right.test.min() > .7 and wrong.test.max() < .2


mistakes = {
    'no such recipe': (['--recipes', 'mlp,resnet'], "there is no recipe 'resnet'"),
    'too many images': (['--train-size', '60000'], 'train-size 60000 is not possible'),
    'no number': (['--train-size', '100,many'], "'many' is no whole number"),
    'no seeds': (['--seeds', '0'], 'seeds=0 is not possible'),
    'no jobs': (['--jobs', '0'], 'jobs=0 is not possible'),
    'no such tracker': (['--log', 'mlflow'], "there is no tracker 'mlflow': expected one of tensorboard, wandb"),
}


@pytest.mark.fault('mistaken option')
@pytest.mark.parametrize('name', mistakes)
def test_a_mistake_is_one_clear_line_and_nothing_is_run(name, sh, tmp_path):
    args, message = mistakes[name]
    done = sh('mnist-compare', '--data', 'digits', *args)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_every_network_is_scored_under_stress(compared):
    _, out = compared
    board, trials = pd.read_csv(out/'leaderboard.csv'), pd.read_csv(out/'trials.csv')
    for _, row in trials.iterrows():
        stress = read_json(out/'trials'/row.trial/'metrics.json')['stress']
        assert row.stress == pytest.approx(np.mean(list(stress['kinds'].values())), abs=1e-5)
        assert row.worst == pytest.approx(min(stress['kinds'].values()), abs=1e-5)
        assert row.worst < row.stress < row.valid
    for _, row in board.iterrows():
        same = trials[(trials.recipe == row.recipe) & (trials.train_images == row.train_images)]
        assert (row.stress, row.worst) == pytest.approx((same.stress.mean(), same.worst.mean()), abs=1e-5)


def test_trained_on_all_there_is_no_validation_accuracy(tmp_path, digits, capsys):
    found = compare(['mlp:epochs=1', 'linear'], 'digits', seeds=2, jobs=1, out=tmp_path, valid_size=0)
    assert list(found.board.train_images) == [1437, 1437] and found.board.valid.isna().all()
    assert found.board.test.between(.3, 1).all() and found.board.stress.isna().all()
    assert not re.search('validation|stress|nan', (tmp_path/'leaderboard.md').read_text())
    assert not (tmp_path/'learning_curves.png').exists() and (tmp_path/'accuracy.png').exists()
    assert 'validation' not in capsys.readouterr().out.split('| recipe |')[0]


def save_predictions(folder, valid, test, labels):
    folder.mkdir()
    with np.errstate(divide='ignore'): scores = {'valid_scores': np.log(valid), 'test_scores': np.log(test)}
    np.savez(folder/'predictions.npz', valid_labels=labels, test_labels=labels, **scores)
    return folder


def test_an_ensemble_is_chosen_on_validation_and_votes_by_weight(tmp_path):
    labels = np.array([0, 0, 0, 1, 1, 1])
    def sure(p): return np.stack([p, 1 - np.array(p)], 1)
    good_at_0 = save_predictions(tmp_path/'a', sure([.9, .9, .9, .6, .6, .4]), sure([.9]*3 + [.8]*3), labels)
    good_at_1 = save_predictions(tmp_path/'b', sure([.6, .4, .4, .1, .1, .1]), sure([.4]*3 + [.1]*3), labels)
    useless = save_predictions(tmp_path/'c', sure([.1]*3 + [.9]*3), sure([1.]*3 + [0.]*3), labels)  # there
    runs = [good_at_0, good_at_1, useless]
    votes = choose_members(runs, 10)
    assert sum(votes) == 10 and votes[0] > 0 and votes[1] > 0 and votes[2] == 0
    assert ensemble(runs[:2], votes[:2], 'valid')['accuracy'] == 1.
    assert ensemble(runs[:2])['correct'] == 6 and ensemble(runs[:2], [1, 0])['correct'] == 3
    assert ensemble(runs, [0, 0, 1])['accuracy'] == 1.


def test_an_ensemble_is_of_runs_with_the_same_images(tmp_path):
    p = np.full((4, 10), .1)
    one = save_predictions(tmp_path/'a', p, p, np.array([1, 2, 3, 4]))
    two = save_predictions(tmp_path/'b', p, p, np.array([1, 2, 3, 5]))
    with pytest.raises(ValueError, match='same images'): ensemble([one, two])
    with pytest.raises(ValueError, match='same validation images'): choose_members([one, two])
    none = save_predictions(tmp_path/'c', p[:0], p, np.array([]))
    with pytest.raises(ValueError, match='same validation images, and some'): choose_members([none])
