"""TensorBoard and Weights & Biases see a training run and change nothing."""

import pytest

from mnist_fastai.train import train



@pytest.mark.parametrize('tracker', ['tensorboard', 'wandb'])
def test_a_tracker_sees_the_training_and_changes_nothing(tracker, digits, tmp_path, monkeypatch):
    pytest.importorskip(tracker, reason=f'{tracker} is not installed: pip install {tracker}')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    plain, tracked = (train('digits', epochs=2, bs=64, log=log, out=tmp_path/str(log)) for log in (None, tracker))
    assert plain.metrics['valid'] == tracked.metrics['valid'] and plain.metrics['test'] == tracked.metrics['test']
    history = [(o.path/'history.csv').read_text().splitlines()[1:] for o in (plain, tracked)]
    assert [o.split(',')[:4] for o in history[0]] == [o.split(',')[:4] for o in history[1]]
    assert list((tracked.path/tracker).iterdir())
    if tracker == 'wandb': return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tracked.path/'tensorboard')).Reload()
    seen = [o.value for o in events.Scalars('accuracy')]
    assert seen == pytest.approx([float(o.split(',')[3]) for o in history[0]], abs=1e-5)
    assert len(events.Scalars('train_loss')) >= 2*17


def test_a_tracker_that_is_not_installed_is_one_clear_error(digits, tmp_path, monkeypatch):
    monkeypatch.setattr('mnist_fastai.utils.find_spec', lambda name: None)
    with pytest.raises(ValueError, match="'wandb' is not installed: pip install wandb"):
        train('digits', log='wandb', out=tmp_path/'run')
    assert not (tmp_path/'run').exists()
