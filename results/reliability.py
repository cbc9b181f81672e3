"""What goes wrong and what that costs: `python results/reliability.py`.

Times checkpoints and a small Dask cluster, then injects all faults of the tests (20 minutes).
It needs MNIST in FASTAI_HOME, Linux, the rights of root (to mount small disks), and PostgreSQL.
"""
import os
import subprocess
import sys
import time
from collections import Counter
from inspect import iscoroutinefunction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from distributed import LocalCluster, as_completed

from mnist_fastai.compare.core import compare
from mnist_fastai.checkpoint import Checkpoint
from mnist_fastai.environment import environment
from mnist_fastai.train import run_config, make_config
from mnist_fastai.utils import write_json

here = Path(__file__).parent


def inject(folder):
    "Run the tests that inject faults: kind -> how many there were, by how they ended"
    subprocess.run([sys.executable, '-m', 'pytest', '-q', '-m', 'fault', f'--junitxml={folder}/faults.xml'],
                   cwd=here.parent, env={**os.environ, 'FULL': '1', 'OMP_NUM_THREADS': '1'})
    faults = {}
    for case in ElementTree.parse(f'{folder}/faults.xml').iter('testcase'):
        about = {o.get('name'): o.get('value') for o in case.iter('property')}
        ended = next((o.tag for o in case if o.tag in ('skipped', 'failure', 'error')), 'survived')
        faults.setdefault(about['fault'], Counter())[ended] += int(about.get('killed', 1))
    return faults


class Timed(Checkpoint):
    "A checkpoint that knows how long it took"
    seconds = []
    def write(self, *args):
        began = time.perf_counter()
        super().write(*args)
        self.seconds.append(time.perf_counter() - began)


def checkpoints(recipe, folder):
    "Seconds of an epoch, and of its checkpoint (medians)"
    Timed.seconds.clear()
    run = run_config(make_config('mnist', recipe, 1), folder/recipe.replace(':', '-'), cbs=[Timed()])
    epoch = median(float(line.split(',')[-1]) for line in (run.path/'history.csv').read_text().splitlines()[1:])
    seconds = median(Timed.seconds)
    return dict(recipe=recipe, epochs=len(Timed.seconds), epoch=epoch, checkpoint=round(seconds, 4),
                share=round(seconds/epoch, 5))


def sent(): return int(Path('/proc/net/dev').read_text().split('lo:')[1].split()[8])  # bytes on the loopback device


def count_messages(scheduler):
    "A counter of what clients and workers say to a scheduler from now on"
    def counting(op, handle):
        def counted(*args, **kwargs):
            counts[op] += 1
            return handle(*args, **kwargs)
        return counted

    counts, handlers = Counter(), scheduler.stream_handlers
    handlers.update({op: counting(op, handle) for op, handle in handlers.items() if not iscoroutinefunction(handle)})
    return counts


def cluster(folder, tasks=10_000):
    "What a scheduler does for an empty trial, and what two trials of `simple` on two workers take and send"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as both, both.get_client() as client:
        counts, began, before = count_messages(both.scheduler), time.perf_counter(), sent()
        for _ in as_completed([client.submit(int, i, pure=False) for i in range(tasks)]): pass
        empty = dict(tasks=tasks, seconds=round(time.perf_counter() - began, 2), bytes=sent() - before,
                     messages=sum(counts.values()))
        began, before = time.perf_counter(), sent()
        found = compare(['simple'], 'mnist', 2, out=folder/'compare', scheduler=both.scheduler_address)
        took, n = time.perf_counter() - began, sent() - before
    files = sum(o.stat().st_size for o in (folder/'compare'/'trials').rglob('*') if o.is_file())
    training = round(float(found.board.seconds[0]), 1)
    return dict(empty=empty, trial=dict(recipe='simple', seconds=round(took, 1), seconds_of_training=training,
                                        bytes_sent=n//2, bytes_of_files=files//2))


if __name__ == '__main__':
    with TemporaryDirectory() as tmp:
        recipes = 'simple', 'simple:epochs=20', 'strong:epochs=2'
        result = dict(checkpoints=[checkpoints(o, Path(tmp)) for o in recipes], cluster=cluster(Path(tmp)),
                      faults=inject(tmp), environment=environment())
    write_json(here/'reliability.json', result)
