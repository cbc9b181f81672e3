"""Trials: every combination once, side by side or not, and going on when a process is killed."""
import os
import time

import pandas as pd
import pytest
import torch
from conftest import only_full
from joblib import cpu_count

from mnist_fastai.compare.core import compare, comparison_summary
from mnist_fastai.compare.trials import plan_trials, run_locally, run_trial
from mnist_fastai.data.cache import describe


def test_the_same_thing_by_two_names_is_trained_once(digits):
    found = plan_trials('digits', ['mlp', 'mlp:epochs=10', 'mlp', 'mlp:epochs=9'], 1, [None], describe(digits))
    assert [o.recipe for o in found] == ['mlp', 'mlp:epochs=9']


def dies_of_knn(trial, dest, work, *args, real=run_trial):
    "As `run_trial`, but the process is gone when it comes to the nearest neighbours"
    (work/dest.name).mkdir()
    if trial['arch'] == 'knn': os._exit(1)
    time.sleep(.2)
    (work/dest.name).rmdir()
    return real(trial, dest, work, *args)


@pytest.mark.fault('trial or worker killed')
def test_a_killed_process_costs_one_trial(tmp_path, monkeypatch, capsys):
    def run(config, dest, work, threads, log):  # pickled by value, so that the processes need not import PyTorch
        (work/dest.name).mkdir()
        if config['arch'] == 'knn': os._exit(1)
        time.sleep(.2)
        (work/dest.name).rename(dest)
        (dest/'metrics.json').write_text('{}')
        return dict(name=dest.name, valid={}, seconds=dict(training=0.))

    monkeypatch.setattr('mnist_fastai.compare.trials.run_trial', run)
    trials = {tmp_path/'trials'/o: dict(arch=o) for o in ('mlp', 'knn', 'linear', 'svm')}
    failed, = run_locally(trials, jobs=2)
    assert failed['name'] == 'knn' and 'killed' in failed['error']
    assert 'knn  its process was killed' in capsys.readouterr().out
    assert {o.name for o in (tmp_path/'trials').iterdir()} == {'mlp', 'linear', 'svm'}


@only_full
@pytest.mark.fault('trial or worker killed')
def test_a_killed_process_costs_one_trial_of_a_comparison(tmp_path, digits, monkeypatch, capsys):
    monkeypatch.setattr('mnist_fastai.compare.trials.run_trial', dies_of_knn)
    found = compare(['mlp:epochs=1', 'knn', 'linear'], 'digits', 1, [200], jobs=2, out=tmp_path)
    assert len(found.failed) == 1 and found.failed[0]['name'].startswith('knn-200-1')
    assert 'killed' in found.failed[0]['error'] and 'FAILED' in comparison_summary(found)
    assert set(found.board.recipe) == {'mlp:epochs=1', 'linear'}
    assert not list((tmp_path/'trials').glob('.*'))


def test_a_folder_that_is_no_finished_trial_is_replaced(tmp_path, digits, capsys):
    compare(['linear'], 'digits', 1, [200], jobs=1, out=tmp_path)
    trial = next((tmp_path/'trials').iterdir())
    (trial/'metrics.json').unlink()
    found = compare(['linear'], 'digits', 1, [200], jobs=1, out=tmp_path)
    assert found.failed == [] and (trial/'metrics.json').exists()


def test_side_by_side_gives_what_one_after_the_other_gives(tmp_path, digits):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of two processes has; another number rounds differently
    names = ['mlp:epochs=1', 'simple:epochs=1']
    try: boards = [compare(names, 'digits', 1, [200], jobs=jobs, out=tmp_path/str(jobs)).board for jobs in (1, 2)]
    finally: torch.set_num_threads(threads)
    one, two = (o.drop(columns='seconds').sort_values('recipe', ignore_index=True) for o in boards)
    pd.testing.assert_frame_equal(one, two)
    assert set(pd.read_csv(tmp_path/'2'/'trials.csv').threads) == {max(1, cpu_count()//2)}
