"""Comparisons: every combination once, a leaderboard that says what the runs say, and going on after a fault."""
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
from conftest import listen_to_ctrl_c, only_full
from scipy import stats

from mnist_fastai.cli import mnist_compare
from mnist_fastai.compare.core import compare, comparison_summary
from mnist_fastai.compare.leaderboard import leaderboard_table
from mnist_fastai.recipes import get_recipe, recipes
from mnist_fastai.utils import read_json

bin = Path(sys.executable).parent
asked = ['mlp:epochs=2:bs=64', 'simple:epochs=2:bs=64', 'knn']
written = {'trials', 'trials.csv', 'leaderboard.csv', 'leaderboard.md', 'pairs.csv', 'accuracy.png', 'parameters.png',
           'seconds.png', 'learning_curves.png', 'training_sizes.png'}


@pytest.fixture(scope='module')
def compared(tmp_path_factory, digits):
    "A small comparison on the offline digits: (what `compare` gave, its folder)"
    out = tmp_path_factory.mktemp('compared')
    return compare(asked, 'digits', seeds=3, train_sizes=[300, 1437], jobs=1, out=out), out


def test_every_combination_is_run_once(compared):
    found, out = compared
    trials = pd.read_csv(out/'trials.csv')
    assert trials.threads.notna().all() and trials.torch.notna().all()
    done = sorted(zip(trials.recipe, trials.train_images, trials.seed))
    networks = [(r, n, s) for r in asked[:2] for n in (300, 1150) for s in (1, 2, 3)]
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


def test_what_is_done_is_not_run_again(compared, capfd):
    _, out = compared
    before = {o: o.stat().st_mtime_ns for o in (out/'trials').rglob('*')}
    compare(asked, 'digits', seeds=3, train_sizes=[300, 1150], jobs=2, out=out)
    assert '14 trials, 14 of them done before' in capfd.readouterr().out
    assert {o: o.stat().st_mtime_ns for o in (out/'trials').rglob('*')} == before


def test_an_edited_recipe_is_another_one(tmp_path, digits, monkeypatch, capsys):
    def board(epochs):
        monkeypatch.setitem(recipes, 'mlp', get_recipe('mlp', epochs=epochs))
        return compare(['mlp', 'linear'], 'digits', 2, [200], jobs=1, out=tmp_path).board.set_index('recipe')
    assert board(1).epochs['mlp'] == 1
    after = board(2)
    assert after.seeds.to_dict() == dict(mlp=2, linear=1) and after.epochs['mlp'] == 2
    assert '2 trials of other code, data or recipes are left out' in capsys.readouterr().out


@pytest.mark.parametrize('names', [['linear'], ['linear', 'knn'], ['mlp:epochs=1']])
def test_few_recipes_are_enough(names, tmp_path, digits):
    found = compare(names, 'digits', 1, [200], jobs=1, out=tmp_path)
    said, file = comparison_summary(found), (tmp_path/'leaderboard.md').read_text()
    assert set(found.board.recipe) == set(names) and all(o in said and f'`{o}`' in file for o in names)
    assert '|' not in said and '`' not in said  # Markdown is for files
    assert (tmp_path/'learning_curves.png').exists() == ('mlp:epochs=1' in names)
    assert len(pd.read_csv(tmp_path/'pairs.csv')) == len(names) - 1


def test_the_ranking_does_not_depend_on_the_test_labels(tmp_path, digits):
    shutil.copytree(digits, tmp_path/'turned')
    folders = [tmp_path/'turned'/'testing'/str(i) for i in range(10)]
    for o in folders: o.rename(f'{o}x')
    for i, o in enumerate(folders): Path(f'{o}x').rename(folders[(i + 1) % 10])  # every test label is wrong now
    right, wrong = (compare(['mlp:epochs=2', 'linear', 'knn'], data, 1, jobs=1, out=tmp_path/out).board
                    for data, out in (('digits', 'a'), (str(tmp_path/'turned'), 'b')))
    assert list(right.recipe) == list(wrong.recipe) and list(right.valid) == list(wrong.valid)
    assert right.test.min() > .7 and wrong.test.max() < .2


def test_trained_on_all_there_is_no_validation_accuracy(tmp_path, digits, capsys):
    found = compare(['mlp:epochs=1', 'linear'], 'digits', seeds=1, jobs=1, out=tmp_path, valid_size=0)
    assert list(found.board.train_images) == [1437, 1437] and found.board.valid.isna().all()
    assert found.board.test.between(.3, 1).all() and found.board.stress.isna().all()
    assert not re.search('validation|stress|nan', (tmp_path/'leaderboard.md').read_text())
    assert not (tmp_path/'learning_curves.png').exists() and (tmp_path/'accuracy.png').exists()
    assert 'validation' not in capsys.readouterr().out.split('| recipe |')[0]


@only_full
@pytest.mark.fault('two at once')
def test_two_at_once_in_one_folder_lose_nothing(tmp_path, digits):
    args = [bin/'mnist-compare', '--data', 'digits', '--recipes', 'mlp:epochs=1, linear,', '--train-size', '200',
            '--seeds', '3', '--jobs', '1', '--out', 'c']
    both = [subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    assert sorted(o.name[:9] for o in (tmp_path/'c'/'trials').iterdir()) == ['linear-20', *['mlp-epoch']*3]
    assert len(pd.read_csv(tmp_path/'c'/'trials.csv')) == 4


def test_a_trial_that_fails_is_reported_and_the_others_go_on(sh, tmp_path):
    done = sh('mnist-compare', '--data', 'digits', '--recipes', 'mlp:epochs=1,mlp:epochs=1:lr=1e12,knn', '--seeds', 2,
              '--train-size', 300, '--jobs', 1, '--out', 'c')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert '2 trials failed' in done.stderr and done.stdout.count('FAILED') == 2 and 'diverged' in done.stdout
    board = pd.read_csv(tmp_path/'c'/'leaderboard.csv')
    assert set(board.recipe) == {'mlp:epochs=1', 'knn'} and '1e12' not in (tmp_path/'c'/'trials.csv').read_text()
    assert len(list((tmp_path/'c'/'trials').iterdir())) == 3


@only_full
@pytest.mark.fault('Ctrl-C or SIGTERM')
@pytest.mark.parametrize('sign, code, says', [
    (signal.SIGINT, 1, 'interrupted'), (signal.SIGTERM, 143, '')])
def test_interrupted_it_goes_on_where_it_was(sign, code, says, tmp_path, digits, capsys):
    names = ['mlp:epochs=1', 'simple:epochs=30']
    args = [bin/'mnist-compare', '--data', 'digits', '--recipes', ','.join(names), '--seeds', '2',
            '--train-size', '300', '--jobs', '2', '--out', 'c']
    process = subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=listen_to_ctrl_c)
    first = next(line for line in process.stdout if line.startswith('1/4'))
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and err.strip().endswith(says) and 'Traceback' not in err
    time.sleep(1)
    kept = {o.name: o.stat().st_mtime_ns for o in (tmp_path/'c'/'trials').iterdir()}
    assert re.split(r'\s+', first)[1] in kept and len(kept) < 4 and not any(o.startswith('.') for o in kept)
    assert compare(names, 'digits', 2, [300], jobs=1, out=tmp_path/'c').failed == []
    assert f'4 trials, {len(kept)} of them done before' in capsys.readouterr().out
    now = {o.name: o.stat().st_mtime_ns for o in (tmp_path/'c'/'trials').iterdir()}
    assert len(now) == 4 and kept.items() <= now.items()


mistakes = {
    'no such recipe': (dict(recipes='mlp,resnet'), "there is no recipe 'resnet'"),
    'too many images': (dict(train_size='60000'), 'train-size 60000 is not possible'),
    'not a number': (dict(train_size='100,many'), "'many'"),
    'no seeds': (dict(seeds=0), 'seeds=0 is not possible'),
    'no jobs': (dict(jobs=0), 'jobs=0 is not possible'),
    'no such tracker': (dict(log='mlflow'), "there is no tracker 'mlflow': expected one of tensorboard, wandb"),
}


@pytest.mark.fault('mistaken option')
@pytest.mark.parametrize('options, message', mistakes.values(), ids=mistakes)
def test_a_mistake_is_said_and_nothing_is_run(options, message, tmp_path, digits):
    with pytest.raises(ValueError, match=message): mnist_compare(data='digits', out=str(tmp_path/'c'), **options)
    assert not list(tmp_path.iterdir())
