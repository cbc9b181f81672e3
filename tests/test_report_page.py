"""The page about a model says what is true, needs nothing else, and does not run what others write."""
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from mnist_fastai.reader import packaged
from mnist_fastai.report.page import ReportSection, report, report_summary, sections
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
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|<script|<link', page)
    pngs = {file.name for file in both.path.glob('*.png')}
    assert pngs >= {f'{letter}-{name}.png' for letter in 'ab' for name in (
        'confusion', 'confused', 'mistakes', 'calibration', 'stress', 'filters', 'feature_maps', 'class_activation',
        'hidden')} | {'difference.png'}
    assert page.count('<img') == len(pngs) and all(f'<h2>{title}</h2>' in page for title in (
        'Each digit', 'Where they differ', *(section.title for section in sections.values())))
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


def test_a_folder_of_pictures_whatever_they_are_called(tmp_path, digits, only, monkeypatch):
    only('mistakes', 'by_digit', 'hidden')
    monkeypatch.setitem(sections, 'mine', ReportSection('A section of my own', 'Text', lambda measured: measured.name))
    photos = tmp_path/'photos & <b>'
    names = {3: '<img src=x onerror=alert(1)>.png', 7: '$\\frac{$.jpg'}
    for digit, name in names.items():
        (folder := photos/str(digit)).mkdir(parents=True)
        for i, file in enumerate(sorted((digits/'testing'/str(digit)).iterdir())[:3]):
            dark = ImageOps.invert(Image.open(file)).resize((200, 200))
            dark.save(folder/(name if i == 0 else f'{i}{name}'))
    shutil.copy(folder/name, photos/'3'/f'a seven {name}')
    Image.new('L', (99, 99), 250).save(photos/'7'/'<i>blank.png')
    found = report('best', data=photos, out=tmp_path/'out')
    facts, page = found.models[0], (tmp_path/'out'/'report.html').read_text()
    assert facts['accuracy']['n'] == 8 and facts['accuracy']['correct'] == 6 and facts['by_digit'][7]['images'] == 4
    assert facts['by_digit'][7]['recall'] == .75 and [*facts['unread']] == ['7/<i>blank.png']
    assert [mistake['file'] for mistake in facts['mistakes']] == [f'3/a seven {names[7]}']
    assert facts['by_digit'][0] == dict(digit=0, images=0, precision=None, recall=None, f1=None)
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
