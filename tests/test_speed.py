"""What makes small batches quick changes no number and no other learner, and can be switched off."""
from functools import partial

import pytest
import torch
from fastai.callback.core import Callback, CancelTrainException
from fastai.learner import AvgSmoothLoss, CastToTensor, Learner, Recorder
from fastai.optimizer import OptimWrapper
from fastai.torch_core import set_seed
from torch import nn

from mnist_fastai import speed
from mnist_fastai.data.core import mnist_dls
from mnist_fastai.learner import mnist_learner
from mnist_fastai.models import archs


def fitted(learn, epochs=1):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, .01)
    return learn


def test_events_reach_the_callbacks_as_fastai_sends_them(digits):
    def trained(switch):
        set_seed(1, reproducible=True)
        seen = []
        class Watch(Callback):
            order, run_valid = 58, False
            def before_batch(self): seen.append(('before', self.iter))
            def after_fit(self): seen.append('fit')
        class Stop(Callback):
            def after_batch(self):
                if self.training and self.iter == 7: raise CancelTrainException
        learn = fitted(switch(mnist_learner(mnist_dls(digits, bs=64), cbs=[Watch(), Stop()])), 2)
        recorder = learn.recorder
        losses = torch.stack(recorder.losses).tolist()
        return seen, recorder.values, recorder.lrs, losses, [p.detach() for p in learn.model.parameters()]
    ours, theirs = trained(speed.enable), trained(speed.disable)
    assert ours[:4] == theirs[:4] and len(ours[0]) == 17 and all(a.equal(b) for a, b in zip(ours[4], theirs[4]))


def test_a_callback_of_any_kind_is_called_as_often_as_in_fastai(digits):
    class OwnCall(Callback):
        calls = 0
        def __call__(self, event_name): self.calls += 1

    class Patched(Callback):
        calls = 0

    counts = []
    for switch in (speed.enable, speed.disable):
        own, patched = OwnCall(), Patched()
        learn = fitted(switch(mnist_learner(mnist_dls(digits, bs=64), 'mlp', cbs=[own, patched])))
        first = own.calls
        def after_batch(self): self.calls += 1
        Patched.after_batch = after_batch  # patched in after a first fit
        fitted(learn)
        del Patched.after_batch
        counts.append((first, own.calls, patched.calls))
    ours, theirs = counts
    assert ours == theirs and ours[0] > 100 and ours[2] > 10


def test_other_learners_are_left_alone(digits):
    theirs = {(cls, name): vars(cls)[name] for cls, name in (
        (Learner, '__call__'), (Learner, '_set_device'), (CastToTensor, 'before_batch'), (Recorder, 'after_batch'),
        (AvgSmoothLoss, 'accumulate'))}
    dls = mnist_dls(digits, bs=64)
    fitted(mnist_learner(dls))
    assert all(vars(cls)[name] is f for (cls, name), f in theirs.items())
    other = Learner(dls, archs['mlp'](), loss_func=nn.CrossEntropyLoss())
    assert type(other) is Learner and type(other.recorder) is Recorder
    assert not {'activation', 'decodes', 'y_int', 'keep'} & {*vars(nn.CrossEntropyLoss), *vars(Recorder)}


def test_it_can_be_switched_off_and_on(digits):
    learn = mnist_learner(mnist_dls(digits, bs=64), 'mlp')
    assert isinstance(learn, speed.FastLearner) and isinstance(learn.recorder.smooth_loss, speed.FastAvgSmoothLoss)
    assert type(speed.disable(learn)) is Learner and type(learn.recorder.smooth_loss) is AvgSmoothLoss
    with pytest.raises(ZeroDivisionError), speed.enabled(learn):
        assert isinstance(learn.recorder, speed.FastRecorder) and learn.recorder.name == 'recorder'
        fitted(learn)
        raise ZeroDivisionError
    assert type(learn) is Learner and type(learn.recorder) is Recorder
    with speed.enabled(speed.enable(learn)): pass
    assert isinstance(learn, speed.FastLearner)  # what was on before stays on


def test_a_recorder_of_your_own_stays_your_own(digits):
    class Mine(Recorder): name = 'recorder'
    learn = mnist_learner(mnist_dls(digits, bs=64), 'mlp')
    learn.remove_cb(learn.recorder)
    learn.add_cb(Mine(train_metrics=True))
    assert type(speed.enable(learn).recorder) is Mine and type(speed.disable(learn).recorder) is Mine


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


def test_an_event_that_does_not_exist_is_refused(digits):
    with pytest.raises(ValueError, match='no event before_lunch'): mnist_learner(mnist_dls(digits))('before_lunch')
