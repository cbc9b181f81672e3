"""The folder of a run: found again, loaded without its data, drawn."""
import pickle

import matplotlib.pyplot as plt
import pytest
from conftest import run_command
from fastai.learner import load_learner

from mnist_fastai.data.sources import mnist_path
from mnist_fastai.runs import find_run, load_run, new_run_folder
from mnist_fastai.train import train
from mnist_fastai.utils import save_plot



def test_the_plots_show_every_batch_and_epoch(digits, tmp_path, monkeypatch):
    drawn = {}
    def look(file, fig=None, real=save_plot):
        lines = [line for ax in (fig or plt.gcf()).axes for line in ax.lines]
        drawn[file.name] = [len(line.get_xdata()) for line in lines]
        real(file, fig)
    for module in ('runs', 'train'): monkeypatch.setattr(f'mnist_fastai.{module}.save_plot', look)
    train('digits', epochs=3, bs=64, out=tmp_path/'run')
    assert drawn == {'loss.png': [51, 3], 'accuracy.png': [3], 'schedule.png': [51, 51], 'predictions.png': []}


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
    assert len({new_run_folder(name='x') for _ in range(5)}) == 5


def test_a_half_finished_run_is_not_the_newest(trained, tmp_path):
    run, _ = trained
    (run.parent/'zzz').mkdir(exist_ok=True)
    (run.parent/'zzz'/'config.json').write_text('{}')
    assert find_run(folder=run.parent) == run
    with pytest.raises(FileNotFoundError, match='no finished run'): find_run(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match='not a finished run'): find_run(run.parent/'zzz')


@pytest.mark.fault('damaged checkpoint, cache or learner')
@pytest.mark.parametrize('content', [b'', b'hello', pickle.dumps({})])
def test_a_damaged_learner_is_one_clear_error(content, tmp_path):
    (tmp_path/'learner.pkl').write_bytes(content)
    with pytest.raises(ValueError, match='learner.pkl (cannot be loaded|holds a)'): load_run(tmp_path)
