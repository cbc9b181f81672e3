"""Comparisons on a Dask cluster: a real scheduler and real workers on this machine, some of which die."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import only_full, wait_for

import mnist_fastai
from mnist_fastai.compare.core import compare
from mnist_fastai.utils import read_json

pytest.importorskip('distributed', reason='distributed is not installed: pip install distributed')

bin = Path(sys.executable).parent
one_thread = dict(OMP_NUM_THREADS='1')


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


@pytest.fixture(autouse=True)
def as_many_threads_as_a_worker_has():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number rounds differently
    yield
    torch.set_num_threads(threads)


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


@only_full
@pytest.mark.fault('trial or worker killed')
def test_one_worker_dies_and_one_comes_late_and_every_trial_is_there_once(cluster, digits, tmp_path):
    victim, _ = cluster.worker('--no-nanny'), cluster.worker()
    process = subprocess.Popen(
        [bin/'mnist-compare', '--scheduler', cluster.address, '--out', 'far', '--data', 'digits', '--recipes',
         'mlp:epochs=2:bs=64,knn', '--seeds', '4', '--train-size', '300'], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **one_thread})
    lines = [next(line for line in process.stdout if line.startswith('1/5'))]
    victim.kill()
    cluster.worker('--no-nanny')
    compare(['mlp:epochs=2:bs=64', 'knn'], 'digits', 4, [300], jobs=1, out=tmp_path/'here')
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    lines += [line for line in out.splitlines() if '/5  ' in line]
    assert sorted(line.split()[0] for line in lines) == [f'{i}/5' for i in range(1, 6)]
    assert len({line.split()[1] for line in lines}) == 5 and same(tmp_path/'here', tmp_path/'far') == 5


@pytest.mark.fault('trial or worker killed')
@pytest.mark.parametrize('dies, says', [
    pytest.param('os._exit(9)', 'its process ended with 9', marks=only_full),
    pytest.param('os.kill(os.getppid(), 9)', 'workers died while', marks=only_full)])
def test_a_trial_that_kills_costs_only_itself(dies, says, cluster, digits, tmp_path):
    (tmp_path/'deadly').mkdir()
    (tmp_path/'deadly'/'sitecustomize.py').write_text(  # as if the nearest neighbours took all memory
        f'import os, sklearn.neighbors as n\nn.KNeighborsClassifier.fit = lambda *args: {dies}\n')
    for _ in range(2): cluster.worker(PYTHONPATH=str(tmp_path/'deadly'))
    found = compare(['knn', 'linear'], 'digits', 1, [200], out=tmp_path/'far', scheduler=cluster.address)
    assert [o['name'][:7] for o in found.failed] == ['knn-200'] and says in found.failed[0]['error']
    assert set(found.board.recipe) == {'linear'}


@pytest.mark.fault('cluster without data, with other code, or gone')
def test_without_a_common_disk_the_data_are_sent(cluster, digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path/'mine')
    hidden = 'mount -t tmpfs none "$0" && exec "$@"', str(tmp_path/'mine')
    if subprocess.run(['unshare', '-m', 'sh', '-c', *hidden, 'true'], capture_output=True).returncode:
        pytest.skip('only root can hide a folder from a process')
    for i in range(2):
        cluster.worker(prefix=['unshare', '-m', 'sh', '-c', *hidden], FASTAI_HOME=str(tmp_path/f'home{i}'))
    monkeypatch.chdir(tmp_path)
    compare(['mlp:epochs=1'], 'mine', 2, [200], jobs=1, out='here')
    assert compare(['mlp:epochs=1'], 'mine', 2, [200], out='far', scheduler=cluster.address).failed == []
    assert same(Path('here'), Path('far')) == 2


@only_full
@pytest.mark.fault('cluster without data, with other code, or gone')
def test_a_worker_that_cannot_keep_the_data_says_so(cluster, digits, tmp_path, monkeypatch):
    shutil.copytree(digits, tmp_path/'mine')
    (tmp_path/'no_folder').write_text('')
    cluster.worker(FASTAI_HOME=str(tmp_path/'no_folder'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='no_folder'): compare(['linear'], 'mine', 1, scheduler=cluster.address)


@only_full
@pytest.mark.fault('cluster without data, with other code, or gone')
def test_a_worker_with_other_code_is_refused(cluster, digits, tmp_path):
    shutil.copytree(Path(mnist_fastai.__file__).parent, tmp_path/'other'/'mnist_fastai')
    learner = tmp_path/'other'/'mnist_fastai'/'learner.py'
    learner.write_text(learner.read_text().replace('reproducible=True', 'reproducible=False'))
    cluster.worker(PYTHONPATH=str(tmp_path/'other'))
    with pytest.raises(ValueError, match='has other code, libraries or data'):
        compare(['linear'], 'digits', 1, out=tmp_path/'far', scheduler=cluster.address)


@pytest.mark.fault('cluster without data, with other code, or gone')
def test_a_cluster_that_is_not_there_is_named(digits, tmp_path):
    asked = dict(recipes=['linear'], data='digits', out=tmp_path, scheduler='tcp://127.0.0.1:9')
    with pytest.raises(OSError, match='tcp://127.0.0.1:9'): compare(**asked)
    with pytest.raises(ValueError, match='jobs is for this machine'): compare(**asked, jobs=2)
