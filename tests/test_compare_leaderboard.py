"""Leaderboards: ranked on validation, and honest about noise."""
import numpy as np
import pandas as pd
import pytest

from mnist_fastai.compare.leaderboard import compare_pair, compare_pairs, leaderboard


def test_validation_ranks_and_the_test_set_does_not():
    trials = pd.DataFrame([dict(recipe=r, train_images=100, seed=s, epochs=1, parameters=1, multiply_adds=1, seconds=1.,
                                valid=v, test=t, stress=v,
                                worst=v, dataset='x', trial='') for r, v, t in (('a', .9, .5), ('b', .8, .99))
                           for s in (1, 2)])
    assert list(leaderboard(trials).recipe) == ['a', 'b']


def pretend(folder, recipe, seed, right, epochs=1.):
    "A row as from `read_trials`, and its predictions: `right` says which of the test images are"
    (folder/f'{recipe}-{seed}').mkdir()
    labels = np.arange(len(right)) % 10
    np.savez(folder/f'{recipe}-{seed}'/'predictions.npz', test_scores=np.eye(10)[np.where(right, labels, 9 - labels)],
             test_labels=labels)
    return dict(recipe=recipe, train_images=100, seed=seed, epochs=epochs, parameters=1, multiply_adds=1, seconds=1.,
                valid=right.mean(), test=right.mean(), stress=0, worst=0, dataset='x', trial=f'{recipe}-{seed}')


@pytest.mark.parametrize('seeds', [1, 5])  # McNemar's test for a single seed, else the paired t-test
def test_equal_models_are_within_the_noise_and_unequal_ones_are_not(seeds, tmp_path):
    rng = np.random.default_rng(3)
    trials = pd.DataFrame([pretend(tmp_path, r, s, rng.random(1000) < acc)
                           for r, acc in (('a', .9), ('b', .9), ('worse', .8)) for s in range(seeds)])
    pairs = compare_pairs(trials, leaderboard(trials), tmp_path)
    assert list(pairs.larger_than_noise) == list((pairs.a == 'worse') | (pairs.b == 'worse'))


def test_only_what_has_no_randomness_stands_for_all_seeds(tmp_path):
    rng = np.random.default_rng(1)
    def rows(recipe, seeds, epochs=1.):
        return pd.DataFrame([pretend(tmp_path, recipe, s, rng.random(1000) < .9, epochs) for s in range(seeds)])
    five, one, fitted = rows('five', 5), rows('one', 1), rows('fitted', 1, epochs=None)
    assert compare_pair(five, one, tmp_path)['seeds'] == 1
    assert compare_pair(five, fitted, tmp_path)['seeds'] == 5
    assert compare_pair(rows('late', 3).assign(seed=[7, 8, 9]), five, tmp_path) == {}


def test_the_same_difference_with_every_seed_is_no_certainty(tmp_path):
    def rows(recipe, counts):
        return pd.DataFrame([pretend(tmp_path, recipe, s, np.arange(360) < n) for s, n in enumerate(counts)])
    found = compare_pair(rows('a', [345, 349, 342]), rows('b', [340, 344, 337]), tmp_path)
    assert found['p'] == pytest.approx(2/2**5)  # five images of one kind and none of the other: McNemar's
