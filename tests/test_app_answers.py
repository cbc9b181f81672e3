"""An answer of the page: what each model reads, and why it cannot."""
import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mnist_fastai.app.answers import answers_html
from mnist_fastai.inference import Predictor
from mnist_fastai.pictures import photos as pages


@pytest.fixture(scope='module')
def readers(): return {name: Predictor(name, .7) for name in ('best', 'tiny')}


def test_every_model_answers_with_ten_probabilities_and_two_pictures(readers):
    html = answers_html(pages.drawn(np.random.default_rng(7), 7), 7, readers)
    assert re.findall('<h2>Read by (.*?)</h2>', html) == ['best', 'tiny'] and 'The label says 7.' in html
    assert re.findall('class="number"[^>]*>(.)', html) == ['7', '7']
    assert html.count('<tr>') == 20 and html.count('<figure>') == 4
    assert answers_html(None, None, readers).strip() == '<p>The answer appears here.</p>'


def page_of(*digits): return np.hstack([pages.drawn(np.random.default_rng(i), o) for i, o in enumerate(digits)])


def test_a_page_is_shown_once_with_a_row_for_each_model(readers):
    html = answers_html(page_of(0, 1, 2, 3), None, readers)
    assert html.count('<svg') == 1 and html.count('<rect') == html.count('<details>') == 4
    read = re.findall('Read by (.*?)</h2><p class="number long"[^>]*>(.*?)<', html)
    assert read == [('best', '0123'), ('tiny', '0123')]
    assert html.count('<h3>best</h3>') == html.count('<h3>tiny</h3>') == 4, 'each digit opens to what each model sees'
    assert 'In the boxes: what best reads.' in html and 'Underlined' not in html


def test_digits_on_which_models_differ_are_marked(readers):
    html = answers_html(page_of(4, 2), None, dict(readers, never=Predictor('tiny', 1)))
    assert re.findall('long"[^>]*>(.*?)<(?:small|/p)', html) == ['<mark>4</mark><mark>2</mark>']*2 + [
        '<mark>?</mark><mark>?</mark>'] and 'Underlined: where models differ.' in html


def test_a_page_of_many_digits_has_cards_for_the_first(readers):
    html = answers_html(page_of(0, 1, 2, 3), None, dict(tiny=readers['tiny']), most=2)
    assert html.count('<rect') == 4 and html.count('<details>') == 2 and '(the first 2 of 4)' in html
    assert 'In the boxes' not in html, 'there is one model'


def test_what_cannot_be_answered_says_why(readers):
    assert 'role="alert">Choose a model.' in answers_html(None, None, {})
    assert 'role="alert">This is not a picture: expected PNG' in answers_html(b'hello', None, readers)
    blank = np.full((99, 99), 250, np.uint8)
    assert 'role="alert">There is no digit in this picture' in answers_html(blank, None, readers)


def test_transparent_pictures_are_shown_as_they_are_read(readers):
    rng = np.random.default_rng(5)
    alpha = (255*pages.written(rng, [pages.others(rng, 3)[0]])[0]).astype(np.uint8)
    for ink in (0, 255):
        Image.fromarray(np.dstack([np.full((*alpha.shape, 3), ink, np.uint8), alpha])).save(file := io.BytesIO(), 'png')
        html = answers_html(file.getvalue(), None, readers)
        jpeg = re.search('base64,([^"]*)', re.search('<image.*?>', html)[0])[1]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg))))
        assert abs(shown.mean() - (255 - ink)) < 80 and np.ptp(shown) > 200, 'ink on paper'
