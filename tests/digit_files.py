"""Digits as people have them: IDX files, CSV, archives and folders."""
import io
import tarfile

import numpy as np
from PIL import Image
from fastai.data.external import fastai_path

from mnist_fastai.data.sources import digits_arrays


def idx_bytes(a): return bytes([0, 0, 8, a.ndim]) + np.array(a.shape, '>u4').tobytes() + a.astype(np.uint8).tobytes()


def write_idx(folder, images, labels, suffix='', pack=lambda b: b):
    for part in ('train', 't10k'):
        (folder/f'{part}-images-idx3-ubyte{suffix}').write_bytes(pack(idx_bytes(images)))
        (folder/f'{part}-labels-idx1-ubyte{suffix}').write_bytes(pack(idx_bytes(labels)))


def png(pixels=None, size=(28, 28)):
    f = io.BytesIO()
    Image.fromarray(np.zeros(size[::-1], np.uint8) if pixels is None else pixels).save(f, 'png')
    return f.getvalue()


def tar_of(members, mode='w:gz'):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return f.getvalue()


good = {f'{s}/{i}/1.png': png() for s in ('training', 'testing') for i in range(10)}


def as_folder(folder, images, labels, suffix='png', **kwargs):
    "Every image to train on, every third to test on too"
    for split, step in (('training', 1), ('testing', 3)):
        for i in range(0, len(images), step):
            (to := folder/split/str(labels[i])).mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i]).save(to/f'{i}.{suffix}', **kwargs)
    return folder


def as_csv(file, images, labels):
    header = ','.join(['label', *(f'pixel{i}' for i in range(784))])
    np.savetxt(file, np.c_[labels, images.reshape(-1, 784)], '%d', ',', comments='', header=header)
    return file


def as_tgz(file, folder):
    with tarfile.open(file, 'w:gz') as tar: tar.add(folder, 'any/name')
    return file


def as_idx(folder, images, labels):
    folder.mkdir()
    write_idx(folder, images, labels)
    return folder


def wrapped(kind, tmp_path, images, labels):
    if kind == 'folder': return as_folder(tmp_path/'mine', images, labels)
    if kind == 'tgz': return as_tgz(tmp_path/'mine.tgz', as_folder(tmp_path/'mine', images, labels))
    if kind == 'csv': return as_csv(tmp_path/'mine.csv', images, labels)
    return as_idx(tmp_path/'mine', images, labels)


some_images, some_labels = (o[:200] for o in digits_arrays())


def states_of(folder): return {o: (o.read_bytes(), o.stat().st_mtime_ns) for o in folder.rglob('*') if o.is_file()}


def imports(): return set((fastai_path('data')/'mnist_fastai').iterdir())


noise = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)
