"""The learner: probabilities from a plain loss, a finder that leaves no trace, a log for pipes."""
import csv
import random
import subprocess
import sys
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelTrainException
from fastai.callback.mixup import MixUp
from fastai.interpret import ClassificationInterpretation
from fastai.learner import AvgSmoothLoss, CastToTensor, Learner, Recorder
from fastai.metrics import accuracy
from fastai.optimizer import Adam, OptimWrapper
from fastai.torch_core import set_seed
from matplotlib import pyplot as plt
from torch import nn

from mnist_fastai.augment import RandomErase
from mnist_fastai.data.core import mnist_dls
from mnist_fastai.callbacks import EMA, BFloat16, Distill, EpochLog, NoAugEnd
from mnist_fastai.learner import FusedAdam, find_lr, mnist_learner
from mnist_fastai.models import archs, n_params


@pytest.fixture
def learn(digits):
    set_seed(0, reproducible=True)
    return mnist_learner(mnist_dls(digits, bs=64))


@pytest.mark.parametrize('name', archs)
def test_every_network_is_a_sequential_from_a_digit_to_ten_scores(name):
    model = archs[name]()
    assert type(model) is nn.Sequential and n_params(model) > 0
    assert model(torch.randn(3, 1, 28, 28)).shape == (3, 10)


def test_the_plain_learner_of_the_book_gives_probabilities_and_labels(digits):
    dls = mnist_dls(digits, bs=64)
    learn = Learner(dls, archs['simple_cnn'](), loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
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
        interp.plot_top_losses(3)
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
    learn = mnist_learner(mnist_dls(digits, bs=1000))
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


def test_the_log_has_a_row_an_epoch_also_without_validation(digits, tmp_path, capsys):
    learn = mnist_learner(mnist_dls(digits, bs=64, valid_size=0))
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-3, cbs=EpochLog(tmp_path/'history.csv'))
    rows = list(csv.DictReader((tmp_path/'history.csv').open()))
    assert [r['epoch'] for r in rows] == ['1', '2'] and all(float(r['train_loss']) > 0 for r in rows)
    assert capsys.readouterr().out.count('\n') == 2


def test_events_reach_the_callbacks_as_fastai_sends_them(digits, monkeypatch):
    def trained():
        set_seed(1, reproducible=True)
        seen = []
        class Watch(Callback):
            order, run_valid = 58, False
            def before_batch(self): seen.append(('before', self.iter))
            def after_fit(self): seen.append('fit')
        class Stop(Callback):
            def after_batch(self):
                if self.training and self.iter == 7: raise CancelTrainException
        learn = mnist_learner(mnist_dls(digits, bs=64), cbs=[Watch(), Stop()])
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, .01)
        recorder = learn.recorder
        losses = torch.stack(recorder.losses).tolist()
        return seen, recorder.values, recorder.lrs, losses, [p.detach() for p in learn.model.parameters()]
    ours = trained()
    patched = ((Learner, '__call__'), (Learner, '_set_device'), (CastToTensor, 'before_batch'),
               (Recorder, 'after_batch'), (AvgSmoothLoss, 'accumulate'))
    for cls, name in patched: monkeypatch.setattr(cls, name, getattr(cls, f'_orig_{name}'))
    theirs = trained()
    assert ours[:4] == theirs[:4] and len(ours[0]) == 17 and all(a.equal(b) for a, b in zip(ours[4], theirs[4]))


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


def test_several_events_at_once_and_training_metrics_are_as_in_fastai(digits):
    learn = mnist_learner(mnist_dls(digits, bs=64), 'mlp', opt_func=partial(OptimWrapper, opt=torch.optim.SGD))
    learn.recorder.train_metrics = True
    with learn.no_bar(), learn.no_logging():
        with learn: assert learn.recorder.cancel_train is False  # fastai sends two events to begin with
        learn.fit(1, .05)
    assert learn.recorder.metric_names[1:5] == ['train_loss', 'train_accuracy', 'valid_loss', 'valid_accuracy']
    assert 0 < learn.recorder.values[0][1] <= 1 and set(learn.recorder.lrs) == {.05}


def test_a_batch_goes_to_the_device_of_the_model(digits):
    learn = mnist_learner(mnist_dls(digits, bs=64), 'mlp')
    batch = learn.dls.one_batch()
    assert learn._set_device(batch) is batch
    learn.model.to('meta')
    assert [o.device.type for o in learn._set_device(batch)] == ['meta', 'meta']
    with_list = [batch[0].to('meta'), [batch[1], 'text']]
    assert learn._set_device(with_list)[1][0].device.type == 'meta'


def test_channels_last_changes_the_memory_and_not_the_numbers(digits):
    model = archs['classic_cnn']()
    x = torch.randn(5, 1, 28, 28)
    before = model(x)
    learn = mnist_learner(mnist_dls(digits, bs=64), model)
    assert learn.model[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(before, learn.model(x), atol=1e-5)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
def test_memory_of_a_batch_is_kept_for_the_next():
    code = """
import resource, torch
from mnist_fastai.learner import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20): torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_memory()
faults()
print(before, faults())"""
    before, after = map(int, subprocess.check_output([sys.executable, '-W', 'ignore', '-c', code], text=True).split())
    assert after < before/10


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc only')
def test_what_lies_between_blocks_in_use_is_given_back():
    code = """
import re, torch
from mnist_fastai.learner import TrimMemory, keep_memory
def megabytes(): return int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])//1024
keep_memory()
blocks = [torch.ones(25_000) for _ in range(3000)]  # 300 MB
blocks = blocks[::100]
before = megabytes()
TrimMemory().after_epoch()
print(before, megabytes())"""
    before, after = map(int, subprocess.check_output([sys.executable, '-W', 'ignore', '-c', code], text=True).split())
    assert before - after > 200


def test_an_event_that_does_not_exist_is_refused(digits):
    with pytest.raises(ValueError, match='no event before_lunch'): mnist_learner(mnist_dls(digits))('before_lunch')


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
