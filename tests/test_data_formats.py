"""IDX files, CSV and archives: what is imported, and what is refused without a trace."""
import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from digit_files import as_csv, good, idx_bytes, imports, png, some_images, some_labels, tar_of, write_idx

from mnist_fastai.data import formats
from mnist_fastai.data.cache import dataset_name, decoded, split_hash
from mnist_fastai.data.folders import image_files, split_names
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


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(f := io.BytesIO(), 'w', method) as packed:
        for name, content in members: packed.writestr(name, content)
    return f.getvalue()


def encrypted(packed):  # says so, in both of its headers
    local, central = packed.index(b'PK\3\4'), packed.index(b'PK\1\2')
    flagged = bytearray(packed)
    flagged[local + 6] |= 1
    flagged[central + 8] |= 1
    return bytes(flagged)


no_rows = csv_text(n=0).encode()
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
    'only a header':     ('t.csv', no_rows, 'has no digits'),
    'a header in a zip': ('t.zip', zip_of([('train.csv', no_rows)]), 'has no digits'),
    'another zip':       ('t.zip', zip_of([('gzip/emnist.txt', b'0 48')]), 'holds 0 files called train.csv'),
    'two CSVs in a zip': ('t.zip', zip_of([('a/train.csv', b''), ('train.csv', b'')]), 'holds 2 files called'),
    'a link in a zip':   ('t.zip', zip_of([('../../train.csv', b'/etc/passwd')]), 'expected Kaggle'),
    'an encrypted zip':  ('t.zip', encrypted(zip_of([('train.csv', b'')])), 'is encrypted'),
    'bzip2 in a zip':    ('t.zip', zip_of([('train.csv', b'')], zipfile.ZIP_BZIP2), 'packed in an unusual way'),
    'a truncated zip':   ('t.zip', zip_of([('train.csv', csv_text())])[:-30], 'not a whole archive of train.csv'),
    'a damaged zip':     ('t.zip', zip_of([('train.csv', csv_text())]).replace(b'\0\0', b'\1\1'), 'not a whole'),
    'a truncated gz':    ('t.csv.gz', gzip.compress(csv_text().encode())[:-9], 'not a whole archive of train.csv'),
}


hostile = ('a link', 'a hard link', 'a device', 'path traversal', 'absolute path', 'huge image', 'a picture bomb',
           'a link in a zip', 'bzip2 in a zip')


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


@pytest.mark.fault('hostile archive')
@pytest.mark.parametrize('name, pack', [('t.zip', lambda b: zip_of([('train.csv', b)])), ('t.csv.gz', gzip.compress)])
def test_a_csv_is_unpacked_only_as_far_as_digits_need(name, pack, tmp_path, digits, monkeypatch):
    monkeypatch.setattr(formats, 'max_csv_bytes', len(csv_text()))
    (tmp_path/name).write_bytes(pack(csv_text().encode()))
    assert len(image_files(mnist_path(tmp_path/name)/'training')) > 60
    (tmp_path/name).write_bytes(pack(csv_text().encode() + b'\n'))
    before = imports()
    with pytest.raises(ValueError, match='unpacked it has more than [0-9,]+ bytes'): mnist_path(tmp_path/name)
    assert imports() == before


@pytest.mark.parametrize('name, pack', [
    ('train.zip', lambda b: zip_of([('train.csv', b)])),
    ('train.csv', lambda b: zip_of([('train.csv', b)])),  # the API's name for a zip
    ('digit-recognizer.zip', lambda b: zip_of([('sample_submission.csv', b''), ('test.csv', b''), ('train.csv', b)])),
    ('train.csv.gz', gzip.compress),
    ('train.csv.gz', lambda b: b),  # unpacked by a browser
    ('kaggle/train.csv', lambda b: b),
    ('kaggle/digit-recognizer.zip', lambda b: zip_of([('test.csv', b''), ('train.csv', b)]))])
def test_kaggles_training_data_are_read_as_they_are_downloaded(name, pack, tmp_path, digits):
    known = mnist_path(as_csv(tmp_path/'known.csv', some_images, some_labels))
    (tmp_path/'kaggle').mkdir()
    (tmp_path/'kaggle'/'test.csv').touch()
    (tmp_path/name).write_bytes(pack((tmp_path/'known.csv').read_bytes()))
    path = mnist_path(tmp_path/'kaggle' if name.startswith('kaggle') else tmp_path/name)
    for split in split_names: assert split_hash(path/split) == split_hash(known/split)
    assert dataset_name(path, {}) == f"{Path(name).name.split('.')[0]} (not MNIST)"


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


def test_emnist_is_read_as_it_is_published_and_its_data_sets_are_not_mixed_up(tmp_path, digits):
    def write(name, images, labels):
        for part in ('train', 'test'):
            for kind, a in (('images-idx3', images.transpose(0, 2, 1)), ('labels-idx1', labels)):
                (tmp_path/f'emnist-{name}-{part}-{kind}-ubyte.gz').write_bytes(gzip.compress(idx_bytes(a)))
    write('digits', some_images, some_labels)
    path = mnist_path(tmp_path)
    index, pixels = decoded(path/'testing')
    assert len(index) == 200
    for file, row in index.items(): assert (pixels[row].numpy() == some_images[int(Path(file).stem)]).all()
    write('letters', some_images, some_labels + 1)
    with pytest.raises(ValueError, match='holds emnist-digits, emnist-letters: choose one'): mnist_path(tmp_path)
    assert split_hash(mnist_path(tmp_path/'emnist-digits')/'testing') == split_hash(path/'testing')
    with pytest.raises(ValueError, match='is not a digit'): mnist_path(tmp_path/'emnist-letters')
    with pytest.raises(FileNotFoundError, match='there is no data at'): mnist_path(tmp_path/'emnist-byclass')


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
