"""Learning a person's own digits: `python results/finetune.py`, which goes on where it was; `--seconds` times one run.

A person is made of MNIST's training images: for each digit one of them, and those that look most like it. All are
turned and bent in one way, which `best` reads badly. Some are drawn to learn from, 200 others are to check with."""
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from mnist_fastai.data.cache import image_rows
from mnist_fastai.data.core import stratified_splitter
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path
from mnist_fastai.environment import environment
from mnist_fastai.finetune import finetune
from mnist_fastai.learner import mnist_learner, score_dl
from mnist_fastai.report.measure import open_images
from mnist_fastai.utils import read_json, write_json
from mnist_fastai.weights import load_pretrained

file = Path(__file__).with_suffix('.json')
sizes, seeds, fresh = (50, 20, 200, 2000), range(10, 15), 20  # seeds up to 9 were used to choose the settings


def hand(files, images, seed, n):
    "Rows of the `n` images of each digit that look most like one of them, in random order"
    rng, labels, rows = np.random.default_rng(seed), np.array([int(o.parent.name) for o in files]), []
    for digit in range(10):
        some = np.flatnonzero(labels == digit)
        soft = gaussian_filter(images[some].astype(np.float32), (0, 1, 1)).reshape(len(some), -1)
        soft /= np.linalg.norm(soft, axis=1, keepdims=True)
        rows.append(rng.permutation(some[np.argsort(-soft@soft[rng.integers(len(some))])[:n]]))
    return np.stack(rows)


def bent(image, turn=-30, bend=.12, side=140):
    "A picture of a digit, dark on light: turned by `turn` degrees, and bent to an S by `bend` of its height"
    big = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    big = np.asarray(Image.fromarray(np.pad(big, side//2)).rotate(-turn, Image.Resampling.BILINEAR))
    y, x = np.mgrid[:2*side, :2*side]
    shift = bend*side*np.sin(2*np.pi*1.2*y/side)
    return 255 - map_coordinates(big, [y, x + shift], order=1)


def draw(folder, images, rows):
    "Write some images of each digit as that person's pictures"
    for digit, some in enumerate(rows):
        (folder/str(digit)).mkdir(parents=True)
        for row in some: Image.fromarray(bent(images[row])).save(folder/str(digit)/f'{row}.png')
    return folder


def trial(files, images, n, seed, tmp):
    "Draw `n` pictures, learn them, and read others of the same person before and after"
    rows = hand(files, images, seed, n//10 + fresh)
    own, others = draw(tmp/'own', images, rows[:, fresh:]), draw(tmp/'others', images, rows[:, :fresh])
    run = finetune(own, 'best', seed, mnist='mnist', out=tmp/'run')
    with open_images(others) as (_, folder, unread):
        dl = run.learn.dls.test_dl(image_files(folder), with_labels=True, bs=200)
        before, after = (score_dl(o, dl)[0]['accuracy'] for o in (mnist_learner(run.learn.dls, load_pretrained('best')),
                                                                  run.learn))
    m = run.metrics
    return dict(pictures=n, seed=seed, own=[before, after], unread=len(unread),
                valid=[m['before']['valid']['accuracy'], m['valid']['accuracy']], test=m['test']['accuracy'],
                seconds=m['seconds'])


if __name__ == '__main__':
    found = read_json(file) if file.exists() else dict(trials=[])
    files = image_files(mnist_path('mnist')/'training')
    files = files[stratified_splitter()(files)[0]]
    images, rows = image_rows(files)
    images = images[rows].numpy()
    if '--seconds' in sys.argv: sizes, seeds, found['quiet'] = (2000,), seeds[:1], []
    kept = found['quiet'] if '--seconds' in sys.argv else found['trials']
    for n in sizes:
        for seed in seeds:
            if any((o['pictures'], o['seed']) == (n, seed) for o in kept): continue
            with TemporaryDirectory() as tmp: kept.append(trial(files, images, n, seed, Path(tmp)))
            print(kept[-1], flush=True)
            write_json(file, dict(found, environment=environment()))
