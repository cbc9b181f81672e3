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


def test_only_what_decides_a_result_counts_as_code(tmp_path, monkeypatch):
    copy, version = tmp_path/'copy', code_version()
    shutil.copytree(Path(mnist_fastai.__file__).parent, copy)
    monkeypatch.setattr(mnist_fastai, '__file__', str(copy/'__init__.py'))
    assert code_version() == version

    def edited(file, before, after):
        text = (copy/file).read_text()
        assert before in text
        (copy/file).write_text(text.replace(before, after))
        found = code_version()
        (copy/file).write_text(text)
        return found

    for nothing in (('train.py', '"Train, export and score', '# a comment\n    "Teach, export and score'),
                    ('runs.py', "xlabel='batch'", "xlabel='step'"),  # a plot
                    ('stress.py', 'def plot_stress(', 'def draw_stress('),
                    ('learner.py', 'def find_lr(', 'def search_lr(')):
        assert edited(*nothing) == version, nothing
    for something in (('learner.py', 'reproducible=True', 'reproducible=False'),
                      ('weights.py', 'return model.eval()', 'return model.train()'),  # a teacher
                      ('augment.py', 'bicubic', 'cubic'), ('callbacks.py', 'min(decay', 'max(decay'),
                      ('stress.py', 'rotate=20', 'rotate=25'), ('models.py', 'nn.ReLU()', 'nn.GELU()')):
        assert edited(*something) != version, something
