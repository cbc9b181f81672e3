"""Plots of a comparison: every recipe is on them, and near 100% differences can be seen."""
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mnist_fastai.compare.plots import accuracy_axis, comparison_plots, plot_against, plot_sizes, recipe_styles

results = Path(__file__).parent.parent/'results'


@pytest.fixture(scope='module')
def board(): return pd.read_csv(results/'leaderboard.csv')


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close('all')


def test_half_the_errors_are_the_same_step_everywhere():
    ax = plt.subplots()[1]
    ax.plot([1, 2], [.5, .998])
    accuracy_axis(ax, .998)
    height = {a: ax.transData.transform((1, a))[1] for a in (.98, .99, .992, .996)}
    assert height[.99] - height[.98] == pytest.approx(height[.996] - height[.992])
    assert {'90%', '99%', '99.5%'} <= {o.get_text() for o in ax.get_yticklabels()}


def test_every_recipe_is_in_the_legend_and_looks_different(board):
    most = board[board.train_images == 55_000]
    legend = plot_against(most, 'parameters', 'parameters').axes[0].get_legend()
    assert [o.get_text() for o in legend.texts] == list(most.recipe)
    looks = recipe_styles(most).values()
    assert len({(o['color'], o['marker'], o['ls']) for o in looks}) == most.recipe.nunique()


def test_only_recipes_with_several_sizes_are_plotted_against_them(board):
    legend = plot_sizes(board).axes[0].get_legend()
    several = board.recipe.value_counts()
    assert {o.get_text() for o in legend.texts} == set(several[several > 1].index)


def test_what_there_is_nothing_to_plot_of_is_left_out(board):
    trials = pd.read_csv(results/'trials.csv')
    fitted = trials[trials.recipe == 'knn'].reset_index(drop=True)  # it has no epochs
    knn = board[board.recipe == 'knn']
    assert set(comparison_plots(fitted, knn, Path())) == {'accuracy', 'parameters', 'seconds', 'training_sizes'}
    assert set(comparison_plots(fitted, knn[:1], Path())) == {'accuracy', 'parameters', 'seconds'}
