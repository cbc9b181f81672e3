"""A search finds a recipe on validation, goes on after anything, and many may search together."""
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from conftest import full, listen_to_ctrl_c, only_full
from fastcore.basics import AttrDict
from PIL import Image

from mnist_fastai import sweep as s
from mnist_fastai.cli import mnist_sweep
from mnist_fastai.recipes import get_recipe
from mnist_fastai.train import train

optuna = pytest.importorskip('optuna', reason='optuna is not installed: pip install optuna')

command = Path(sys.executable).parent/'mnist-sweep'


@pytest.fixture(scope='module')
def searched(digits, tmp_path_factory):
    "Eight trials by the command: (its folder, what was printed)"
    out = tmp_path_factory.mktemp('searched')/'sweep'
    with redirect_stdout(io.StringIO()) as said: mnist_sweep('simple:epochs=2', 8, data='digits', out=str(out))
    return out, said.getvalue()


def test_the_best_trial_is_a_recipe_to_paste(searched, digits, tmp_path):
    out, said = searched
    best, trials = json.loads((out/'best.json').read_text()), pd.read_csv(out/'trials.csv')
    whole = trials[~trials.stopped]
    assert len(trials) == best['trials'] == 8 and set('lr bs width augment wd'.split()) < set(trials)
    assert best['valid_loss'] == pytest.approx(whole.valid_loss.min(), abs=1e-6)
    assert best['valid_loss'] <= best['valid_loss_before'] == pytest.approx(trials.valid_loss[0])
    assert best['epochs'] == trials.epochs.sum() and best['stopped'] == trials.stopped.sum()
    assert f"recipe     {best['recipe']}\n" in said
    valid = train('digits', best['recipe'], out=tmp_path/'run').metrics['valid']
    assert valid['accuracy'] == pytest.approx(best['accuracy'], abs=1e-6)
    for name in ('search', 'epochs'): assert min(Image.open(out/f'{name}.png').size) > 200


def test_it_begins_with_the_recipe_as_it_is(searched, digits, tmp_path):
    first = pd.read_csv(searched[0]/'trials.csv').iloc[0]
    run = train('digits', 'simple:epochs=2', out=tmp_path/'run')
    assert first.as_it_was and first.recipe == 'simple:epochs=2'
    assert first.accuracy == pytest.approx(run.metrics['valid']['accuracy'], abs=1e-6)


def test_the_same_command_goes_on(searched, digits, tmp_path, capsys):
    shutil.copytree(searched[0], out := tmp_path/'sweep')
    before = (out/'trials.csv').read_text()
    assert s.sweep('simple:epochs=2', 8, data='digits', out=out).trials == 8
    assert '8 of 8' in capsys.readouterr().out and (out/'trials.csv').read_text() == before
    assert s.sweep('simple:epochs=2', 10, data='digits', out=out).trials == 10
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][1:] == ['9/10', '10/10']
    assert (out/'trials.csv').read_text().splitlines()[:9] == before.splitlines()


def test_test_labels_do_not_matter(digits, tmp_path):
    shutil.copytree(digits, other := tmp_path/'other')
    for i in range(10): (other/'testing'/str(i)).rename(other/f'was_{i}')
    for i in range(10): (other/f'was_{i}').rename(other/'testing'/str((i + 1)%10))
    found = [s.sweep('mlp:epochs=2', 1, ['lr'], data, out=tmp_path/Path(data).name) for data in ('digits', other)]
    assert found[0].valid_loss == found[1].valid_loss and found[0].recipe == found[1].recipe


@pytest.fixture
def proposed(monkeypatch):
    "Let the learning rates be these instead of Optuna's"
    def these(*lrs):
        rates = iter(lrs)
        def propose(trial, recipe, where): return f"{recipe}:lr={trial.suggest_float('lr', lr := next(rates), lr):g}"
        monkeypatch.setattr(s, 'suggest_recipe', propose)
    return these


@pytest.mark.fault('loss not finite')
def test_a_bad_trial_is_stopped_early_and_one_that_diverges_is_no_result(proposed, digits, tmp_path):
    proposed(.01, .01, 1e12, .01, .01, .01, 1e-7)  # but the first is the recipe as it is
    found = s.sweep('mlp:epochs=4', 7, ['lr'], 'digits', out=tmp_path)
    trials = pd.read_csv(tmp_path/'trials.csv').set_index('lr')
    assert found.stopped == 2 and found.recipe == 'mlp:epochs=4:lr=0.01'
    assert trials.stopped[1e12] and trials.epochs[1e12] <= 1
    assert trials.stopped[1e-7] and trials.epochs[1e-7] in (2, 3)


@pytest.mark.fault('loss not finite')
def test_when_no_trial_ends_there_is_no_recipe(digits, tmp_path):
    with pytest.raises(ValueError, match='no trial got to its end'):
        s.sweep('mlp:epochs=2:lr=1e12', 1, ['lr'], 'digits', out=tmp_path)
    assert not (tmp_path/'best.json').exists()


@pytest.mark.fault('Ctrl-C or SIGTERM')
@pytest.mark.parametrize('sign, code', [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 143, marks=only_full)])
def test_interrupted_it_goes_on_and_tries_the_same_again(sign, code, digits, tmp_path, capsys):
    args = ['--data', 'digits', '--recipe', 'mlp:epochs=50', '--vary', 'lr,wd', '--train-size', '300', '--out', 'a']
    process = subprocess.Popen([command, *args, '--trials', '9'], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, preexec_fn=listen_to_ctrl_c)
    next(line for line in process.stdout if line.startswith('2/9'))
    time.sleep(.3)
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and 'Traceback' not in err and 'the same command goes on' in out
    db = optuna.storages.RDBStorage(f"sqlite:///{tmp_path/'a'/'study.db'}")
    *done, stopped, _ = optuna.load_study(study_name=None, storage=db).trials  # and what was asked for again
    s.sweep('mlp:epochs=50', len(done) + 1, ['lr', 'wd'], 'digits', train_size=300, out=tmp_path/'a')
    assert f': {len(done)} of {len(done) + 1} trials are done' in capsys.readouterr().out
    again = optuna.load_study(study_name=None, storage=db).trials[-1]
    assert stopped.state.name == 'FAIL' and again.state.name == 'COMPLETE' and again.params == stopped.params


mistakes = {
    'recipe': (dict(recipe='simpel'), "'simpel'"), 'fitted': (dict(recipe='knn'), 'fitted in one piece'),
    'field': (dict(vary='lr,colour'), "'colour'"), 'nothing': (dict(vary=','), 'nothing to vary'),
    'trials': (dict(trials=0), 'trials=0'), 'validation': (dict(valid_size=0), 'valid_size=0'),
    'data': (dict(data='nowhere'), 'nowhere'), 'no database': (dict(storage='nonsense'), 'database'),
    'unknown database': (dict(storage='elephant://here'), 'elephant'),
    'nobody there': (dict(storage='postgresql+psycopg://127.0.0.1:9/sweep'), 'database says: .*refused'),
}


@pytest.mark.fault('mistaken option')
@pytest.mark.parametrize('options, says', mistakes.values(), ids=mistakes)
def test_a_mistake_is_said(options, says, tmp_path, digits):
    options = dict(data='digits', out=str(tmp_path)) | options
    with pytest.raises((ValueError, OSError), match=says): mnist_sweep(**options)


@pytest.mark.parametrize('recipe', ['mlp:epochs=1:bs=64', 'mlp:epochs=1:width=15', 'mlp:epochs=1:wd=0:width=.06'])
def test_nothing_is_proposed_that_is_not_possible(recipe, digits, tmp_path):
    assert s.sweep(recipe, 8, data='digits', train_size=150, out=tmp_path).trials == 8
    low, high = s.search_space(get_recipe(recipe))['width']
    for width in (low, high): get_recipe(f'{recipe}:width={width:.3g}').check()


@only_full
def test_many_begin_at_once_on_a_new_database_and_find_the_data_in_other_places(digits, tmp_path):
    shutil.copytree(digits, tmp_path/'copy')
    code = "import sys; from mnist_fastai.sweep import sweep; sweep('mlp:epochs=1', 6, ['lr'], sys.argv[1], " \
           "storage='sqlite:///all.db', out=sys.argv[2])"
    started = [subprocess.Popen([sys.executable, '-c', code, data, str(i)], cwd=tmp_path, text=True,
                                stderr=subprocess.PIPE, env={**os.environ, 'OMP_NUM_THREADS': '1'})
               for i, data in enumerate(['digits', str(tmp_path/'copy'), 'digits'][:3 if full else 2])]
    errors = [o.communicate(timeout=200)[1] for o in started]
    assert not any(o.returncode for o in started), errors
    storage = f"sqlite:///{tmp_path/'all.db'}"
    assert len(optuna.get_all_study_names(storage)) == 1
    done = [o for o in optuna.load_study(study_name=None, storage=storage).trials if o.state.is_finished()]
    assert 6 <= len(done) <= 8  # whoever is at work at the sixth ends it


@pytest.fixture
def postgres():
    "A PostgreSQL of our own on this machine: its URL"
    found = shutil.which('initdb') or next(iter(sorted(Path('/usr/lib/postgresql').glob('*/bin/initdb'))), None)
    if not found: pytest.skip('PostgreSQL is not installed: its initdb is not there')
    bin, user = Path(found).resolve().parent, dict(user='nobody') if os.getuid() == 0 else {}  # it does not run as root
    with tempfile.TemporaryDirectory() as tmp, socket.socket() as free:
        if user: shutil.chown(tmp, 'nobody')
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
        free.close()
        def pg(name, *args):
            subprocess.run([bin/name, '-D', f'{tmp}/db', *args], check=True, cwd=tmp, stdout=subprocess.DEVNULL, **user)
        pg('initdb', '-U', 'sweep', '--auth', 'trust', '--no-sync')
        pg('pg_ctl', 'start', '-w', '-l', f'{tmp}/log', '-o', f'-p {port} -k {tmp} -c listen_addresses=127.0.0.1')
        yield f'postgresql+psycopg://sweep@127.0.0.1:{port}/postgres'
        pg('pg_ctl', 'stop', '-m', 'immediate')


@only_full
@pytest.mark.fault('trial or worker killed')
def test_two_search_together_in_postgresql_and_one_is_killed(postgres, digits, tmp_path):
    def start(name):
        code = f"""from mnist_fastai.sweep import sweep
sweep('mlp:epochs=8', 8, ['lr', 'bs'], 'digits', storage='{postgres}', out='{name}', alive=1)"""
        return subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env={**os.environ, 'OMP_NUM_THREADS': '1'})

    victim = start('victim')
    next(line for line in victim.stdout if line.startswith('1/8  '))
    other = start('other')
    next(line for line in victim.stdout if '/8  ' in line)
    time.sleep(.3)
    victim.kill()
    victim.communicate()
    out, err = other.communicate(timeout=200)
    assert other.returncode == 0, err
    trials = pd.read_csv(tmp_path/'other'/'trials.csv')
    study = optuna.load_study(study_name=None, storage=postgres)
    assert len(trials) == 8 and trials.trial.is_unique and not trials.recipe.duplicated().any()
    states = [o.state.name for o in study.trials]
    assert states.count('COMPLETE') + states.count('PRUNED') == 8


def test_a_search_that_found_nothing_better_says_so(tmp_path, digits):
    found = s.sweep('mlp:epochs=1', 1, ['lr'], 'digits', out=tmp_path)
    assert found.valid_loss == found.valid_loss_before
    said = s.sweep_summary(found)
    assert 'nothing was better than mlp:epochs=1 itself' in said and 'mnist-compare' not in said
    assert (tmp_path/'trials.md').read_text().startswith('| recipe | validation loss |')
    assert '|' not in said.splitlines()[1]
    better = AttrDict(found, recipe='mlp:epochs=1:lr=0.02', valid_loss=found.valid_loss/2)
    assert ('mnist-compare --recipes mlp:epochs=1,mlp:epochs=1:lr=0.02 --seeds 5 --data digits --valid-size 5000'
            in s.sweep_summary(better))
