"""An epoch of `fast` over ten times MNIST's training images (470 MB), with and without a limit of 350 MB of memory.

    python results/larger_than_memory.py

It needs Linux and the right to make a memory control group. The limit is on all that the process takes once the
training begins: the images that it reads, their order, the network and its gradients. PyTorch and the list of files
are there before.
"""
import os
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mnist_fastai.data.cache import open_cache
from mnist_fastai.data.sources import mnist_path
from mnist_fastai.environment import environment
from mnist_fastai.learner import recipe_learner, seeded_dls
from mnist_fastai.train import make_config
from mnist_fastai.utils import write_json

times, limit, rounds = 10, 350*2**20, 3


def write_cache(file, images):
    "The training images, by digit as in a folder, `times` each"
    out = np.lib.format.open_memmap(file, 'w+', np.uint8, (times*len(images), 28, 28))
    for i in range(0, len(images), 1000): out[times*i:times*(i + 1000)] = images[i:i + 1000].repeat(times, 0)
    out.flush()


def control_group():
    "The folder of the memory control group and its file for the limit, of version 2 or 1"
    root = Path('/sys/fs/cgroup')
    if (root/'cgroup.controllers').exists(): return root/'mnist_fastai', 'memory.max'
    return root/'memory'/'mnist_fastai', 'memory.limit_in_bytes'


def limit_memory():
    "Put this process into the control group"
    group, file = control_group()
    group.mkdir()
    (group/file).write_text(str(limit))
    (group/'cgroup.procs').write_text(str(os.getpid()))


def epochs(file, limited):
    "Seconds of two epochs in a new process that begins with nothing of the file in memory"
    warnings.simplefilter('ignore')
    c = make_config('mnist', 'fast', 1, valid_size=0)
    dls = seeded_dls(mnist_path('mnist'), c, 1, valid_size=0)
    _, rows, (labels,) = dls.train.store()
    dls.train.n = times*len(rows)
    dls.train._store = open_cache(file, dls.train.n), torch.arange(dls.train.n), [labels.repeat_interleave(times)]
    learn, seconds, fd = recipe_learner(dls, c), [], os.open(file, os.O_RDONLY)
    os.sync()
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if limited: limit_memory()
    for _ in range(2):
        start = time.perf_counter()
        with learn.no_bar(), learn.no_logging(): learn.fit(1, .01)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == '__main__':
    found = {False: [], True: []}
    with TemporaryDirectory() as tmp:
        file = Path(tmp)/'big.npy'
        dls = seeded_dls(mnist_path('mnist'), make_config('mnist', 'fast', 1), 1, valid_size=0)
        images, rows, _ = dls.train.store()
        write_cache(file, images[rows].numpy())
        for _ in range(rounds):
            for limited in found:
                try:
                    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as process:
                        found[limited] += process.submit(epochs, file, limited).result()
                finally:
                    if limited: control_group()[0].rmdir()
                print('limited ' if limited else 'free    ', found[limited][-2:], flush=True)
    free, limited = map(statistics.median, found.values())
    result = dict(images=times*len(rows), cache_bytes=times*784*len(rows), limit_bytes=limit, free=found[False],
                  limited=found[True], ratio=limited/free, **environment())
    write_json(Path(__file__).with_suffix('.json'), result)
    print(f'{free:.1f} s without a limit, {limited:.1f} s with it: {limited/free:.2f} times')
