"""Ensembles are chosen on validation images, and only of runs that saw the same."""
import numpy as np
import pytest

from mnist_fastai.compare.ensemble import choose_members, ensemble


def save_predictions(folder, valid, test, labels):
    folder.mkdir()
    with np.errstate(divide='ignore'): scores = {'valid_scores': np.log(valid), 'test_scores': np.log(test)}
    np.savez(folder/'predictions.npz', valid_labels=labels, test_labels=labels, **scores)
    return folder


def test_an_ensemble_is_chosen_on_validation_and_votes_by_weight(tmp_path):
    labels = np.array([0, 0, 0, 1, 1, 1])
    def sure(p): return np.stack([p, 1 - np.array(p)], 1)
    good_at_0 = save_predictions(tmp_path/'a', sure([.9, .9, .9, .6, .6, .4]), sure([.9]*3 + [.8]*3), labels)
    good_at_1 = save_predictions(tmp_path/'b', sure([.6, .4, .4, .1, .1, .1]), sure([.4]*3 + [.1]*3), labels)
    useless = save_predictions(tmp_path/'c', sure([.1]*3 + [.9]*3), sure([1.]*3 + [0.]*3), labels)  # there
    runs = [good_at_0, good_at_1, useless]
    votes = choose_members(runs, 10)
    assert sum(votes) == 10 and votes[0] > 0 and votes[1] > 0 and votes[2] == 0
    assert ensemble(runs[:2], votes[:2], 'valid')['accuracy'] == 1.
    assert ensemble(runs[:2])['correct'] == 6 and ensemble(runs[:2], [1, 0])['correct'] == 3
    assert ensemble(runs, [0, 0, 1])['accuracy'] == 1.


def test_an_ensemble_is_of_runs_with_the_same_images(tmp_path):
    p = np.full((4, 10), .1)
    one = save_predictions(tmp_path/'a', p, p, np.array([1, 2, 3, 4]))
    two = save_predictions(tmp_path/'b', p, p, np.array([1, 2, 3, 5]))
    with pytest.raises(ValueError, match='same images'): ensemble([one, two])
    with pytest.raises(ValueError, match='same validation images'): choose_members([one, two])
    none = save_predictions(tmp_path/'c', p[:0], p, np.array([]))
    with pytest.raises(ValueError, match='same validation images, and some'): choose_members([none])
