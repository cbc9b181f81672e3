"""Tests run in a home of their own: nothing of the user's is written, and MNIST is borrowed if the user has it."""
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from forks import Forks
from serving import offline

users_data = Path(os.environ.get('FASTAI_HOME', '~/.fastai')).expanduser()/'data'
home = tempfile.TemporaryDirectory(prefix='mnist_fastai_tests_')
os.environ['FASTAI_HOME'] = home.name
os.environ['MPLBACKEND'] = 'Agg'
os.environ['MNIST_FASTAI_OFFLINE'] = '1'  # no test downloads MNIST unasked

full = 'FULL' in os.environ  # `make test-full`: more of what chance decides, and what takes long
only_full = pytest.mark.skipif(not full, reason='takes long: make test-full')
has_mnist = (users_data/'mnist_png'/'testing'/'9').is_dir()
if has_mnist:
    (Path(home.name)/'data').mkdir()
    (Path(home.name)/'data'/'mnist_png').symlink_to(users_data/'mnist_png')


def pytest_configure(config):
    config.addinivalue_line('markers', 'mnist: needs the real MNIST in FASTAI_HOME')
    config.addinivalue_line('markers', 'fault(kind): something goes wrong; results/reliability.py counts them')


def pytest_collection_modifyitems(items):
    for item in items: item.user_properties += [('fault', o.args[0]) for o in item.iter_markers('fault')]
    if has_mnist: return
    skip = pytest.mark.skip(reason=f'MNIST is not in {users_data}: get it with mnist-data --source mnist')
    for item in items:
        if 'mnist' in item.keywords: item.add_marker(skip)


@cache
def forks():
    started = Forks()
    atexit.register(started.close)
    return started


def run_command(*args, cwd, prefix=(), **env):
    "Run a command of the package, or a piece of Python, in a process of its own"
    exe = [sys.executable, '-c'] if args[0] == 'python' else [str(Path(sys.executable).parent/args[0])]
    usual = args[0] != 'python' and not prefix and not {'OMP_NUM_THREADS', 'PYTHONPATH'} & {*env}
    if sys.platform == 'linux' and usual:  # without the imports, which take longer than most commands
        return forks().run(*exe, [*map(str, args[1:])], cwd, {**os.environ, **env})
    return subprocess.run([*prefix, *exe, *map(str, args[1:])], cwd=cwd, env={**os.environ, **env}, text=True,
                          capture_output=True, timeout=300, stdin=subprocess.DEVNULL)


def wait_for(file, seconds=60):
    "Until a JSON file is there and whole: when that was"
    end = time.time() + seconds
    while time.time() < end:
        with suppress(FileNotFoundError, ValueError):
            json.loads(file.read_text())
            return time.time()
        time.sleep(.02)
    pytest.fail(f'{file} did not come in {seconds} s')


def listen_to_ctrl_c(): signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell may have told a background job not to


@pytest.fixture
def sh(tmp_path):
    "`run_command` in an empty folder"
    def run(*args, cwd=tmp_path, **env): return run_command(*args, cwd=cwd, **env)
    return run


@pytest.fixture
def fresh_home(tmp_path, monkeypatch):
    "An empty FASTAI_HOME, in this process too"
    from fastai.data.external import fastai_cfg
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path/'home'))
    fastai_cfg.cache_clear()
    yield tmp_path/'home'
    fastai_cfg.cache_clear()


@pytest.fixture
def no_network(monkeypatch):
    "Every connection fails at once, and pip has nothing on disk"
    monkeypatch.delenv('MNIST_FASTAI_OFFLINE')
    for name, value in {**offline, 'PIP_CONFIG_FILE': os.devnull, 'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': ''}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope='session')
def digits():
    "The offline digits"
    from mnist_fastai.data.sources import mnist_path
    return mnist_path('digits')


@pytest.fixture(scope='session')
def trained(tmp_path_factory, digits):
    "A run on the offline digits, trained by the command in a process of its own: (its folder, what was printed)"
    cwd = tmp_path_factory.mktemp('trained')
    done = run_command('mnist-train', '--data', 'digits', '--epochs', 6, '--bs', 64, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return next((cwd/'runs').iterdir()), done.stdout


@pytest.fixture(scope='session')
def app_url(tmp_path_factory):
    "The address of `mnist-app`: one server for all tests of the page"
    from serving import serving
    with serving(GRADIO_TEMP_DIR=str(tmp_path_factory.mktemp('uploads'))) as (url, _): yield url


@pytest.fixture(scope='session')
def exported(tmp_path_factory, digits):
    "A run on the offline digits, of seed 3, and the files of its bundle"
    from mnist_fastai.export import export_weights
    from mnist_fastai.train import train
    folder = tmp_path_factory.mktemp('exported')
    run = train('digits', epochs=2, seed=3, out=folder/'run').path
    return run, export_weights(run, folder/'mine')


@pytest.fixture
def bundle(exported, tmp_path):
    "A copy of that bundle, its files by suffix"
    return {o.suffix: Path(shutil.copy(o, tmp_path)) for o in exported[1]}


@pytest.fixture(scope='module')
def browser():
    "On GitHub there must be one"
    from browser import open_browser
    try:
        with open_browser() as browser: yield browser
    except (ImportError, FileNotFoundError) as e:
        if 'GITHUB_ACTIONS' in os.environ: raise
        pytest.skip(f'needs playwright and a browser: {e}')
