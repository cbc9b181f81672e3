"""The page about a model says what is true, needs nothing else, and does not run what others write."""
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastcore.basics import AttrDict
from fastcore.xml import to_xml
from PIL import Image, ImageOps

from mnist_fastai.reader import packaged
from mnist_fastai.report.page import ReportSection, data_uri, misread_images, report, report_summary, sections
from mnist_fastai.train import train
from mnist_fastai.utils import read_json


@pytest.fixture(scope='module')
def both(trained, tmp_path_factory):
    "The report of a run beside a packaged network, on the images of the run"
    return report(trained[0], 'tiny', out=tmp_path_factory.mktemp('report')/'both')


@pytest.fixture
def only(monkeypatch):
    "Draw only some sections: a figure takes its time"
    def keep(*names):
        for name in {*sections} - {*names}: monkeypatch.delitem(sections, name)
    return keep


def some_digits(folder, digits, **counts):
    "A folder of digit folders with a few of the offline digits"
    for digit, n in counts.items():
        (folder/digit[1:]).mkdir(parents=True)
        for file in sorted((digits/'testing'/digit[1:]).iterdir())[:n]: shutil.copy(file, folder/digit[1:])
    return folder


def test_the_page_needs_nothing_but_itself(both):
    page = (both.path/'report.html').read_text()
    assert set(re.findall(r'<img[^>]* src="(.{20})', page)) == {'data:image/png;base6'}
    assert not re.findall(r'(?:src|href)="(?!data:|#)|url\(|@import|<script|<link', page)
    pngs = {file.name for file in both.path.glob('*.png')}
    assert pngs >= {f'{letter}-{name}.png' for letter in 'ab' for name in (
        'confusion', 'confused', 'mistakes', 'calibration', 'stress', 'filters', 'feature_maps', 'class_activation',
        'hidden')} | {'difference.png'}
    inside = {name for name in pngs if data_uri((both.path/name).read_bytes()) in page}
    assert pngs - inside == {'a-confusion.png', 'b-confusion.png'}, 'the page has a table instead'
    titles = 'In numbers', 'Where they differ', *(section.title for section in sections.values()), 'How it was made'
    links = re.findall('<a href="#(.+?)">(.+?)</a>', page)
    assert [title for _, title in links] == [*titles], 'the contents name each section, in order'
    assert all(re.search(f'<section id="{name}"[^>]*>\\s*<h2>{title}</h2>', page) for name, title in links)
    assert page.count('.models {') == 1, 'its style sheet is inside'


def test_the_page_and_the_json_say_the_same(both, trained):
    page, record = (both.path/'report.html').read_text(), json.loads((both.path/'report.json').read_text())
    assert record['difference'] == both.difference and [facts['name'] for facts in record['models']] == [
        trained[0].name, 'tiny']
    for facts in both.models:
        assert f"{facts['accuracy']['accuracy']:.2%}" in page and f"{facts['parameters']:,}" in page
    assert both.models[0]['accuracy'] == read_json(trained[0]/'metrics.json')['test']
    assert re.search(rf"both read {both.difference['both']}, only A {both.difference['only_a']},", page)
    assert report_summary(both).splitlines()[-1] == f"report: {both.path/'report.html'}"


def test_each_number_of_mistakes_opens_their_images(both):
    page = (both.path/'report.html').read_text()
    for letter, facts in zip('ab', both.models):
        for label, pred, n in facts['confused']:
            said = f"{label} read as {pred}, {'once' if n == 1 else f'{n} times'}"
            name = f'{letter}-{label}-{pred}'
            assert re.findall(f'popovertarget="{name}" title="(.+?)".*?>(\\d+)<', page) == [(said, str(n))]
            box, = re.findall(f' id="{name}".*?<b>{said}</b>(.*?)</div></div></div>', page)
            files = [mistake['file'] for mistake in facts['mistakes']
                     if (mistake['label'], mistake['predicted']) == (label, pred)]
            assert re.findall('<span>(.+?)</span>', box) == files[:20] and ('worst' in box) == (n > 20)
            first = next(mistake for mistake in facts['mistakes'] if mistake['file'] == files[0])['probabilities']
            assert f'alt="{files[0]}: {pred} with {first[pred]:.1%}, {label} with {first[label]:.1%}"' in box
        assert page.count(f' id="{letter}-') == len(facts['confused'])


def test_of_many_mistakes_the_worst_are_shown():
    many = AttrDict(wrong=[*range(30)], labels=np.full(30, 9), preds=np.full(30, 4), probs=np.full((30, 10), .1),
                    files=[f'9/{i}.png' for i in range(30)], images=torch.zeros(30, 28, 28, dtype=torch.uint8))
    shown = to_xml(misread_images(many, 9, 4), indent=False)
    assert '9 read as 4, 30 times' in shown and 'the 20 worst' in shown and shown.count('<img') == 20
    assert re.findall('<span>(.+?)</span>', shown) == many.files[:20]


@pytest.mark.parametrize('width', [390, 1200])
def test_it_is_read_and_worked_without_a_mouse_or_a_script(both, browser, width):
    with browser.new_context(viewport=dict(width=width, height=844), java_script_enabled=False) as window:
        tab = window.new_page()
        tab.goto((both.path/'report.html').as_uri())
        assert tab.evaluate('document.documentElement.scrollWidth') == width, 'nothing is wider than the window'
        tab.get_by_role('link', name='Confusion matrix').press('Enter')
        assert tab.locator('#confusion').bounding_box()['y'] < 100
        for letter, facts in zip('ab', both.models):
            label, pred, n = facts['confused'][0]
            button = tab.locator(f'[popovertarget={letter}-{label}-{pred}]').first
            button.press('Enter')
            open_now = tab.locator(':popover-open')
            assert open_now.locator('b').inner_text() == button.get_attribute('title')
            assert open_now.locator('img').count() == min(n, 20) and open_now.locator('img').first.is_visible()
            box = open_now.bounding_box()
            assert box['x'] >= 0 and box['x'] + box['width'] <= width and box['y'] + box['height'] <= 844
            tab.keyboard.press('Escape')
            assert not open_now.count()


def test_it_is_dark_where_people_want_it_dark(both, browser):
    def ground(scheme, part):
        with browser.new_context(color_scheme=scheme) as window:
            tab = window.new_page()
            tab.goto((both.path/'report.html').as_uri())
            color = tab.locator(part).first.evaluate('o => getComputedStyle(o).backgroundColor')
        return np.mean([int(n) for n in re.findall(r'\d+', color)[:3]])
    for part in 'body', 'section': assert ground('dark', part) < 50 < 200 < ground('light', part)
    assert ground('dark', 'img') == 255, 'figures are drawn for white'


def test_a_folder_of_pictures_whatever_they_are_called(tmp_path, digits, only, monkeypatch):
    only('mistakes', 'confusion', 'by_digit', 'hidden')
    monkeypatch.setitem(sections, 'mine', ReportSection('A section of my own', 'Text', lambda measured: measured.name))
    photos = tmp_path/'photos & <b>'
    names = {3: '<img src=x onerror=alert(1)>.png', 7: '$\\frac{$.jpg'}
    for digit, name in names.items():
        (folder := photos/str(digit)).mkdir(parents=True)
        for i, file in enumerate(sorted((digits/'testing'/str(digit)).iterdir())[:3]):
            dark = ImageOps.invert(Image.open(file)).resize((200, 200))
            dark.save(folder/(name if i == 0 else f'{i}{name}'))
    shutil.copy(folder/name, photos/'3'/f'a "seven\' {name}')
    Image.new('L', (99, 99), 250).save(photos/'7'/'<i>blank.png')
    found = report('best', data=photos, out=tmp_path/'out')
    facts, page = found.models[0], (tmp_path/'out'/'report.html').read_text()
    assert facts['accuracy']['n'] == 8 and facts['accuracy']['correct'] == 6 and facts['by_digit'][7]['images'] == 4
    assert facts['by_digit'][7]['recall'] == .75 and [*facts['unread']] == ['7/<i>blank.png']
    assert [mistake['file'] for mistake in facts['mistakes']] == [f'3/a "seven\' {names[7]}']
    assert facts['by_digit'][0] == dict(digit=0, images=0, precision=None, recall=None, f1=None)
    assert page.count("='3/a \"seven&#39; $") == 2, 'a quote in a name does not end an attribute'
    assert '<b>.' not in page and '<i>' not in page and '<img src=x' not in page and '7/&lt;i&gt;blank.png' in page
    assert 'not read: 7/<i>blank.png: there is no digit' in report_summary(found)
    assert 'last layer' not in page, 'seven images make no map'
    assert '<h2>A section of my own</h2>' in page, 'a section is added in one place'


def test_a_model_without_a_mistake(tmp_path, digits, only):
    only('mistakes', 'confused', 'confusion')
    page = (report('best', data=some_digits(tmp_path/'noughts', digits, _0=2), out=tmp_path/'out').path/'report.html')
    text = page.read_text()
    assert '100.00%' in text and 'The worst mistakes' not in text and 'confused pairs' not in text
    assert 'Confusion matrix' in text


def test_what_scikit_learn_fitted_wants_trust(tmp_path, only):
    only('confusion', 'filters', 'feature_maps', 'class_activation', 'hidden')
    run = train('digits', 'knn', out=tmp_path/'knn').path
    with pytest.raises(ValueError, match='is a pickle of scikit-learn.*--trust'): report(run, out=tmp_path/'out')
    assert not (tmp_path/'out').exists()
    found = report(run, out=tmp_path/'out', trust=True)
    assert found.models[0]['accuracy'] == read_json(run/'metrics.json')['test']
    page = (found.path/'report.html').read_text()
    assert not any(f'<h2>{title}' in page for title in ('What', 'Where it looks', 'Map'))
    assert 'Confusion matrix' in page


def test_two_that_agree_in_the_folder_where_one_is(tmp_path, digits, only, monkeypatch):
    only('by_digit')
    photos = some_digits(tmp_path/'photos', digits, _1=3, _8=3)
    Image.new('L', (50, 50), 255).save(photos/'8'/'blank.png')
    (tmp_path/'here').mkdir()
    monkeypatch.chdir(tmp_path/'here')
    found = report('tiny', 'tiny', photos, out='.')
    counts, facts = found.difference, found.models[0]
    assert counts['both'] == facts['accuracy']['correct'] and counts['p'] == 1
    assert counts['both'] + counts['neither'] == facts['accuracy']['n'] == 7 and counts['neither'] >= 1  # a blank sheet
    assert [*facts['unread']] == ['8/blank.png'] and 'chance' not in Path('report.html').read_text()
    assert not [file for file in Path().iterdir() if file.name.startswith('.')]


def test_nothing_is_written_for_a_model_or_images_that_cannot_be_used(tmp_path):
    for suffix in ('safetensors', 'json'): shutil.copy(packaged['tiny'].with_suffix(f'.{suffix}'), tmp_path)
    tiny, about = tmp_path/'tiny.json', read_json(tmp_path/'tiny.json')
    about['config']['data'] = '/etc'  # a path of a stranger's machine is not opened on this one
    tiny.write_text(json.dumps(about))
    with pytest.raises(ValueError, match='name some with --data'): report(tiny, out=tmp_path/'out')
    with pytest.raises(FileNotFoundError, match='there is no data'): report('tiny', data='nowhere', out=tmp_path/'out')
    tiny.write_text(json.dumps(about | dict(use=dict(temperature=-1.))))
    with pytest.raises(ValueError, match='damaged'): report(tiny, data='digits', out=tmp_path/'out')
    assert not (tmp_path/'out').exists()
