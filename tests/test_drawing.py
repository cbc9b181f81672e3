"""Answers show themselves: boxes on the picture, in its colours and the right way up."""
import re
from dataclasses import replace

import numpy as np
import pytest
from known_pages import drawn, drawn_page
from PIL import Image

from mnist_fastai.drawing import draw_predictions, rgb_photo
from mnist_fastai.inference import Predictor


@pytest.fixture(scope='module')
def best(): return Predictor()


def test_answers_show_themselves_without_anything_from_elsewhere(best, tmp_path):
    Image.fromarray(drawn(4)).save(file := tmp_path/'<four>.png')
    large = Image.fromarray(drawn(6)).resize((3000, 3000))
    for o in best.predict([file, large, drawn(5)]):
        html = o._repr_html_()
        assert str(o) in html and html.count('<image') == 2 and html.count('%</text>') == 10
        assert not re.findall(r'(?:src|href)="(?!data:image/)|url\(|<script', html) and len(html) < 30_000
    found = best.predict(file)
    file.unlink()
    assert found._repr_html_().count('<image') == 1
    html = best.read(drawn_page())._repr_html_()
    assert html.count('<rect') == 10 and '314159\n2653' in html


def test_a_picture_keeps_its_colours_and_is_upright(tmp_path):
    left_red = Image.new('RGB', (3000, 2000), 'blue')
    left_red.paste('red', (0, 0, 1500, 2000))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    left_red.save(tmp_path/'turned.jpg', exif=exif)
    image, scale = rgb_photo(tmp_path/'turned.jpg', 300)
    assert (round(image.width*scale), round(image.height*scale)) == (2000, 3000) and max(image.size) < 600
    assert [np.argmax(image.getpixel((9, y))) for y in (9, image.height - 9)] == [0, 2]
    drawing = Image.new('RGBA', (60, 60))
    for ink, paper in (('black', 255), ('white', 0)):
        drawing.paste(ink, (20, 10, 30, 50))
        assert rgb_photo(drawing, 300)[0].getpixel((5, 5)) == (paper,)*3
    assert rgb_photo(tmp_path/'none.png', 300) is None and rgb_photo(b'nothing', 300) is None


def test_a_picture_of_it_can_be_drawn(best, tmp_path):
    page = drawn_page()
    found = [(page, best.read(page).digits, 'costs $1, $x')]*2
    blank = Image.new('RGB', (90, 90), 'green')
    found += [(drawn(3), [best.predict(drawn(3))], 'one'), (blank, [], 'unread: ...'), ('none.png', [], 'unread: ...')]
    draw_predictions(found).savefig(tmp_path/'drawn.png')
    image = Image.open(tmp_path/'drawn.png').convert('RGB')
    assert image.width == 1200 and image.height > 2*1160*page.height/page.width
    colours = {o for _, o in image.getcolors(1_000_000)}
    assert (0, 128, 0) in colours  # the blank picture is shown as it is


def test_doubt_has_another_colour(best):
    three = best.predict(drawn(3))
    sure, unsure = (draw_predictions([(drawn(3), [replace(three, prob=p)], '')]).axes[2].patches[0] for p in (1., .6))
    sure, unsure = (np.array(o.get_edgecolor()[:3]) @ [.2, .7, .1] for o in (sure, unsure))
    assert sure > .6 > .4 > unsure
