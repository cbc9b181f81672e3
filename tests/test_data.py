"""Where digits come from: imports, what is refused, the offline fallback, the cache, the DataLoaders."""
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from serving import offline
from fastai.data.core import DataLoaders
from fastai.data.external import fastai_path
from fastai.torch_core import TensorCategory
from fastai.vision.augment import Resize
from fastai.vision.core import PILImageBW, TensorImageBW
from PIL import Image

from mnist_fastai.data.cache import (
    _decoded, cache_file, dataset_name, decode_images, decoded, describe, file_states, open_cache, snapshot,
    split_hash
)
from mnist_fastai.data.core import DigitDL, mnist_dls, mnist_mean_std, mnist_test_dl
from mnist_fastai.data.folders import image_files, split_names
from mnist_fastai.data.formats import read_csv
from mnist_fastai.data.mnist_form import in_mnist_form, paper_levels, read_one_size, reader_accuracies, to_light_ink
from mnist_fastai.data.sources import digits_arrays, digits_path, is_reachable, mnist_path
from mnist_fastai.augment import augmentations


def imports(): return set((fastai_path('data')/'mnist_fastai').iterdir())


def idx_bytes(a): return bytes([0, 0, 8, a.ndim]) + np.array(a.shape, '>u4').tobytes() + a.astype(np.uint8).tobytes()


def write_idx(folder, images, labels, suffix='', pack=lambda b: b):
    for part in ('train', 't10k'):
        (folder/f'{part}-images-idx3-ubyte{suffix}').write_bytes(pack(idx_bytes(images)))
        (folder/f'{part}-labels-idx1-ubyte{suffix}').write_bytes(pack(idx_bytes(labels)))


def png(pixels=None, size=(28, 28)):
    f = io.BytesIO()
    Image.fromarray(np.zeros(size[::-1], np.uint8) if pixels is None else pixels).save(f, 'png')
    return f.getvalue()


noise = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)


# --- sources

def test_digits_are_split_the_same_way_every_time(digits, tmp_path, monkeypatch):
    first = {s: split_hash(digits/s) for s in ('training', 'testing')}
    for o in ('folders', 'sources'):
        monkeypatch.setattr(f'mnist_fastai.data.{o}.fastai_path', lambda _: tmp_path)
    again = digits_path()
    assert again != digits
    assert {s: split_hash(again/s) for s in first} == first
    assert [len(image_files(again/s)) for s in first] == [1437, 360]


@pytest.mark.parametrize('suffix, pack', [('', lambda b: b), ('.gz', gzip.compress)])
def test_idx_files_come_through_unchanged(tmp_path, suffix, pack):
    images, labels = digits_arrays()
    write_idx(tmp_path, images, labels, suffix, pack)
    path = mnist_path(tmp_path)
    index, pixels = decoded(path/'training')
    for file, row in index.items():
        i = int(Path(file).stem)
        assert int(Path(file).parent.name) == labels[i] and (pixels[row].numpy() == images[i]).all()
    assert mnist_path(tmp_path) == path  # a second time, it is there


def test_an_edited_source_is_imported_anew(tmp_path):
    images, labels = digits_arrays()
    write_idx(tmp_path, images, labels)
    first = mnist_path(tmp_path)
    (tmp_path/'t10k-labels-idx1-ubyte').write_bytes(idx_bytes(labels[::-1]))
    assert mnist_path(tmp_path) != first


def csv_text(n=80, value='0', header=None):
    rows = [f'{i % 10},' + ','.join([str(i % 256)]*783 + [value if i == 5 else '0']) for i in range(n)]
    return '\n'.join([header or ','.join(['label', *(f'pixel{i}' for i in range(784))]), *rows]) + '\n'


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


def test_a_good_archive_and_a_good_csv_are_imported(tmp_path):
    (tmp_path/'a.tgz').write_bytes(tar_of({f'mnist_png/{k}': v for k, v in good.items()}))
    assert len(image_files(mnist_path(tmp_path/'a.tgz')/'training')) == 10
    (tmp_path/'train.csv').write_text(csv_text())
    path = mnist_path(tmp_path/'train.csv')
    assert len(image_files(path/'training')) + len(image_files(path/'testing')) == 80
    assert dataset_name(path, {}) == dataset_name(path, dict(training='x')) == 'train (not MNIST)'


@pytest.mark.parametrize('name, mode', [('a.tgz', 'w:'), ('a.tar', 'w:gz'), ('a.tar', 'w:')])
def test_what_an_archive_is_called_does_not_matter(name, mode, tmp_path):
    (tmp_path/name).write_bytes(tar_of(good, mode))
    assert len(image_files(mnist_path(tmp_path/name)/'training')) == 10


bad_files = {
    'a link':            ('a.tgz', tar_of({**good, 'training/0/2.png': (tarfile.SYMTYPE, '/etc/passwd')}), 'a link'),
    'a hard link':       ('a.tgz', tar_of({**good, 'training/0/2.png': (tarfile.LNKTYPE, '/etc/passwd')}), 'a link'),
    'a device':          ('a.tgz', tar_of({**good, 'training/0/2.png': (tarfile.CHRTYPE, '')}), 'a device'),
    'path traversal':    ('a.tgz', tar_of({**good, '../../training/0/2.png': png()}), 'outside of the archive'),
    'absolute path':     ('a.tgz', tar_of({**good, '/training/0/2.png': png()}), 'outside of the archive'),
    'label 10':          ('a.tgz', tar_of({**good, 'training/10/2.png': png()}), "'10' is no digit"),
    'huge image':        ('a.tgz', tar_of({**good, 'training/0/2.png': bytes(200_000)}), 'too many for a digit'),
    'a class missing':   ('a.tgz', tar_of({k: v for k, v in good.items() if '/7/' not in k}), 'no images of digit 7'),
    'a corrupt image':   ('a.tgz', tar_of({**good, 'training/0/2.png': b'hello'}), '0/2.png is not a readable image'),
    'a picture bomb':    ('a.tgz', tar_of({**good, 'training/0/2.png': png(size=(5000, 5000))}), 'at most 1,000,000'),
    'two of a name':     ('a.tgz', tar_of({**good, 'b/training/0/1.png': png()}), 'two images called training/0/1'),
    'truncated archive': ('a.tgz', tar_of(good)[:300], 'not a whole archive'),
    'no archive':        ('a.tgz', b'hello', 'not a whole archive'),
    'missing column':    ('t.csv', csv_text(header=','.join(f'pixel{i}' for i in range(785))).encode(), 'Kaggle'),
    'pixel of 300':      ('t.csv', csv_text(value='300').encode(), 'line 7: pixel783 is 300'),
    'pixel of 1.5':      ('t.csv', csv_text(value='1.5').encode(), 'line 7: pixel783 is 1.5'),
    'word for a pixel':  ('t.csv', csv_text(value='dark').encode(), 'line 7: pixel783 is dark'),
    'truncated line':    ('t.csv', csv_text().encode() + b'3,0,0\n', 'line 82: pixel2 is nan'),
    'a blank line':      ('t.csv', csv_text().encode() + b'\n3', 'line 82: label is nan'),
    'longer lines':      ('t.csv', csv_text().replace('\n', ',0\n').replace('783,0', '783').encode(), 'not a CSV'),
    'empty csv':         ('t.csv', b'', 'not a CSV'),
    'binary csv':        ('t.csv', b'\xff\xfe\x00', 'not a CSV'),
}


hostile = 'a link', 'a hard link', 'a device', 'path traversal', 'absolute path', 'huge image', 'a picture bomb'


@pytest.mark.parametrize('name', [
    pytest.param(o, marks=pytest.mark.fault('hostile archive' if o in hostile else 'bad data')) for o in bad_files])
def test_bad_files_are_refused_and_leave_nothing(name, tmp_path, digits):
    file, content, message = bad_files[name]
    (tmp_path/file).write_bytes(content)
    before = imports()
    with pytest.raises(ValueError, match=message) as e: mnist_path(tmp_path/file)
    assert file in str(e.value)
    assert imports() == before


@pytest.mark.fault('hostile archive')
@pytest.mark.parametrize('kind, size, message', [
    (tarfile.REGTYPE, 2**40, 'unpacked it has more than 2,147,483,648 bytes'),
    (tarfile.GNUTYPE_LONGNAME, 2**30, 'a header of 1,073,741,824 bytes'),
    (tarfile.XHDTYPE, 2**30, 'a header of 1,073,741,824 bytes')])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(kind, size, message, tmp_path, digits):
    (bomb := tarfile.TarInfo('README')).size, bomb.type = size, kind
    with tarfile.open(tmp_path/'a.tgz', 'w:gz') as tar: tar.addfile(bomb)
    before = imports()
    with pytest.raises(ValueError, match=message): mnist_path(tmp_path/'a.tgz')
    assert imports() == before


bad_idx = {
    'truncated':      (idx_bytes(np.zeros((20, 28, 28)))[:-1], np.arange(20) % 10, 'should hold 15680 bytes'),
    'too long':       (idx_bytes(np.zeros((20, 28, 28))) + b'x', np.arange(20) % 10, 'should hold 15680 bytes'),
    'wrong magic':    (b'\x89PNG' + bytes(100), np.arange(20) % 10, 'not a whole IDX file'),
    'claims too much': (bytes([0, 0, 8, 3]) + b'\xff'*12, np.arange(20) % 10, 'it claims a shape'),
    'wrong size':     (idx_bytes(np.zeros((20, 27, 28))), np.arange(20) % 10, 'expected n x 28 x 28'),
    'count mismatch': (idx_bytes(np.zeros((20, 28, 28))), np.arange(19) % 10, 'for labels of shape'),
    '255 dimensions': (b'\0\0\x08\xff' + bytes(2000), np.arange(20) % 10, 'claims 255 dimensions'),
    'flat labels':    (idx_bytes(np.zeros((20, 28, 28))), np.zeros((20, 1)), 'labels of shape'),
    'three bytes':    (b'\0\0\x08', np.arange(20) % 10, 'not a whole IDX file'),
    'label 11':       (idx_bytes(np.zeros((20, 28, 28))), np.arange(20) % 12, 'not a digit'),
}


@pytest.mark.fault('bad data')
@pytest.mark.parametrize('name', bad_idx)
def test_bad_idx_is_refused_and_leaves_nothing(name, tmp_path, digits):
    images, labels, message = bad_idx[name]
    write_idx(tmp_path, np.zeros((20, 28, 28)), labels)
    (tmp_path/'train-images-idx3-ubyte').write_bytes(images)
    before = imports()
    with pytest.raises(ValueError, match=message): mnist_path(tmp_path)
    assert imports() == before


@pytest.mark.fault('bad data')
def test_truncated_gzip_is_refused(tmp_path):
    images, labels = digits_arrays()
    write_idx(tmp_path, images, labels, '.gz', lambda b: gzip.compress(b)[:-9])
    with pytest.raises(ValueError, match='not a whole IDX file'): mnist_path(tmp_path)


@pytest.mark.fault('bad data')
def test_an_incomplete_idx_folder_names_what_is_missing(tmp_path):
    (tmp_path/'train-images-idx3-ubyte').write_bytes(b'')
    with pytest.raises(ValueError, match='no train-labels-idx1-ubyte'): mnist_path(tmp_path)


@pytest.mark.fault('bad data')
def test_folders_that_are_no_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder 'training'"): mnist_path(tmp_path)
    for name in good: (tmp_path/name).parent.mkdir(parents=True); (tmp_path/name).write_bytes(png())
    assert mnist_path(tmp_path) == tmp_path
    (tmp_path/'training'/'10').mkdir()
    with pytest.raises(ValueError, match="'10', which is no digit"): mnist_path(tmp_path)


@pytest.mark.fault('disk full, unwritable or gone')
def test_digits_that_lost_files_are_written_again(tmp_path, monkeypatch):
    for o in ('folders', 'sources'):
        monkeypatch.setattr(f'mnist_fastai.data.{o}.fastai_path', lambda _: tmp_path)
    whole = split_hash(digits_path()/'testing')
    image_files(digits_path()/'testing')[0].unlink()
    assert split_hash(digits_path()/'testing') == whole


# --- MNIST's form

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
upside = dict(dark=lambda o: 255 - o, swapped=lambda o: o.transpose(0, 2, 1), both=lambda o: 255 - o.transpose(0, 2, 1))


def states_of(folder): return {o: (o.read_bytes(), o.stat().st_mtime_ns) for o in folder.rglob('*') if o.is_file()}


@pytest.mark.parametrize('kind', ['folder', 'tgz', 'csv', 'idx'])
@pytest.mark.parametrize('change', upside)
def test_dark_and_swapped_digits_become_mnists_form_and_it_is_said(kind, change, tmp_path, capsys, digits):
    images = np.ascontiguousarray(upside[change](some_images))
    source = wrapped(kind, tmp_path, images, some_labels)
    before = states_of(tmp_path)
    path = mnist_path(source)
    said = capsys.readouterr().out
    assert said.count('dark on light') == (change != 'swapped') and said.count('swapped back') == (change != 'dark')
    assert said.count('\n') == said.count(str(source)) == (2 if change == 'both' else 1)
    index, pixels = decoded(path/'training')
    for file, row in index.items():
        i = int(Path(file).stem)
        if kind == 'csv': assert any((pixels[row].numpy() == o).all() for o in some_images)
        else: assert (pixels[row].numpy() == some_images[i]).all() and Path(file).parent.name == str(some_labels[i])
    assert mnist_path(source) == path == mnist_path(path) and not capsys.readouterr().out  # it is there
    assert states_of(tmp_path) == before  # what a person has is left as it is
    assert dataset_name(path, {}).startswith('mine')


@pytest.mark.parametrize('kind', ['folder', 'tgz', 'csv', 'idx'])
def test_what_has_mnists_form_is_left_alone(kind, tmp_path, capsys, digits):
    source = wrapped(kind, tmp_path, some_images, some_labels)
    path = mnist_path(source)
    assert not capsys.readouterr().out and (path == source or kind != 'folder')


def test_noise_random_labels_and_nothing_at_all_are_left_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    for images in (rng.integers(0, 256, (300, 28, 28), np.uint8), np.zeros((300, 28, 28), np.uint8),
                   np.full((300, 28, 28), 255, np.uint8), rng.permutation(digits_arrays()[0])[:300]):
        splits, changes = in_mnist_form(dict(training=(images, labels), testing=(images, labels)))
        assert not changes and splits['training'][0] is images


def test_each_image_is_turned_by_itself_and_each_split(tmp_path, capsys, digits):
    mixed = some_images.copy()
    mixed[::3] = 255 - mixed[::3]
    folder = as_folder(tmp_path/'mixed', mixed, some_labels)
    shutil.rmtree(folder/'testing')
    shutil.copytree(as_folder(tmp_path/'light', some_images, some_labels)/'testing', folder/'testing')
    path = mnist_path(folder)
    assert '67 of 200 training images are dark' in capsys.readouterr().out
    for file in image_files(path/'training'):
        assert (np.asarray(Image.open(file)) == some_images[int(file.stem)]).all()


@pytest.mark.parametrize('paper, ink, noise', [(255, 60, 0), (235, 20, 8), (150, 30, 8), (200, 0, 25)])
def test_grey_and_grainy_paper_becomes_almost_0(paper, ink, noise):
    grain = np.random.default_rng(0).normal(0, noise, some_images.shape)
    dark = (paper - some_images*((paper - ink)/255) + grain).clip(0, 255).astype(np.uint8)
    turned, n = to_light_ink(dark)
    assert n == 200 and np.median(paper_levels(turned)[0]) <= 2
    assert turned[some_images > 250].mean() > 180 and turned[some_images == 0].mean() < 4 + noise/2


@pytest.mark.mnist
def test_mnist_has_its_own_form_and_emnists_is_seen():
    splits = read_one_size(mnist_path('mnist'))
    assert in_mnist_form(splits)[1] == []
    for images, labels, _ in splits.values():
        assert to_light_ink(255 - images)[1] == len(images)
        as_is, transposed = reader_accuracies(images.transpose(0, 2, 1), labels)
        assert transposed > .95 and as_is < .25


def test_emnists_file_names_are_known_and_two_sets_are_not_mixed_up(tmp_path, digits):
    for part in ('train', 'test'):
        for kind, a in (('images-idx3', some_images), ('labels-idx1', some_labels)):
            (tmp_path/f'emnist-digits-{part}-{kind}-ubyte.gz').write_bytes(gzip.compress(idx_bytes(a)))
    assert len(image_files(mnist_path(tmp_path)/'testing')) == 200
    shutil.copy(tmp_path/'emnist-digits-train-images-idx3-ubyte.gz', tmp_path/'emnist-mnist-train-images-idx3-ubyte.gz')
    with pytest.raises(ValueError, match='the four files of one data set'): mnist_path(tmp_path)


def test_a_csv_without_labels_is_turned_too(tmp_path, capsys):
    names = ','.join(f'pixel{i}' for i in range(784))
    np.savetxt(tmp_path/'test.csv', 255 - some_images.reshape(-1, 784), '%d', ',', comments='', header=names)
    images, _ = read_csv(tmp_path/'test.csv', labelled=False)
    assert (images == some_images).all() and '200 of 200 images are dark' in capsys.readouterr().out


# --- pictures of any size

def large(images, size=(90, 120), paper=210):
    "Dark digits on grey, somewhere on a sheet"
    h, w = size
    sheets = np.full((len(images), h, w), paper, np.uint8)
    for sheet, image in zip(sheets, images):
        big = np.asarray(Image.fromarray(image).resize((70, 70), Image.Resampling.BICUBIC))
        sheet[10:80, 20:90] = paper - big*(paper - 30.)/255
    return sheets


@pytest.mark.parametrize('kind', ['folder', 'tgz'])
def test_pictures_of_any_size_are_found_as_in_reading(kind, tmp_path, capsys, digits):
    from mnist_fastai.pictures.finding import to_mnist
    folder = as_folder(tmp_path/'mine', large(some_images[:40]), some_labels[:40], 'jpg', quality=80)
    Image.fromarray(some_images[50]).save(folder/'training'/str(some_labels[50])/'small.png')
    Image.fromarray(np.full((90, 120), 210, np.uint8)).save(folder/'training'/'3'/'empty\x1b.png')
    before = states_of(folder)
    path = mnist_path(folder if kind == 'folder' else as_tgz(tmp_path/'mine.tgz', folder))
    said = capsys.readouterr().out
    assert '54 pictures that are not 28x28 were made so' in said and '1 could not be read' in said
    assert os.path.join('training', '3', 'empty?.png') in said and said.count('\n') == 1
    assert [len(image_files(path/s)) for s in split_names] == [41, 14]
    for file in image_files(path/'testing'):
        raw = folder/'testing'/file.parent.name/file.stem
        assert (np.asarray(Image.open(file)) == to_mnist(raw)).all()
    small = path/'training'/str(some_labels[50])/'small.png'
    assert (np.asarray(Image.open(small)) == some_images[50]).all()
    assert states_of(folder) == before


@pytest.mark.fault('bad data')
def test_a_damaged_picture_among_others_is_named_and_left_out(tmp_path, capsys, digits):
    folder = as_folder(tmp_path/'mine', large(some_images[:40]), some_labels[:40])
    (folder/'training'/'4'/'bad.png').write_bytes(b'no image')
    file = folder/'training'/'5'/'cut.png'
    file.write_bytes(png(large(some_images[5:6])[0])[:200])
    mnist_path(folder)
    said = capsys.readouterr().out
    assert '2 could not be read' in said and 'bad.png' in said and 'cut.png' in said


@pytest.mark.fault('bad data')
def test_a_digit_without_a_readable_picture_is_refused_and_leaves_nothing(tmp_path, digits):
    folder = as_folder(tmp_path/'mine', large(some_images[:40]), some_labels[:40])
    for file in (folder/'training'/'7').iterdir(): Image.new('L', (90, 120), 210).save(file)
    before = imports()
    with pytest.raises(ValueError, match='has no picture of digit 7 that can be read; the first: training'):
        mnist_path(folder)
    assert {o for o in imports() - before if o.name != 'cache'} == set()


@pytest.mark.fault('bad data')
def test_a_damaged_image_among_28x28_is_refused(tmp_path, digits):
    folder = as_folder(tmp_path/'mine', some_images, some_labels)
    (folder/'training'/'4'/'bad.png').write_bytes(png(noise)[:300])
    with pytest.raises(ValueError, match='bad.png is not a readable image'): mnist_path(folder)


@pytest.mark.parametrize('kind', ['folder', 'csv'])
def test_a_model_of_dark_digits_reads_its_own_test_pictures(kind, tmp_path, sh, digits):
    from mnist_fastai.inference import Predictor
    images, labels = (o[:1200] for o in digits_arrays())
    source = wrapped(kind, tmp_path, 255 - images, labels)
    done = sh('mnist-train', '--data', source, '--epochs', 4, '--bs', 64)
    assert done.returncode == 0, done.stderr
    assert 'dark on light' in done.stdout
    run = next((tmp_path/'runs').iterdir())
    reported = json.loads((run/'metrics.json').read_text())['test']['accuracy']
    files = image_files((source if kind == 'folder' else mnist_path(source))/'testing')
    pictures = files if kind == 'folder' else [255 - np.asarray(Image.open(f)) for f in files]  # dark, as in the source
    right = [p.digit == int(f.parent.name) for p, f in zip(Predictor(run).predict_batch(pictures), files)]
    assert reported > .8 and np.mean(right) == pytest.approx(reported, abs=.005)


# --- no network

def test_offline_auto_takes_the_digits_and_says_so(sh, tmp_path):
    done = sh('mnist-data', FASTAI_HOME=str(tmp_path/'home'), **offline)
    assert done.returncode == 0, done.stderr
    assert 'THIS IS NOT MNIST' in done.stdout and 'digits (not MNIST)' in done.stdout


def test_offline_mnist_is_one_clear_error(sh, tmp_path):
    done = sh('mnist-data', '--source', 'mnist', FASTAI_HOME=str(tmp_path/'home'), **offline)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'its host does not answer' in done.stderr


def test_auto_downloads_mnist_when_its_host_answers(sh, tmp_path):
    (tmp_path/'www').mkdir()
    (tmp_path/'www'/'mnist_png.tgz').write_bytes(tar_of({f'mnist_png/{k}': v for k, v in good.items()}))
    code = f'''
import functools, http.server, threading, warnings; warnings.simplefilter("ignore")
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory={str(tmp_path/'www')!r})
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
from mnist_fastai import data
data.URLs.MNIST = f"http://127.0.0.1:{{server.server_port}}/mnist_png.tgz"
data.mnist_size = dict(training=10, testing=10)
print(data.mnist_path("auto"))
'''
    done = sh('python', code, FASTAI_HOME=str(tmp_path/'home'))
    folder = tmp_path/'home'/'data'/'mnist_png'
    assert done.stdout.splitlines() == [f'Downloading MNIST to {folder}', str(folder)], done.stderr


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        start = time.monotonic()
        assert not is_reachable(f'http://127.0.0.1:{silent.getsockname()[1]}/', 0.5)
    assert time.monotonic() - start < 5


def test_incomplete_mnist_is_not_taken_for_mnist(tmp_path, monkeypatch):
    for o in ('folders', 'sources'):
        monkeypatch.setattr(f'mnist_fastai.data.{o}.fastai_path', lambda _: tmp_path)
    monkeypatch.setattr('mnist_fastai.data.sources.is_reachable', lambda *_: False)
    for name in good:
        (tmp_path/'mnist_png'/name).parent.mkdir(parents=True)
        (tmp_path/'mnist_png'/name).write_bytes(png())
    with pytest.raises(ConnectionError, match='incomplete'): mnist_path('mnist')


# --- the cache

@pytest.fixture
def folder(digits, tmp_path):
    "A copy of the digits' training images that a test may damage"
    path = tmp_path/'mine'/'training'
    for file in image_files(digits/'training'):
        (path/file.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(file, path/file.parent.name/file.name)
    _decoded.cache_clear()
    return path


def fresh_hash(folder):
    "What a process that starts now would see"
    _decoded.cache_clear()
    return split_hash(folder)


def test_a_changed_image_is_seen(folder):
    before = fresh_hash(folder)
    file = image_files(folder)[0]
    file.unlink()
    file.write_bytes(png(np.full((28, 28), 7, np.uint8)))
    assert fresh_hash(folder) != before
    index, images = decoded(folder)
    assert (images[index[str(file)]] == 7).all()


def test_a_folder_is_looked_at_once_inside_look_once_and_anew_after_it(folder, monkeypatch):
    looked, states = [], file_states
    monkeypatch.setattr('mnist_fastai.data.cache.file_states', lambda o: looked.append(o) or states(o))
    with snapshot():
        before = split_hash(folder)
        file = image_files(folder)[0]
        file.unlink()
        file.write_bytes(png(np.full((28, 28), 7, np.uint8)))
        assert split_hash(folder) == before and len(looked) == 1
    assert split_hash(folder) != before and len(looked) == 2


def test_two_images_that_change_places_are_seen(folder):
    a, b = [next(iter((folder/digit).iterdir())) for digit in '34']
    size = max(a.stat().st_size, b.stat().st_size)
    for file in (a, b):  # same size, same time: an archive gives that to thousands of images
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content.ljust(size, b'\0'))
        os.utime(file, (1, 1))
    before, pixels = fresh_hash(folder), decoded(folder)[1].numpy()
    a.rename(folder/'x')
    b.rename(a)
    (folder/'x').rename(b)
    assert fresh_hash(folder) != before
    assert sorted(map(bytes, decoded(folder)[1].numpy())) == sorted(map(bytes, pixels))


@pytest.mark.fault('damaged checkpoint, cache or learner')
@pytest.mark.parametrize('damage', [lambda b: b[:len(b)//2], lambda b: b'', lambda b: b'garbage'*1000])
def test_a_damaged_cache_is_made_anew(folder, damage):
    before = fresh_hash(folder)
    file = cache_file(folder, file_states(folder))
    file.write_bytes(damage(file.read_bytes()))
    assert fresh_hash(folder) == before
    assert open_cache(file, 1437) is not None


def test_only_the_newest_state_of_a_folder_is_kept(folder):
    fresh_hash(folder)
    os.utime(image_files(folder)[0])
    fresh_hash(folder)
    place = cache_file(folder, []).name.split('-')[0]
    assert len(list((fastai_path('data')/'mnist_fastai'/'cache').glob(f'{place}-*'))) == 1


@pytest.mark.fault('two at once')
def test_two_processes_at_once_and_one_that_is_killed(folder, tmp_path):
    expected = fresh_hash(folder)
    cache_file(folder, file_states(folder)).unlink()
    hang = ('import numpy, time; numpy.save = lambda f, a: '
            '(f.write(b"half"), f.flush(), print("on it", flush=True), time.sleep(99));')
    see = f'from mnist_fastai.data.cache import split_hash; print(split_hash({str(folder)!r}))'
    start = dict(text=True, stdout=subprocess.PIPE, env={**os.environ, 'PYTHONWARNINGS': 'ignore'})
    victim = subprocess.Popen([sys.executable, '-c', hang + see], **start)
    assert victim.stdout.readline() == 'on it\n'  # it has written half of a cache
    pair = [subprocess.Popen([sys.executable, '-c', see], **start) for _ in range(2)]
    assert [p.communicate(timeout=120)[0].strip() for p in pair] == [expected]*2
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert fresh_hash(folder) == expected


def test_an_unwritable_cache_costs_time_and_nothing_else(folder, monkeypatch, capsys):
    expected = fresh_hash(folder)
    cache_file(folder, file_states(folder)).unlink()
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('mnist_fastai.utils.atomic_save', full)
    assert fresh_hash(folder) == expected
    assert 'could not be cached' in capsys.readouterr().out


@pytest.mark.fault('bad data')
@pytest.mark.parametrize('content, message', [(b'no image', 'not a readable image'),
                                              (png(noise)[:300], 'not a readable image'),
                                              (png(size=(30, 28)), 'is 30x28 pixels; expected 28x28')])
def test_a_bad_image_is_named(folder, content, message):
    bad = folder/'3'/'bad.png'
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=message) as e: fresh_hash(folder)
    assert str(bad) in str(e.value)


@pytest.mark.fault('bad data')
def test_parallel_decoding_gives_the_same_and_names_a_bad_image(folder, monkeypatch):
    files = list(map(str, image_files(folder)))*5
    assert len(files) > 5000  # so many that it is done by several processes
    assert torch.equal(decode_images(files), decode_images(files[:1437]).repeat(5, 1, 1))
    (folder/'bad.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='bad.png is not a readable image') as e:
        decode_images([*files, str(folder/'bad.png')])
    assert '\n' not in str(e.value)


# --- DataLoaders

def test_the_validation_images_do_not_hang_on_size_or_training_seed(digits):
    def valid(**kwargs): return list(mnist_dls(digits, **kwargs).valid_ds.items)
    assert valid() == valid(train_size=300) == valid(bs=7)
    assert valid() != valid(split_seed=1)


def test_training_and_validation_are_stratified_apart_and_from_training_only(digits):
    dls = mnist_dls(digits, train_size=500)
    train, valid = set(dls.train_ds.items), set(dls.valid_ds.items)
    assert (len(train), len(valid)) == (500, 287) and not train & valid
    assert all(f.parent.parent.name == 'training' for f in train | valid)
    counts = np.bincount([int(f.parent.name) for f in train])
    assert counts.min() >= 48 and counts.max() <= 52


def test_no_validation_is_possible(digits):
    dls = mnist_dls(digits, valid_size=0)
    assert (dls.train.n, dls.valid.n) == (1437, 0)


def test_an_epoch_sees_every_image_once_in_another_order_each_time(digits):
    dl = mnist_dls(digits, bs=50).valid.new(shuffle=True, bs=50)
    def epoch(): return torch.cat([x.flatten(1).sum(1).as_subclass(torch.Tensor) for x, _ in dl])
    first, second = epoch(), epoch()
    assert not torch.equal(first, second)
    assert torch.equal(first.sort()[0], second.sort()[0]) and len(first) == 287


def test_a_set_larger_than_a_part_is_shuffled_by_blocks_and_read_in_the_order_of_the_file(digits, monkeypatch):
    dls = mnist_dls(digits, bs=50, valid_size=0)
    dl, (images, rows, (labels,)) = dls.train, dls.train.store()
    monkeypatch.setattr(DigitDL, 'near', 470)  # in parts of 500: 500, 500 and 437 of the 1,437 digits
    order = dl.random_order(1437)
    assert order.sort()[0].equal(torch.arange(1437)) and not dl.random_order(1437).equal(order)
    parts = order.split(500)
    assert all(len({i//256 for i in part.tolist()}) <= 4 for part in parts[:2])  # of 6 blocks
    assert all((part.diff().abs() > 1).float().mean() > .9 for part in parts)
    read, index_select = [], torch.index_select
    def watched(images, dim, rows, out): read.append(rows); return index_select(images, dim, rows, out=out)
    monkeypatch.setattr(torch, 'index_select', watched)
    assert torch.cat([*dl.gather(images, order)]).equal(images[order])
    assert [len(o) for o in read] == [500, 500, 437] and all(o.equal(o.sort()[0]) for o in read)
    monkeypatch.setattr(dl, 'get_idxs', order.tolist)
    xs, ys = zip(*dl.indexed_batches())
    kept = order[:1400]  # the last batch is not full
    assert torch.cat(xs)[:, 0].equal(images[rows[kept]]) and torch.cat(ys).equal(labels[kept])
    monkeypatch.setattr(DigitDL, 'near', 1437)
    state = dl.rng.getstate()
    whole = dl.random_order(1437)
    dl.rng.setstate(state)
    assert whole.equal(torch.randperm(1437, generator=torch.Generator().manual_seed(dl.rng.getrandbits(63))))


def test_labels_belong_to_their_images(digits):
    dls = mnist_dls(digits)
    images, rows, (labels,) = dls.train.store()
    for i in (0, 500, 1149):
        file = dls.train_ds.items[i]
        assert dls.vocab[labels[i]] == file.parent.name
        assert (images[rows[i]].cpu().numpy() == np.asarray(Image.open(file))).all()


def test_it_is_a_dataloaders_in_full(digits):
    dls = mnist_dls(digits, bs=32)
    assert type(dls) is DataLoaders
    image, label = dls.valid.decode_batch(dls.valid.one_batch(), max_n=1)[0]
    file = dls.valid_ds.items[0]
    assert np.abs(image[0].numpy() - np.asarray(Image.open(file), int)).max() <= 1 and label == file.parent.name
    dls.show_batch(unique=True, max_n=4)
    assert [len(dl.dataset) for dl in dls.new_empty()] == [0, 0]
    as_file, as_array, as_picture = [dls.test_dl([o]).one_batch()[0] for o in
                                     (file, np.asarray(Image.open(file)), PILImageBW.create(file))]
    assert torch.equal(as_file, as_array) and torch.equal(as_file, as_picture)
    assert dls.test_dl([str(file)]*3).one_batch()[0].shape == (3, 1, 28, 28)


@pytest.mark.parametrize('kwargs, message', [(dict(bs=5000), 'larger than the 1150'), (dict(bs=0), 'bs=0'),
                                             (dict(train_size=5), 'train_size=5'),
                                             (dict(train_size=1148), 'expected 10 to 1140, or 1437 for all'),
                                             (dict(train_size=1151), 'expected 10 to 1140, or 1437 for all'),
                                             (dict(valid_size=5), 'valid_size=5')])
def test_impossible_sizes_are_refused(digits, kwargs, message):
    with pytest.raises(ValueError, match=message): mnist_dls(digits, **kwargs)


def test_item_transforms_are_applied(digits):
    assert mnist_dls(digits, item_tfms=Resize(14), bs=8).one_batch()[0].shape == (8, 1, 14, 14)


def test_dataloaders_survive_a_pickle(digits):
    dls = pickle.loads(pickle.dumps(mnist_dls(digits)))
    assert dls.train.n == 1150 and dls.one_batch()[0].shape == (128, 1, 28, 28)


# --- real MNIST

@pytest.mark.mnist
def test_mnist_is_whole_and_byte_exact():
    path = mnist_path('mnist')
    assert describe(path)['name'] == 'MNIST'
    index, images = decoded(path/'training')
    order = sorted(index, key=lambda f: int(Path(f).stem))
    header = bytes([0, 0, 8, 3]) + np.array(images.shape, '>u4').tobytes()
    md5 = hashlib.md5(header + images[[index[f] for f in order]].numpy().tobytes()).hexdigest()
    assert md5 == '6bbc9ace898e44ae57da46a324031adb'  # train-images-idx3-ubyte as Yann LeCun published it
    pixels = images.numpy()/255
    assert (round(pixels.mean(), 4), round(pixels.std(), 4)) == (mnist_mean_std[0][0], mnist_mean_std[1][0])


@pytest.mark.mnist
def test_mnist_is_split_into_55000_and_5000():
    dls = mnist_dls('mnist')
    assert (dls.train.n, dls.valid.n, len(mnist_test_dl(dls).dataset)) == (55_000, 5_000, 10_000)
    assert mnist_dls('mnist', train_size=18_000).train.n == 18_000


@pytest.mark.mnist
def test_digits_in_mnists_clothes_are_not_called_mnist(digits, tmp_path):
    fake = tmp_path/'mnist_png'
    fake.symlink_to(digits)
    assert describe(Path(fake))['name'] != 'MNIST'


@pytest.mark.parametrize('kwargs', [{}, dict(standardize=False), dict(batch_tfms=augmentations('erase'))])
def test_a_batch_is_what_the_transforms_make_of_it(digits, kwargs):
    dl = mnist_dls(digits, bs=64, **kwargs).valid
    slow = [dl.after_batch((TensorImageBW(x), TensorCategory(y))) for x, y in dl.indexed_batches()]
    for (x, y), (x_slow, y_slow) in zip(dl, slow, strict=True):
        assert type(x) is type(x_slow) and x.dtype == x_slow.dtype and x.equal(x_slow) and y.equal(y_slow)


def test_hidden_folders_are_no_digits(tmp_path, digits):
    folder = Path(shutil.copytree(digits, tmp_path/'digits'))
    shutil.copytree(folder/'training'/'3', folder/'training'/'.ipynb_checkpoints')
    assert len(image_files(folder/'training')) == len(image_files(digits/'training'))
    assert mnist_dls(folder).vocab == [*'0123456789']
