"""The learner: probabilities and labels, a quick optimizer, a learning-rate finder that leaves no trace."""
import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from fastai.callback.mixup import MixUp
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.torch_core import set_seed
from matplotlib import pyplot as plt
from torch import nn

from mnist_fastai.data.core import mnist_dls
from mnist_fastai.learner import (
    FusedAdam, OneHotCrossEntropy, build_model, find_lr, mnist_learner, plot_worst_files
)
from mnist_fastai.models import archs
from mnist_fastai.models import archs



@pytest.fixture
def learn(digits):
    set_seed(0, reproducible=True)
    return mnist_learner(mnist_dls(digits, bs=64))


def test_the_plain_learner_of_the_book_trains(digits):
    learn = Learner(mnist_dls(digits, bs=64), archs['simple_cnn'](), loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6, 1e-2)
    assert learn.final_record[-1] > .9


def test_probabilities_and_labels_come_from_a_plain_loss(digits):
    dls = mnist_dls(digits, bs=64)
    learn = mnist_learner(dls)
    assert type(learn.loss_func) is nn.CrossEntropyLoss
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6, 1e-2)
    with learn.no_bar():
        probs, targs, decoded = learn.get_preds(with_decoded=True)
        assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-5) and probs.min() >= 0
        assert torch.equal(decoded, probs.argmax(1))
        assert (decoded == targs).float().mean() > .9
        files = dls.valid_ds.items[:20]
        assert np.mean([learn.predict(f)[0] == f.parent.name for f in files]) > .8
        interp = ClassificationInterpretation.from_learner(learn)
        assert np.trace(interp.confusion_matrix()) == (decoded == targs).sum()


def test_top_losses_name_their_pictures(learn):
    with learn.no_bar():
        interp = ClassificationInterpretation.from_learner(learn)
        plot_worst_files(interp, 3)
        worst = interp.top_losses(3, items=True)[2]
    shown = [t.get_text() for ax in plt.gcf().axes for t in ax.texts]
    assert shown == [f'{f.parent.name}/{f.name}' for f in worst]


def test_predictions_of_a_shuffled_loader_come_back_in_order(learn):
    with learn.no_bar():
        dl = learn.dls.train.new(drop_last=False)
        targs = learn.get_preds(dl=dl)[1]
    assert [learn.dls.vocab[t] for t in targs] == [f.parent.name for f in learn.dls.train_ds.items]


def state(learn):
    "Everything that the finder could leave changed"
    opt = deepcopy(learn.opt.state_dict()) if learn.opt else None
    flat = [t for o in (opt or {}).get('state', []) for t in o.values() if isinstance(t, torch.Tensor)]
    return ([p.clone() for p in learn.model.state_dict().values()], flat,
            [h['lr'] for h in opt['hypers']] if opt else None,
            torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(),
            [dl.rng.getstate() for dl in learn.dls], learn.path, learn.model_dir, getattr(learn.recorder, 'lrs', None))


def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize('epochs', [0, 1])
def test_the_finder_leaves_no_trace(learn, epochs, tmp_path):
    if epochs:
        with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-3)
    before = state(learn)
    with learn.no_bar(): found = find_lr(learn, tmp_path/'lr.png')
    assert same(before, state(learn))
    assert 1e-6 < found.valley < 1 and set(found._fields) == {'valley', 'slide'}
    assert (tmp_path/'lr.png').read_bytes()[:4] == b'\x89PNG'


def test_training_after_the_finder_is_training_without_it(digits):
    def weights(find):
        set_seed(3, reproducible=True)
        learn = mnist_learner(mnist_dls(digits, bs=64))
        with learn.no_bar(), learn.no_logging():
            if find: find_lr(learn)
            learn.fit(1, 1e-3)
        return list(learn.model.parameters())
    assert same(weights(False), weights(True))


def test_the_finder_works_on_a_single_batch_and_says_when_it_cannot(digits):
    learn = mnist_learner(mnist_dls(digits, bs=1000), 'two_conv')
    assert len(learn.dls.train) == 1
    with learn.no_bar():
        assert find_lr(learn, num_it=60).valley > 0
        with pytest.raises(ValueError, match='too few to suggest'): find_lr(learn, num_it=4)
        with pytest.raises(ValueError, match='too few to suggest'): find_lr(learn, start_lr=1e4, end_lr=1e9)


def test_the_finder_does_not_hide_what_is_wrong_with_a_model(digits):
    learn = mnist_learner(mnist_dls(digits), nn.Linear(3, 3))
    with learn.no_bar(), pytest.raises(RuntimeError, match='shape'): find_lr(learn)


def test_mixup_works_with_the_plain_loss(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6, 1e-2, cbs=MixUp())
    assert learn.final_record[-1] > .9


def stepped(learn, opt_func, **hypers):
    "The weights after 30 steps with random gradients"
    torch.manual_seed(1)
    learn.model, learn.opt_func = archs['fast_cnn']().to(memory_format=torch.channels_last), opt_func
    learn.create_opt()
    for i in range(30):
        learn.opt.set_hypers(lr=.01*i, mom=.95 - .01*i, **hypers)
        for p in learn.model.parameters():
            if p.requires_grad: p.grad = torch.randn_like(p)
        learn.opt.step()
        learn.opt.zero_grad()
    return flat_weights(learn)


def flat_weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


@pytest.mark.parametrize('on_all', [False, True])
def test_fused_adam_computes_what_fastais_adam_does(on_all, learn):
    learn.wd_bn_bias = on_all
    ours, theirs, other = (stepped(learn, *o) for o in ((FusedAdam,), (Adam,), (Adam,)))
    assert (ours - theirs).abs().max() < 1e-5
    assert other.equal(theirs) and (stepped(learn, Adam, wd=.3) - theirs).abs().max() > .01
    assert (stepped(learn, FusedAdam, wd=.3) - stepped(learn, Adam, wd=.3)).abs().max() < 1e-5
    with pytest.raises(NotImplementedError, match='no closure'): FusedAdam([torch.ones(1)], .1).step(lambda: 0)


def test_fused_adam_leaves_frozen_parameters_alone(learn):
    stepped(learn, FusedAdam)
    frozen, free = learn.model[2], learn.model[5]
    frozen.requires_grad_(False)
    before = [o.weight.clone() for o in (frozen, free)]
    with learn.no_bar(), learn.no_logging(): learn.fit(1, .01)
    assert frozen.weight.equal(before[0]) and not free.weight.equal(before[1])


def test_the_state_of_fused_adam_can_be_saved_and_loaded(learn, tmp_path):
    stepped(learn, FusedAdam)
    learn.save(tmp_path/'half')
    again = mnist_learner(learn.dls, 'fast_cnn').load(tmp_path/'half')
    before = flat_weights(learn)
    for o in (learn, again):
        torch.manual_seed(2)
        for p in o.model.parameters(): p.grad = torch.randn_like(p) if p.requires_grad else None
        o.opt.step()
    assert flat_weights(learn).equal(flat_weights(again)) and not flat_weights(learn).equal(before)


def test_channels_last_changes_the_memory_and_not_the_numbers(digits):
    model = archs['classic_cnn']()
    x = torch.randn(5, 1, 28, 28)
    before = model(x)
    learn = mnist_learner(mnist_dls(digits, bs=64), model)
    assert learn.model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(before, learn.model(x), atol=1e-5)


def test_one_hot_targets_give_the_same_loss_and_the_same_gradients():
    x, y = torch.randn(50, 10, dtype=torch.float64, requires_grad=True), torch.randint(10, (50,))
    losses = nn.CrossEntropyLoss()(x, y), OneHotCrossEntropy()(x, y)
    found = [(loss, torch.autograd.grad(loss, x)[0]) for loss in losses]
    (a, da), (b, db) = found
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(da, db)


def test_a_network_without_widths_says_that_it_has_none():
    with pytest.raises(ValueError, match="width=0.5 is not possible: network 'knn' has no `widths`"):
        build_model('knn', .5)
