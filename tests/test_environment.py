"""What a result depends on besides its settings."""
import shutil
from pathlib import Path

import mnist_fastai
from mnist_fastai.compare.trials import plan_trials, trial_name
from mnist_fastai.data.cache import describe
from mnist_fastai.environment import code_version


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
