"""Image folders: which layout is accepted."""
import shutil
from pathlib import Path

import pytest
from digit_files import as_folder, as_tgz, good, png, some_images, some_labels, states_of

from mnist_fastai.data.cache import dataset_name, split_hash
from mnist_fastai.data.core import mnist_dls
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path


@pytest.mark.fault('bad data')
def test_folders_that_are_no_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder 'training'"): mnist_path(tmp_path)
    for name in good: (tmp_path/name).parent.mkdir(parents=True); (tmp_path/name).write_bytes(png())
    assert mnist_path(tmp_path) == tmp_path
    (tmp_path/'training'/'10').mkdir()
    with pytest.raises(ValueError, match="'10', which is not a digit"): mnist_path(tmp_path)


def test_hidden_folders_are_no_digits(tmp_path, digits):
    folder = Path(shutil.copytree(digits, tmp_path/'digits'))
    shutil.copytree(folder/'training'/'3', folder/'training'/'.ipynb_checkpoints')
    assert len(image_files(folder/'training')) == len(image_files(digits/'training'))
    assert mnist_dls(folder).vocab == [*'0123456789']


@pytest.mark.parametrize('names', [('train', 'valid'), ('train', 'test'), ('training', 'val')])
def test_splits_by_other_names_are_used_where_they_are(names, tmp_path, digits):
    known, folder = (as_folder(tmp_path/o, some_images, some_labels) for o in ('known', 'mine'))
    for ours, name in zip(('training', 'testing'), names): (folder/ours).rename(folder/name)
    before = states_of(folder)
    for source in (folder, as_tgz(tmp_path/'mine.tgz', folder)):
        path = mnist_path(source)
        assert [split_hash(path/o) for o in ('training', 'testing')] == [
            split_hash(known/o) for o in ('training', 'testing')]
        assert mnist_path(source) == path == mnist_path(path)
    path = mnist_path(folder)
    assert (path/'testing').resolve() == folder/names[1] and states_of(folder) == before  # no image is copied
    assert dataset_name(path, {}) == 'mine (not MNIST)'
    assert mnist_dls(folder, valid_size=0).train.n == 200
    next((folder/names[0]/'3').iterdir()).unlink()
    assert len(image_files(mnist_path(folder)/'training')) == 199  # a change is seen


@pytest.mark.fault('bad data')
def test_a_sample_of_mnist_with_two_digits_is_refused_and_says_so(tmp_path):
    for name in (f'{split}/{digit}/1.png' for split in ('train', 'valid') for digit in (3, 7)):
        (tmp_path/name).parent.mkdir(parents=True)
        (tmp_path/name).write_bytes(png())
    with pytest.raises(ValueError, match='train has no images of digit 0: expected .* the digits 0 to 9'):
        mnist_path(tmp_path)


def test_of_three_splits_the_test_images_are_what_is_scored(tmp_path, digits):
    folder = as_folder(tmp_path/'mine', some_images, some_labels)
    shutil.copytree(folder/'training', folder/'valid')
    (folder/'testing').rename(folder/'test')
    assert len(image_files(mnist_path(folder)/'testing')) == len(image_files(folder/'test')) == 67
