"""Pictures of known digits for tests."""
import io

import numpy as np

from mnist_fastai.pictures import photos


def drawn(digit, seed=0): return photos.drawn(np.random.default_rng(seed), digit)


def page(seed, kind='plain', lengths=(4, 6, 5), **kwargs):
    "A photo of a page, and the boxes of its digits"
    rng = np.random.default_rng(seed)
    sheet, boxes = photos.written(rng, [photos.others(rng, n)[0] for n in lengths], **kwargs)
    return photos.photo(rng, sheet, kind), boxes


def drawn_page(text='314159\n2653', seed=1, kind='plain', **kwargs):
    "A photo of these digits, drawn"
    rng = np.random.default_rng(seed)
    lines = [[photos.drawn(rng, int(o), 112) for o in line] for line in text.splitlines()]
    return photos.photo(rng, photos.written(rng, lines, gap=(.3, .6), **kwargs)[0], kind)


def overlap(a, b):
    "Intersection over union"
    (l, t), (r, u) = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = max(r - l, 0)*max(u - t, 0)
    return both/(np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2])) - both)


def saved(image, format='png', **kwargs):
    image.save(file := io.BytesIO(), format, **kwargs)
    return file.getvalue()
