"""Comparisons on a Dask cluster: a real scheduler and real workers on this machine, some of which die."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from joblib import cpu_count
from conftest import only_full, run_command, wait_for

import mnist_fastai
from mnist_fastai.compare.core import compare
from mnist_fastai.utils import read_json

pytest.importorskip('distributed', reason='distributed is not installed: pip install distributed')

bin = Path(sys.executable).parent
one_thread = dict(OMP_NUM_THREADS='1')
asked = ['--recipes', 'mlp:epochs=2:bs=64,simple:epochs=2:bs=64,knn', '--seeds', '3']


class Cluster:
    "A scheduler on a free port, and workers that one can kill"
    def __init__(self, folder):
        self.folder, self.file, self.processes = folder, folder/'scheduler.json', []
        self.start('scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard', '--scheduler-file', self.file)
        wait_for(self.file)
        self.address = read_json(self.file)['address']

    def start(self, *args, prefix=(), **env):
        with open(self.folder/'dask.log', 'ab') as log:
            process = subprocess.Popen([*prefix, bin/'dask', *map(str, args)], cwd=self.folder, stdout=log, stderr=log,
                                       env={**os.environ, **one_thread, **env})
        self.processes.append(process)
        return process

    def worker(self, *args, **kwargs):
        return self.start('worker', self.address, '--nthreads', '1', '--no-dashboard', *args, **kwargs)


@pytest.fixture
def cluster(tmp_path):
    (folder := tmp_path/'cluster').mkdir()
    found = Cluster(folder)
    yield found
    for o in reversed(found.processes): o.kill(), o.wait()


def compare_here(cwd, *args):
    "With one thread a trial, as the workers have"
    done = run_command('mnist-compare', *args, '--jobs', cpu_count(), '--out', 'here', cwd=cwd)
    assert done.returncode == 0, done.stderr


def start_compare(cluster, cwd, *args):
    return subprocess.Popen([bin/'mnist-compare', '--scheduler', cluster.address, '--out', 'far', *args], cwd=cwd,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **one_thread})


def same(here, far):
    "Whether two folders hold the same trials with the same results"
    names = {o.name for o in (here/'trials').iterdir()}
    assert names == {o.name for o in (far/'trials').iterdir()}
    for a, b in ((here/'trials'/o, far/'trials'/o) for o in names):
        assert {o.name for o in a.iterdir()} == {o.name for o in b.iterdir()}
        m, n = (read_json(o/'metrics.json') for o in (a, b))
        assert dict(m, seconds=0) == dict(n, seconds=0) and read_json(a/'config.json') == read_json(b/'config.json')
        if 'knn' not in a.name: assert (a/'weights.safetensors').read_bytes() == (b/'weights.safetensors').read_bytes()
    return len(names)


@pytest.mark.fault('trial or worker killed')
def test_one_worker_dies_and_one_comes_late_and_every_trial_is_there_once(cluster, digits, tmp_path):
    compare_here(tmp_path, '--data', 'digits', *asked)
    victim, _ = cluster.worker('--no-nanny'), cluster.worker()
    process = start_compare(cluster, tmp_path, '--data', 'digits', *asked)
    lines = [next(line for line in process.stdout if line.startswith('1/7'))]
    victim.kill()
    cluster.worker('--no-nanny')
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    lines += [line for line in out.splitlines() if '/7  ' in line]
    assert sorted(line.split()[0] for line in lines) == [f'{i}/7' for i in range(1, 8)]
    assert len({line.split()[1] for line in lines}) == 7 and same(tmp_path/'here', tmp_path/'far') == 7


@pytest.mark.fault('trial or worker killed')
@pytest.mark.parametrize('dies, says', [
    ('os._exit(9)', 'its process ended with 9'),
    pytest.param('os.kill(os.getppid(), 9)', 'workers died while', marks=only_full)])
def test_a_trial_that_kills_costs_only_itself(dies, says, cluster, digits, tmp_path):
    (tmp_path/'deadly').mkdir()
    (tmp_path/'deadly'/'sitecustomize.py').write_text(  # as if the nearest neighbours took all memory
        f'import os, sklearn.neighbors as n\nn.KNeighborsClassifier.fit = lambda *args: {dies}\n')
    for _ in range(2): cluster.worker(PYTHONPATH=str(tmp_path/'deadly'))
    found = compare(['knn', 'mlp:epochs=1', 'linear'], 'digits', 1, out=tmp_path/'far', scheduler=cluster.address)
    assert [o['name'][:7] for o in found.failed] == ['knn-all'] and says in found.failed[0]['error']
    assert set(found.board.recipe) == {'mlp:epochs=1', 'linear'}


@pytest.mark.fault('cluster without data, with other code, or gone')
def test_without_a_common_disk_the_data_come_along(cluster, digits, tmp_path):
    shutil.copytree(digits, tmp_path/'mine')
    hidden = 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path/'mine')
    if subprocess.run(['unshare', '-m', 'sh', '-c', *hidden, 'true'], capture_output=True).returncode:
        pytest.skip('only root can hide a folder from a process')
    asked = ['--data', 'mine', '--recipes', 'mlp:epochs=1', '--seeds', '2']
    compare_here(tmp_path, *asked)
    for i in range(2):
        cluster.worker(prefix=['unshare', '-m', 'sh', '-c', *hidden], FASTAI_HOME=str(tmp_path/f'home{i}'))
    process = start_compare(cluster, tmp_path, *asked)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert same(tmp_path/'here', tmp_path/'far') == 2


@pytest.mark.fault('cluster without data, with other code, or gone')
def test_a_worker_that_cannot_keep_the_data_says_so(cluster, digits, tmp_path):
    shutil.copytree(digits, tmp_path/'mine')
    (tmp_path/'no_folder').write_text('')
    cluster.worker(FASTAI_HOME=str(tmp_path/'no_folder'))
    process = start_compare(cluster, tmp_path, '--data', 'mine', '--recipes', 'linear', '--seeds', '1')
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1 and 'no_folder' in err and 'Traceback' not in err, err


@pytest.mark.fault('cluster without data, with other code, or gone')
def test_a_worker_with_other_code_is_refused(cluster, digits, tmp_path):
    shutil.copytree(Path(mnist_fastai.__file__).parent, tmp_path/'other'/'mnist_fastai')
    runs = tmp_path/'other'/'mnist_fastai'/'runs.py'
    runs.write_text(runs.read_text().replace('reproducible=True', 'reproducible=False'))
    cluster.worker(PYTHONPATH=str(tmp_path/'other'))
    process = start_compare(cluster, tmp_path, '--data', 'digits', '--recipes', 'linear', '--seeds', '1')
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1 and 'has other code, libraries or data' in err and 'Traceback' not in err


@pytest.mark.fault('cluster without data, with other code, or gone')
def test_a_cluster_that_is_not_there_is_one_clear_line(sh, digits, monkeypatch):
    done = sh('mnist-compare', '--data', 'digits', '--scheduler', 'tcp://127.0.0.1:9', '--recipes', 'linear')
    assert done.returncode == 1 and 'tcp://127.0.0.1:9' in done.stderr and 'Traceback' not in done.stderr
    done = sh('mnist-compare', '--data', 'digits', '--scheduler', 'tcp://127.0.0.1:9', '--jobs', 2)
    assert done.returncode == 1 and 'jobs is for this machine' in done.stderr
