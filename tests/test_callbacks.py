"""Callbacks: a log for pipes, bfloat16, averaged weights, the last epochs without augmentation, a teacher."""
import csv
from copy import deepcopy

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from torch import nn

from mnist_fastai.augment import RandomErase
from mnist_fastai.callbacks import EMA, BFloat16, Distill, EpochLog, NoAugEnd
from mnist_fastai.data.core import mnist_dls
from mnist_fastai.learner import mnist_learner



@pytest.fixture
def learn(digits):
    set_seed(0, reproducible=True)
    return mnist_learner(mnist_dls(digits, bs=64))


def test_the_log_has_a_row_an_epoch_also_without_validation(digits, tmp_path, capsys):
    learn = mnist_learner(mnist_dls(digits, bs=64, valid_size=0))
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3, cbs=EpochLog(tmp_path/'history.csv'))
    rows = list(csv.DictReader((tmp_path/'history.csv').open()))
    assert [r['epoch'] for r in rows] == ['1', '2'] and all(float(r['train_loss']) > 0 for r in rows)
    assert capsys.readouterr().out.count('\n') == 2


def test_ema_averages_weights_and_statistics_and_ends_with_them(learn):
    seen = []

    class Watch(Callback):
        order = 99
        def after_step(self): seen.append({k: v.clone() for k, v in self.model.state_dict().items()})

    with learn.no_bar(), learn.no_logging(): learn.fit(1, .01, cbs=[EMA(.9), Watch()])
    expected = seen[0]
    for n, state in enumerate(seen[1:], 1):
        kept = min(.9, (1 + n)/(10 + n))
        expected = {k: kept*v + (1 - kept)*state[k] for k, v in expected.items()}
    averaged = learn.model.state_dict()
    assert any('running_mean' in k for k in averaged)
    for k, v in averaged.items():
        if v.is_floating_point(): torch.testing.assert_close(v, expected[k], rtol=1e-4, atol=1e-6)
        else: assert v == seen[-1][k]  # how many batches the statistics have seen


def test_ema_validates_with_the_average_and_trains_on(learn):
    log = EpochLog(lines=False)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, .01, cbs=[EMA(.95), log])
        loss, acc = learn.validate()
    assert log.rows[-1]['valid_loss'] == pytest.approx(loss, abs=1e-5)
    assert log.rows[-1]['accuracy'] == pytest.approx(acc, abs=1e-5)
    assert log.rows[1]['train_loss'] < log.rows[0]['train_loss']
    assert not any(isinstance(o, EMA) for o in learn.cbs)


def test_the_last_epochs_are_plain_and_the_next_training_is_not(digits):
    dls = mnist_dls(digits, bs=64, batch_tfms=RandomErase(p=1., area=(.2, .2)))
    inks = {}

    class Watch(Callback):
        def before_batch(self):
            if self.training: inks.setdefault(self.epoch, []).append((self.x > 0).float().mean().item())

    with (learn := mnist_learner(dls)).no_bar(), learn.no_logging():
        learn.fit(3, .01, cbs=[NoAugEnd(2), Watch()])
        ink = [np.mean(o) for o in inks.values()]
        assert ink[0] < .95*ink[1] and ink[1] == pytest.approx(ink[2], rel=.02)
        inks.clear()
        learn.fit(1, .01, cbs=Watch())
    assert np.mean(inks[0]) == pytest.approx(ink[0], rel=.02)


def test_bfloat16_is_for_the_network_only(learn):
    seen = []

    class Watch(Callback):
        order = 99
        def after_pred(self): seen.append((self.x.dtype, self.pred.dtype, torch.is_autocast_enabled('cpu')))
        def after_backward(self): seen.append({p.grad.dtype for p in self.model.parameters()})

    used = []
    handle = learn.model[0].register_forward_hook(lambda m, x, out: used.append(out.dtype))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, .01, cbs=[BFloat16(), Watch()])
    assert set(used) == {torch.bfloat16}
    assert all(o in ((torch.float32, torch.float32, False), {torch.float32}) for o in seen)
    used.clear()
    with learn.no_bar(): learn.validate()
    assert set(used) == {torch.float32}
    handle.remove()


def test_a_student_learns_from_its_teacher_what_is_in_no_label(digits):
    class OneMore(nn.Module):
        "Says 1 where it sees a 0, and so on"
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x): return self.model(x).roll(1, 1)

    dls = mnist_dls(digits, bs=64)
    learn = mnist_learner(dls)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(4, .01)
    before, right = deepcopy(learn.model.state_dict()), {}
    for share in (0., 1.):
        student = mnist_learner(dls, 'two_conv')
        with student.no_bar(), student.no_logging(): student.fit(4, 3e-3, cbs=Distill(OneMore(learn.model), share))
        with student.no_bar(): probs, labels = student.get_preds()
        right[share] = [(probs.argmax(1) == (labels + by) % 10).float().mean().item() for by in (0, 1)]
    assert right[0.][0] > .8 and right[1.][1] > .8 and right[1.][0] < .1
    assert all(v.equal(before[k]) for k, v in learn.model.state_dict().items())


def test_a_teacher_is_asked_once_for_an_image_that_never_changes(digits):
    teacher, asked, losses = mnist_learner(mnist_dls(digits, bs=64)).model, [], []
    teacher.register_forward_hook(lambda module, x, scores: asked.append(len(scores)))
    for once in (False, True):
        set_seed(0, reproducible=True)
        student, log = mnist_learner(mnist_dls(digits, bs=64), 'two_conv'), EpochLog(lines=False)
        asked.clear()
        with student.no_bar(), student.no_logging(): student.fit(4, 3e-3, cbs=[Distill(teacher, once=once), log])
        losses.append([o['train_loss'] for o in log.rows])
        images = len(student.dls.train_ds)
        if once: assert images <= sum(asked) < images*2.5  # a part of a batch is left out, and asked for later
        else: assert sum(asked) == 4*(images//64)*64
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
