"""One can look into every network, which stays as it was, and what cannot be shown is no picture."""
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mnist_fastai.report.measure import measure_model, open_images, open_model
from mnist_fastai.report.plots import (
    plot_calibration, plot_confused, plot_confusion, plot_difference, plot_last_layer, plot_mistakes,
    plot_stress_accuracy
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')


@pytest.fixture(scope='module')
def images(tmp_path_factory, digits):
    "Two noughts, three threes and two sevens"
    folder = tmp_path_factory.mktemp('images')
    for digit, n in (('0', 2), ('3', 3), ('7', 2)):
        (folder/digit).mkdir()
        for file in sorted((digits/'testing'/digit).iterdir())[:n]: shutil.copy(file, folder/digit)
    with open_images(folder) as images: yield images


@pytest.fixture(scope='module')
def right(images):
    measured = measure_model(open_model('best', trust=False), *images)
    assert not measured.wrong
    return measured


@pytest.fixture(scope='module')
def wrong(right):
    "The same, but it takes a nought for an 8 and two threes for a 5"
    measured = type(right)(right, preds=right.preds.copy(), probs=right.probs.copy())
    for i, digit in (0, 8), (2, 5), (3, 5):
        measured.preds[i], measured.probs[i] = digit, np.where(np.arange(10) == digit, .91, .01)
    measured.update(right=measured.preds == measured.labels, wrong=[0, 2, 3])
    measured['facts'] = dict(right.facts, confused=[(3, 5, 2), (0, 8, 1)])
    return measured


def texts(ax): return [text.get_text() for text in ax.texts]  # what is written on a plot


def test_without_mistakes_there_is_no_picture_of_them(right):
    assert plot_mistakes(right) is None and plot_confused(right) is None and plot_difference(right, right) is None
    assert sorted(texts(plot_confusion(right.facts['confusion']).axes[0])) == ['2', '2', '3']
    assert len(plot_calibration(right).axes) == 2


def test_mistakes_are_shown_with_what_was_said(wrong):
    assert plot_mistakes(wrong, 2).axes[0].get_title().endswith('\n0 read as 8')
    pairs = [ax.get_title('left') for ax in plot_confused(wrong).axes[:2]]
    assert pairs == ['3 read as 5, 2 times', '0 read as 8, once']
    bars = plot_mistakes(wrong, 2).axes[1].patches
    assert [bar.get_facecolor() for bar in bars[1:3]] == [plt.matplotlib.colors.to_rgba('silver')]*2
    assert bars[0].get_facecolor() != bars[8].get_facecolor(), 'the label and the prediction have colours of their own'


def test_differences_say_who_is_right(right, wrong):
    titles = [ax.title for ax in plot_difference(right, wrong).axes[:3]]
    assert sorted(title.get_text().split('\n')[0] for title in titles) == ['0', '3', '3']
    assert all('B: ' in title.get_text() and title.get_color() == 'C0' for title in titles)
    assert plot_difference(wrong, right).axes[0].title.get_color() == 'C1'


def test_seven_images_make_no_map(right): assert plot_last_layer(right) is None


def test_two_reports_of_stress_can_share_an_axis(right):
    found = right.facts['stress']
    assert plot_stress_accuracy(found, .2).axes[0].get_xlim()[0] < 20
    assert {text.strip() for text in texts(plot_stress_accuracy(found).axes[0])} == {
        f'{100*acc:.2f}' for acc in (found['clean'], *found['kinds'].values())}
