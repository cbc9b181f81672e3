"""Where digits come from: the offline digits, the network, and what happens without one."""
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastai.data.external import URLs
from digit_files import as_csv, good, png, some_images, some_labels, tar_of

from mnist_fastai.data.cache import describe, split_hash
from mnist_fastai.data.folders import image_files, split_names
from mnist_fastai.data.sources import digits_path, is_reachable, mnist_path, portable_source


@pytest.mark.fault('disk full, unwritable or gone')
def test_digits_are_split_the_same_way_every_time_also_after_files_are_lost(digits, fresh_home):
    first = {split: split_hash(digits/split) for split in split_names}
    again = digits_path()
    assert again != digits
    assert {split: split_hash(again/split) for split in split_names} == first
    assert [len(image_files(again/split)) for split in split_names] == [1437, 360]
    image_files(again/'testing')[0].unlink()
    assert split_hash(digits_path()/'testing') == first['testing']


def test_offline_auto_takes_the_digits_and_says_so(fresh_home, no_network, capsys):
    path = mnist_path('auto')
    assert 'THIS IS NOT MNIST' in capsys.readouterr().out and describe(path)['name'] == 'digits (not MNIST)'
    assert portable_source('auto', path) == 'digits'


def test_offline_mnist_is_one_clear_error(fresh_home, no_network):
    with pytest.raises(ConnectionError, match="fastai's host does not answer") as e: mnist_path('mnist')
    assert '\n' not in str(e.value)


def test_auto_downloads_mnist_when_its_host_answers(fresh_home, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv('MNIST_FASTAI_OFFLINE')
    (tmp_path/'mnist_png.tgz').write_bytes(tar_of({f'mnist_png/{k}': v for k, v in good.items()}))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(URLs, 'MNIST', f'http://127.0.0.1:{server.server_port}/mnist_png.tgz')
        monkeypatch.setattr('mnist_fastai.data.sources.mnist_size', dict(training=10, testing=10))
        path = mnist_path('auto')
        server.shutdown()
    assert path == fresh_home/'data'/'mnist_png' and len(image_files(path/'training')) == 10
    assert capsys.readouterr().out.splitlines() == [f'Downloading MNIST to {path}']


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        start = time.monotonic()
        assert not is_reachable(f'http://127.0.0.1:{silent.getsockname()[1]}/', 0.5)
    assert time.monotonic() - start < 5


def test_incomplete_mnist_is_not_taken_for_mnist(fresh_home, no_network):
    for name in good:
        (file := fresh_home/'data'/'mnist_png'/name).parent.mkdir(parents=True)
        file.write_bytes(png())
    with pytest.raises(ConnectionError, match='incomplete'): mnist_path('mnist')


def test_all_of_kaggles_digits_can_be_trained_on_and_none_are_left_to_test(tmp_path, digits):
    file = as_csv(tmp_path/'train.csv', 255 - some_images, some_labels)
    path, whole = mnist_path(file), mnist_path(f'{file}:all')
    assert [len(image_files(path/o)) for o in split_names] == [166, 34]
    info = describe(whole)
    assert info['name'] == 'all of train (not MNIST)' and [info[o]['images'] for o in split_names] == [200, 0]
    assert whole == mnist_path(f'{tmp_path}:all') == mnist_path(portable_source(f'{file}:all', whole))
    pixels = {o.read_bytes() for split in split_names for o in image_files(path/split)}
    assert {o.read_bytes() for o in image_files(whole/'training')} == pixels  # in MNIST's form too


@pytest.mark.fault('mistaken option')
def test_only_kaggles_digits_lack_test_images(tmp_path, digits):
    with pytest.raises(FileNotFoundError, match="no data at 'digits:all'"): mnist_path('digits:all')
    with pytest.raises(ValueError, match=":all is for Kaggle's train.csv"): mnist_path(f'{digits}:all')
