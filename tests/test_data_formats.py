"""IDX files, CSV and archives: what is imported, and what is refused without a trace."""
import gzip
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from digit_files import good, idx_bytes, imports, png, some_images, some_labels, tar_of, write_idx

from mnist_fastai.data.cache import dataset_name, decoded
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.formats import read_csv
from mnist_fastai.data.sources import digits_arrays, mnist_path


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


def csv_text(n=80, value='0', header=None):
    rows = [f'{i % 10},' + ','.join([str(i % 256)]*783 + [value if i == 5 else '0']) for i in range(n)]
    return '\n'.join([header or ','.join(['label', *(f'pixel{i}' for i in range(784))]), *rows]) + '\n'


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
    'label 10':          ('a.tgz', tar_of({**good, 'training/10/2.png': png()}), "'10' is not a digit"),
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


def test_an_edited_source_is_imported_anew(tmp_path):
    images, labels = digits_arrays()
    write_idx(tmp_path, images, labels)
    first = mnist_path(tmp_path)
    (tmp_path/'t10k-labels-idx1-ubyte').write_bytes(idx_bytes(labels[::-1]))
    assert mnist_path(tmp_path) != first
