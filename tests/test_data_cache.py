"""Decoded images: once, kept, and never out of date."""
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.data.external import fastai_path
from PIL import Image
from digit_files import noise, png

from mnist_fastai.data.cache import (
    _decoded, cache_file, decode_image, decode_images, decoded, describe, file_states, open_cache, snapshot, split_hash
)
from mnist_fastai.data.core import mnist_mean_std
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path


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


def test_a_folder_is_looked_at_once_inside_snapshot_and_anew_after_it(folder, monkeypatch):
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
def test_digits_in_mnists_clothes_are_not_called_mnist(digits, tmp_path):
    fake = tmp_path/'mnist_png'
    fake.symlink_to(digits)
    assert describe(Path(fake))['name'] != 'MNIST'


def test_pictures_are_decoded_as_in_reading(digits, tmp_path):
    ink = np.asarray(Image.open(image_files(digits/'training')[3]))
    clear = np.zeros((28, 28, 4), np.uint8)
    clear[..., 3] = ink  # black ink: all of it is in the transparency
    Image.fromarray(clear).save(tmp_path/'clear.png')
    Image.fromarray(ink.astype(np.uint16)*200).save(tmp_path/'deep.png')
    Image.fromarray(np.dstack([255 - ink, np.full_like(ink, 255), np.full_like(ink, 255)])).save(tmp_path/'red.png')
    assert (decode_image(tmp_path/'clear.png') == 255 - ink).all()
    assert np.abs(decode_image(tmp_path/'deep.png')*(65535/255/200) - ink).max() < 1
    assert np.corrcoef(decode_image(tmp_path/'red.png').ravel(), 255. - ink.ravel())[0, 1] > .99


@pytest.mark.fault('hostile or damaged files')
def test_postscript_with_the_name_of_a_picture_starts_no_program(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *_, **__: pytest.fail('Ghostscript was started'))
    (tmp_path/'a.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n%%EOF\n')
    with pytest.raises(ValueError, match='is not a readable image'): decode_image(tmp_path/'a.png')
