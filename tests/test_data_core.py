"""The `DataBlock` and its `DataLoaders`: split, order, batches."""
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from fastai.data.core import DataLoaders
from fastai.torch_core import TensorCategory
from fastai.vision.augment import Resize
from fastai.vision.core import PILImageBW, TensorImageBW

from mnist_fastai.augment import augmentations
from mnist_fastai.data.core import DigitDL, mnist_dls, mnist_test_dl


def test_the_validation_images_do_not_depend_on_size_or_training_seed(digits):
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


@pytest.mark.mnist
def test_mnist_is_split_into_55000_and_5000():
    dls = mnist_dls('mnist')
    assert (dls.train.n, dls.valid.n, len(mnist_test_dl(dls).dataset)) == (55_000, 5_000, 10_000)
    assert mnist_dls('mnist', train_size=18_000).train.n == 18_000


@pytest.mark.parametrize('kwargs', [{}, dict(standardize=False), dict(batch_tfms=augmentations('erase'))])
def test_a_batch_is_what_the_transforms_make_of_it(digits, kwargs):
    dl = mnist_dls(digits, bs=64, **kwargs).valid
    slow = [dl.after_batch((TensorImageBW(x), TensorCategory(y))) for x, y in dl.indexed_batches()]
    for (x, y), (x_slow, y_slow) in zip(dl, slow, strict=True):
        assert type(x) is type(x_slow) and x.dtype == x_slow.dtype and x.equal(x_slow) and y.equal(y_slow)
