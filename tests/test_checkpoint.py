"""A training run that is killed, stopped or runs out of disk space is resumed, and ends as if nothing had happened."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import full, listen_to_ctrl_c, only_full, run_command, wait_for
from fastai.callback.core import Callback

from mnist_fastai.checkpoint import Checkpoint
from mnist_fastai.train import make_config, resume, run_config, train
from mnist_fastai.utils import read_json, write_json

command = Path(sys.executable).parent/'mnist-train'
trainings = {
    'plain': ['--recipe', 'simple', '--epochs', '4'],
    'augmented': ['--recipe', 'batchnorm_aug', '--epochs', '4'],
    'everything': ['--recipe', 'two_conv:teacher=tiny:ema=.99:plain=1:augment=affine+elastic+stroke+paper:epochs=3']}


def start(args, cwd, **kwargs):
    return subprocess.Popen([command, '--data', 'digits', *args, '--out', 'run'], cwd=cwd, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def resume_by_command(cwd):
    done = run_command('mnist-train', '--resume', 'run', cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.mark.fault('training killed')
@pytest.mark.parametrize('name', [pytest.param(o, marks=[] if o == 'everything' else only_full) for o in trainings])
def test_killed_at_any_moment_it_ends_with_the_same_weights(name, digits, tmp_path, record_property):
    def weights(run): return (run/'weights.safetensors').read_bytes()

    (whole := tmp_path/'whole').mkdir()
    process = start(trainings[name], whole)
    began = wait_for(whole/'run'/'environment.json')
    assert process.wait(timeout=300) == 0
    took, rng, wanted, killed = time.time() - began, random.Random(name), 7 if full else 1, []
    for i in range(3*wanted):
        if len(killed) == wanted: break
        (folder := tmp_path/str(i)).mkdir()
        process = start(trainings[name], folder)
        wait_for(folder/'run'/'environment.json')
        time.sleep(took*rng.uniform(0, .9))
        process.kill()
        process.communicate()
        if (folder/'run'/'metrics.json').exists(): continue  # it was quicker than the first
        killed.append((folder/'run'/'checkpoint.pt').exists())
        resume_by_command(folder)
        assert weights(folder/'run') == weights(whole/'run') and not (folder/'run'/'checkpoint.pt').exists()
    assert len(killed) == wanted
    if full: assert any(killed)
    record_property('killed', wanted)


class Stop(Callback):
    "Interrupt in the middle of an epoch"
    order = 99
    def __init__(self, epoch): self.at = epoch
    def after_batch(self):
        if self.epoch == self.at and self.iter == 3: raise KeyboardInterrupt


def interrupted(folder, epoch=1, recipe='simple:epochs=3'):
    "A run of which `epoch` epochs are done"
    config = make_config('digits', recipe, 1)
    with pytest.raises(KeyboardInterrupt): run_config(config, folder, cbs=[Checkpoint(), Stop(epoch)])
    return folder


class Press(Callback):
    "Ctrl-C in the middle of a step, once or more"
    def __init__(self, epoch, times=1): self.at, self.times = epoch, times
    def after_pred(self):
        if not self.training or self.epoch != self.at or self.iter != 5: return
        for _ in range(self.times): os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def ctrl_c():
    "Python's way with Ctrl-C, also where pytest runs in the background"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.fault('Ctrl-C or SIGTERM')
@pytest.mark.parametrize('recipe, epoch', [
    ('two_conv:ema=.99:no_aug_epochs=1:augment=affine+elastic+stroke:epochs=3', 1), ('mlp:teacher=tiny:epochs=3', 2),
    ('mlp:mix=mixup:epochs=3', 0), ('two_conv:ema=.99:no_aug_epochs=1:augment=affine+elastic+stroke:epochs=3', 2)])
def test_stopped_in_a_step_it_goes_on_with_the_next(recipe, epoch, digits, tmp_path, ctrl_c):
    config, whole = make_config('digits', recipe, 1), train('digits', recipe, 1, out=tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): run_config(config, tmp_path/'run', cbs=[Checkpoint(), Press(epoch)])
    saved = torch.load(tmp_path/'run'/'checkpoint.pt', weights_only=True)
    assert (saved['epochs'], saved['batches'], saved['steps']) == (epoch, 6, epoch*len(whole.learn.dls.train) + 6)
    run = resume(tmp_path/'run')
    assert (run.path/'weights.safetensors').read_bytes() == (whole.path/'weights.safetensors').read_bytes()
    rows = [[line.rsplit(',', 1)[0] for line in (o.path/'history.csv').read_text().splitlines()] for o in (whole, run)]
    assert rows[0] == rows[1]


@pytest.mark.fault('Ctrl-C or SIGTERM')
def test_who_presses_twice_does_not_wait_for_the_step(digits, tmp_path, ctrl_c):
    config = make_config('digits', 'mlp:epochs=3', 1)
    with pytest.raises(KeyboardInterrupt):
        run_config(config, tmp_path/'run', cbs=[Checkpoint(), Press(1, times=2)])
    saved = torch.load(tmp_path/'run'/'checkpoint.pt', weights_only=True)
    assert (saved['epochs'], saved['batches']) == (1, 0)
    assert len((resume(tmp_path/'run').path/'history.csv').read_text().splitlines()) == 4


def test_what_was_seen_of_the_first_epochs_is_kept(digits, tmp_path):
    whole = train('digits', 'simple:epochs=3', 1, out=tmp_path/'whole')
    run = resume(interrupted(tmp_path/'half', 2))
    rows = [[line.rsplit(',', 1)[0] for line in (o.path/'history.csv').read_text().splitlines()] for o in (whole, run)]
    assert rows[0] == rows[1] and len(rows[0]) == 4
    for key in ('valid', 'test'): assert whole.metrics[key] == run.metrics[key]
    assert {o.name for o in run.path.iterdir()} == {o.name for o in whole.path.iterdir()}


def test_the_plots_show_the_first_epochs_too(digits, tmp_path, monkeypatch):
    seen = []
    names = 'lrs', 'iters', 'losses', 'values'
    def look(learn, *args): seen.append({k: [*getattr(learn.recorder, k)] for k in names})
    monkeypatch.setattr('mnist_fastai.train.plot_training', look)
    train('digits', 'simple:epochs=3', 1, out=tmp_path/'whole')
    resume(interrupted(tmp_path/'half'))
    assert len(seen[0]['losses']) > 20 and len(seen[0]['values']) == 3 and seen[0] == seen[1]


@pytest.mark.fault('damaged checkpoint, cache or learner')
def test_what_cannot_go_on_says_why(digits, tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a run'): resume(tmp_path)
    run = interrupted(tmp_path/'run')
    env = json.loads((run/'environment.json').read_text())
    env['data']['training']['sha256'] = 'other'
    write_json(run/'environment.json', env)
    with pytest.raises(ValueError, match='not those that .*run began with: train anew'): resume(run)
    run = interrupted(tmp_path/'run2')
    (run/'checkpoint.pt').write_bytes((run/'checkpoint.pt').read_bytes()[:1000])
    with pytest.raises(ValueError, match='checkpoint.pt is damaged: delete it to start again'): resume(run)
    (run/'checkpoint.pt').unlink()
    assert len((resume(run).path/'history.csv').read_text().splitlines()) == 4
    with pytest.raises(ValueError, match='is finished: there is nothing left to do'): resume(run)


@pytest.mark.fault('damaged checkpoint, cache or learner')
def test_a_checkpoint_runs_no_code(digits, tmp_path):
    class Bad:
        def __reduce__(self): return Path.touch, (tmp_path/'it ran',)

    run = interrupted(tmp_path/'run')
    torch.save(dict(epochs=1, model=Bad()), run/'checkpoint.pt')
    with pytest.raises(ValueError, match='is damaged'): resume(run)
    assert not (tmp_path/'it ran').exists()


@pytest.mark.fault('Ctrl-C or SIGTERM')
@pytest.mark.parametrize('sign, code', [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 143, marks=only_full)])
def test_stopped_it_says_how_to_go_on(sign, code, digits, tmp_path):
    process = start(['--recipe', 'simple', '--epochs', '100'], tmp_path, preexec_fn=listen_to_ctrl_c)
    next(line for line in process.stdout if line.startswith('epoch 2'))
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and 'mnist-train --resume run' in out and 'Traceback' not in err
    assert (tmp_path/'run'/'checkpoint.pt').exists() and not (tmp_path/'run'/'metrics.json').exists()


@pytest.fixture
def small_disk(tmp_path):
    "A file system of 1 MB, in memory, and what makes it larger"
    def mount(*options): return subprocess.run(['mount', '-t', 'tmpfs', *options, 'tmpfs', disk], capture_output=True)

    (disk := tmp_path/'disk').mkdir()
    try: mounted = mount('-o', 'size=1m').returncode == 0
    except FileNotFoundError: mounted = False
    if not mounted: pytest.skip('only root can mount a small disk')
    yield disk, lambda: mount('-o', 'remount,size=50m')
    subprocess.run(['umount', disk], check=True)


@pytest.mark.fault('disk full, unwritable or gone')
def test_on_a_full_disk_it_stops_and_goes_on_when_there_is_room(digits, small_disk):
    disk, enlarge = small_disk
    done = run_command('mnist-train', '--data', 'digits', '--epochs', '2', '--out', 'run', cwd=disk)
    assert done.returncode == 1 and done.stderr.strip().endswith('No space left on device')
    assert 'mnist-train --resume run' in done.stdout
    assert {o.name for o in (disk/'run').iterdir()} == {'config.json', 'environment.json', 'history.csv'}
    enlarge()
    resume_by_command(disk)
    assert (disk/'run'/'metrics.json').exists()


@pytest.mark.fault('disk full, unwritable or gone')
def test_where_nothing_can_be_written_it_says_so(digits, small_disk):
    disk, enlarge = small_disk
    subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
    done = run_command('mnist-train', '--data', 'digits', '--epochs', '1', '--out', 'run', cwd=disk)
    assert done.returncode == 1 and done.stderr.startswith('mnist-train: Read-only file system')
    assert done.stderr.count('\n') == 1 and not list(disk.iterdir())


@pytest.mark.fault('disk full, unwritable or gone')
def test_data_that_disappear_are_named_and_it_goes_on_when_they_are_back(digits, tmp_path):
    shutil.copytree(digits, tmp_path/'mine')
    process = subprocess.Popen([command, '--data', 'mine', '--recipe', 'mlp:epochs=30', '--out', 'run'], cwd=tmp_path,
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    next(line for line in process.stdout if line.startswith('epoch 1/'))
    (tmp_path/'mine').rename(tmp_path/'away')
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1 and f"{tmp_path/'mine'/'testing'}" in err and err.count('\n') == 1
    assert 'mnist-train --resume run' in out
    done = run_command('mnist-train', '--resume', 'run', cwd=tmp_path)
    assert done.returncode == 1 and f"{tmp_path/'mine'}" in done.stderr and done.stderr.count('\n') == 1
    (tmp_path/'away').rename(tmp_path/'mine')
    done = run_command('mnist-train', '--resume', 'run', cwd=tmp_path)
    assert done.returncode == 0 and 'epoch ' not in done.stdout, done.stderr  # all of them were done


def both(args, cwd, **env):
    "Two of the same commands at once: (return code, stderr) of each, those that succeed first"
    two = [subprocess.Popen([command, *args], cwd=cwd, env={**os.environ, **env}, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE) for _ in range(2)]
    errors = [o.communicate(timeout=200)[1] for o in two]
    return sorted((o.returncode, err) for o, err in zip(two, errors))


@pytest.mark.fault('two at once')
def test_two_at_once_each_get_a_folder_and_share_a_cache(tmp_path):
    args = ['--data', 'digits', '--recipe', 'mlp:epochs=1']
    found = both(args, tmp_path, FASTAI_HOME=str(tmp_path/'home'), OMP_NUM_THREADS='1')
    assert [code for code, _ in found] == [0, 0], found
    a, b = (tmp_path/'runs').iterdir()
    assert read_json(a/'metrics.json')['test'] == read_json(b/'metrics.json')['test']
    assert (a/'weights.safetensors').read_bytes() == (b/'weights.safetensors').read_bytes()


@pytest.mark.fault('two at once')
def test_of_two_in_one_folder_one_is_refused(digits, tmp_path):
    (_, _), (code, err) = found = both(['--data', 'digits', '--recipe', 'mlp:epochs=5', '--out', 'run'], tmp_path)
    assert found[0][0] == 0 and code == 1, found
    assert 'in use by another process' in err or 'is not empty' in err
    assert len((tmp_path/'run'/'history.csv').read_text().splitlines()) == 6


@only_full
@pytest.mark.fault('two at once')
def test_of_two_that_resume_one_is_refused(digits, tmp_path):
    whole = train('digits', 'simple:epochs=3', 1, out=tmp_path/'whole')
    interrupted(tmp_path/'run')
    (_, _), (code, err) = found = both(['--resume', 'run'], tmp_path, OMP_NUM_THREADS=str(torch.get_num_threads()))
    assert found[0][0] == 0 and code == 1, found
    assert 'in use by another process' in err or 'is finished' in err
    assert (tmp_path/'run'/'weights.safetensors').read_bytes() == (whole.path/'weights.safetensors').read_bytes()


@pytest.mark.parametrize('option, value', [('--epochs', 20), ('--recipe', 'best'), ('--seed', 7), ('--data', 'digits')])
def test_other_settings_are_not_ignored_by_resume(option, value, sh):
    done = sh('mnist-train', '--resume', 'run', option, value)
    assert done.returncode == 1 and f'continues a run as it was begun: leave out {option}' in done.stderr


def test_other_libraries_are_mentioned(digits, tmp_path, capsys):
    run = interrupted(tmp_path/'run')
    env = json.loads((run/'environment.json').read_text())
    env['packages']['torch'] = '2.0'
    write_json(run/'environment.json', env)
    resume(run)
    assert f'packages: not as when {run} began' in capsys.readouterr().out
