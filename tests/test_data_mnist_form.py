"""MNIST's form: dark, swapped and large pictures are recognised and converted."""
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from digit_files import as_folder, as_tgz, imports, noise, png, some_images, some_labels, states_of, wrapped

from mnist_fastai.data.cache import dataset_name, decoded
from mnist_fastai.data.folders import image_files, split_names
from mnist_fastai.data.mnist_form import paper_levels, read_one_size, reader_accuracies, to_light_ink, to_mnist_form
from mnist_fastai.data.sources import digits_arrays, mnist_path
from mnist_fastai.inference import Predictor
from mnist_fastai.train import train


upside = dict(dark=lambda o: 255 - o, swapped=lambda o: o.transpose(0, 2, 1), both=lambda o: 255 - o.transpose(0, 2, 1))


@pytest.mark.parametrize('kind, change', [('folder', 'dark'), ('folder', 'swapped'), ('folder', 'both'),
                                          ('tgz', 'both'), ('csv', 'both'), ('idx', 'both')])
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


def test_noise_and_random_labels_are_left_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    for images in (rng.integers(0, 256, (300, 28, 28), np.uint8), rng.permutation(digits_arrays()[0])[:300]):
        splits, changes = to_mnist_form(dict(training=(images, labels), testing=(images, labels)))
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
    assert to_mnist_form(splits)[1] == []
    for images, labels, _ in splits.values():
        assert to_light_ink(255 - images)[1] == len(images)
        as_is, transposed = reader_accuracies(images.transpose(0, 2, 1), labels)
        assert transposed > .95 and as_is < .25


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
def test_a_model_of_dark_digits_reads_its_own_test_pictures(kind, tmp_path, capsys, digits):
    images, labels = (o[:1200] for o in digits_arrays())
    source = wrapped(kind, tmp_path, 255 - images, labels)
    run = train(str(source), epochs=4, bs=64, out=tmp_path/'run')
    assert 'dark on light' in capsys.readouterr().out
    reported = run.metrics['test']['accuracy']
    files = image_files((source if kind == 'folder' else mnist_path(source))/'testing')
    pictures = files if kind == 'folder' else [255 - np.asarray(Image.open(f)) for f in files]  # dark, as in the source
    right = [p.digit == int(f.parent.name) for p, f in zip(Predictor(run.path).predict_batch(pictures), files)]
    assert reported > .8 and np.mean(right) == pytest.approx(reported, abs=.005)


@pytest.mark.fault('hostile or damaged files')
def test_images_of_a_digit_that_are_all_the_same_are_refused(tmp_path):
    as_folder(tmp_path/'data', some_images, some_labels)
    for file in image_files(tmp_path/'data'/'training'):
        if file.parent.name == '3': file.write_bytes(png())
    with pytest.raises(ValueError, match='images in training/3 are all the same'): mnist_path(tmp_path/'data')
