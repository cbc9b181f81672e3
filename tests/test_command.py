"""What every command has: a version, work offline, `python -m mnist_fastai`."""
import os
import subprocess
import sys

import pytest
from conftest import run_command

import mnist_fastai
from mnist_fastai.command import commands

version = f'mnist_fastai {mnist_fastai.__version__}'


def run_module(*args, module='mnist_fastai', **env):
    return subprocess.run([sys.executable, '-m', module, *args], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **env})


@pytest.mark.parametrize('name', ['mnist-train', 'mnist-predict'])
def test_a_command_says_its_version(name, tmp_path):
    done = run_command(name, '--version', cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, version)


@pytest.mark.parametrize('args', [[], ['-h'], ['--help']])
def test_the_module_lists_the_commands(args):
    done = run_module(*args)
    assert done.returncode == 0
    from mnist_fastai.cli import __all__ as functions
    for func in functions: assert f"  {func.removeprefix('mnist_').replace('_', '-')} " in done.stdout


@pytest.mark.parametrize('module', ['mnist_fastai', 'mnist_fastai.cli'])
def test_the_module_runs_a_command(module):
    done = run_module('data', '--source', 'digits', module=module)
    assert done.returncode == 0 and done.stdout.startswith('digits (not MNIST)'), done.stderr
    assert run_module('mnist-data', '--version', module=module).stdout.strip() == version
    wrong = run_module('tarin', module=module)
    assert wrong.returncode == 1 and "there is no command 'tarin' (did you mean 'train'?)" in wrong.stderr
    missing = run_module('predict', module=module)
    assert missing.returncode == 2 and missing.stderr.startswith('usage: mnist-predict')


def test_offline_is_an_option_of_every_command_that_takes_data(fresh_home, monkeypatch):
    import inspect
    import mnist_fastai.cli  # noqa: F401
    for name, func in commands.items():
        options = inspect.signature(func).parameters
        assert ('offline' in options) == bool({'data', 'source'} & {*options}), name
    monkeypatch.delenv('MNIST_FASTAI_OFFLINE')
    with pytest.raises(ConnectionError, match='--offline or MNIST_FASTAI_OFFLINE forbids'):
        commands['data']('mnist', offline=True)
    monkeypatch.setenv('MNIST_FASTAI_OFFLINE', '1')
