"""The page, as a person with a browser meets it, and as somebody without one does."""
import base64
import csv
import io
import re
import shutil
import signal
import socket
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from browser import draw_stroke, path_of
from conftest import listen_to_ctrl_c, only_full
from PIL import Image
from serving import docker_steps, install_space, root, serving

from mnist_fastai.app.core import hard_files, hard_digits
from mnist_fastai.drawing import data_url
from mnist_fastai.inference import Predictor
from mnist_fastai.pictures import photos as pages


@pytest.fixture(scope='module')
def url(tmp_path_factory):
    with serving(GRADIO_TEMP_DIR=str(tmp_path_factory.mktemp('uploads'))) as (url, _): yield url


def client_of(url): return httpx.Client(base_url=url, timeout=60, trust_env=False)


@pytest.fixture
def client(url):
    with client_of(url) as client: yield client


def as_url(array): return data_url(Image.fromarray(array))  # as the canvas sends it


def sent(client, drawing='', photo=None, models=('best',)):
    "What the page would send"
    data = ['photo' if photo else 'draw', drawing, photo, '', models]
    return client.post('/gradio_api/run/answer', json=dict(data=data))


def asked(*args, **kwargs): return sent(*args, **kwargs).raise_for_status().json()['data'][0]


def number_in(found): return re.search(r'class="number[^>]*>([^<]*)', found)[1]


# With a browser


@pytest.fixture
def tab(url, browser):
    "The page in a window of its own; nothing may fail in it, and nothing may come from elsewhere"
    with browser.new_context(viewport=dict(width=1160, height=900), permissions=['camera']) as context:
        tab, wrong = context.new_page(), []
        tab.on('request', lambda o: wrong.append(o.url) if not o.url.startswith((url, 'data:', 'blob:')) else None)
        tab.on('pageerror', lambda o: wrong.append(str(o)))
        opened(tab, url)
        yield tab
        assert not wrong


def opened(tab, url):
    "The page, when it listens"
    tab.goto(url)
    tab.get_by_text('The answer appears here.').wait_for()


def draw(tab, digit, up=True):
    "Draw with the mouse"
    for stroke in pages.strokes[digit]: draw_stroke(tab, stroke, 4, up)


def expect_number(tab, text):
    from playwright.sync_api import expect
    expect(tab.locator('.number').first).to_have_text(text, timeout=10_000)


def choose_file(tab, name, content, kind='image/png'):
    tab.locator('input[type=file]').first.set_input_files(dict(name=name, mimeType=kind, buffer=content))


def photo_of(digits, kind='plain'):
    "A photo as a JPEG, and what it shows"
    rng = np.random.default_rng(7)
    known = [pages.others(rng, n) for n in digits]
    pages.photo(rng, pages.written(rng, [o for o, _ in known])[0], kind).save(file := io.BytesIO(), 'jpeg', quality=90)
    return file.getvalue(), '\n'.join(text for _, text in known)


@pytest.mark.parametrize('digit', [2, 3, 4, 7])
def test_a_digit_is_read_while_it_is_drawn(tab, digit):
    draw(tab, digit, up=digit == 4)  # a 4 has two strokes; of the others the button is still held down
    expect_number(tab, str(digit))
    rows = [o.split() for o in tab.locator('.bars tr').all_inner_texts()]
    assert [o[0] for o in rows] == list('0123456789') and max(rows, key=lambda o: float(o[1][:-1]))[0] == str(digit)
    sizes = tab.locator('.pictures img').evaluate_all('found => found.map(o => [o.naturalWidth, o.naturalHeight])')
    assert sizes == [[28, 28], [28, 28]], 'what the network sees, and the class activation map'
    tab.mouse.up()
    tab.get_by_role('button', name='Clear').click()
    tab.get_by_text('The answer appears here.').wait_for()


def test_the_keyboard_is_enough(tab):
    for _ in range(20):
        tab.keyboard.press('Tab')
        if tab.evaluate('document.activeElement.tagName') == 'CANVAS': break
    for _ in range(14): tab.keyboard.press('ArrowDown')
    expect_number(tab, '1')
    tab.keyboard.press('Delete')
    tab.get_by_text('The answer appears here.').wait_for()
    for key in ['Shift+ArrowLeft']*5 + ['ArrowRight']*10 + ['ArrowDown']*16: tab.keyboard.press(key)
    expect_number(tab, '7')
    focus = [tab.evaluate('document.activeElement.innerText || document.activeElement.labels?.[0]?.innerText')
             for _ in range(8) if tab.keyboard.press('Tab') is None]
    assert {'Clear', 'best', 'strong', 'tiny'} <= {o and o.strip() for o in focus}


def test_a_letter_is_not_sure(tab):
    draw_stroke(tab, [(0, 0), (0, 1), (0, .5), (1, 0), (0, .5), (1, 1)], 4)  # a K
    tab.locator('.unsure', has_text='not sure').wait_for()


def test_models_stand_side_by_side(tab):
    draw(tab, 3)
    expect_number(tab, '3')
    tab.get_by_label('tiny').check()
    tab.get_by_text('Read by tiny').wait_for()
    left, right = [o.bounding_box() for o in tab.locator('.models article').all()]
    assert left['y'] == right['y'] and left['x'] + left['width'] < right['x']
    tab.get_by_label('best').uncheck()
    tab.get_by_label('tiny').uncheck()
    tab.get_by_text('Choose a model.').wait_for()


def test_hard_digits_can_be_tried(tab):
    tab.get_by_role('tab', name='Hard digits').click()
    assert tab.locator('.hard button').count() == 20
    for i in (0, 7):
        tab.locator('.hard button').nth(i).click()
        tab.get_by_text(f'The label says {hard_digits()[i][1]}.').wait_for()
        assert tab.locator('.bars tr').count() == 10


def test_the_answer_belongs_to_what_is_seen(tab):
    draw(tab, 3)
    expect_number(tab, '3')
    tab.get_by_role('tab', name='Hard digits').click()
    tab.get_by_text('The answer appears here.').wait_for()
    tab.locator('.hard button').first.click()
    tab.get_by_text('The label says').wait_for()
    tab.get_by_role('tab', name='Draw').click()
    expect_number(tab, '3')
    assert not tab.get_by_text('The label says').count()
    tab.get_by_role('tab', name='Hard digits').click()
    tab.get_by_text('The label says').wait_for()


def test_a_photo_shows_boxes_and_the_number(tab):
    content, text = photo_of([5, 6], 'shadow')
    tab.get_by_role('tab', name='Photo').click()
    choose_file(tab, 'page.jpg', content)
    tab.locator('.models svg').wait_for()
    assert tab.locator('.number').inner_text() == text
    assert tab.locator('.models rect').count() == tab.locator('.tiles summary').count() == 11
    inside = tab.locator('.models svg').bounding_box()
    for o in tab.locator('.models rect').all():
        box = o.bounding_box()
        assert box['width'] > 5 and inside['x'] < box['x'] and box['y'] + box['height'] < inside['y'] + inside['height']
    assert not tab.locator('.tiles .bars').first.is_visible()
    tab.locator('.tiles summary').first.click()
    assert tab.locator('.tiles .bars').first.is_visible()


def test_a_camera_will_do(tab):
    tab.get_by_role('tab', name='Photo').click()
    tab.get_by_role('button', name='Capture from camera').click()
    tab.get_by_role('button', name='Click to Access Webcam').click()
    tab.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    tab.get_by_role('button', name='capture photo').click()
    tab.locator('.models, [role=alert]').first.wait_for()  # whatever there is to see in Chromium's own moving picture


def test_what_is_no_photo_is_refused_with_a_message(tab):
    tab.get_by_role('tab', name='Photo').click()
    choose_file(tab, 'bad.png', b'hello')
    tab.get_by_role('alert').get_by_text('This is not a picture: expected PNG').wait_for()
    tab.get_by_role('button', name='Remove Image').click()
    choose_file(tab, 'large.png', b'x'*(20*2**20 + 1))
    tab.get_by_text('exceed the maximum allowed size').first.wait_for()
    choose_file(tab, 'page.txt', b'hello', 'text/plain')
    tab.get_by_text('Invalid file type').first.wait_for()
    content, text = photo_of([4])
    choose_file(tab, 'page.jpg', content)
    expect_number(tab, text)


def test_a_telephone_can_use_it(url, browser):
    with browser.new_context(viewport=dict(width=360, height=740), has_touch=True, is_mobile=True) as context:
        tab = context.new_page()
        opened(tab, url)
        touch = context.new_cdp_session(tab)
        def finger(kind, *at):
            touch.send('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in at]))
        first, *rest = path_of(tab, pages.strokes[2][0])
        finger('touchStart', first)
        for o in rest: finger('touchMove', o)
        finger('touchEnd')
        expect_number(tab, '2')
        assert tab.evaluate('scrollY') == 0, 'the finger drew and did not scroll'
        choices = ['Draw', 'Photo', 'Hard digits']
        for name in choices:
            tab.get_by_role('tab', name=name).click()
            assert tab.evaluate('document.documentElement.scrollWidth') <= 360
        assert all(o['height'] >= 24 for o in (tab.get_by_role('tab', name=o).bounding_box() for o in choices))


def test_the_page_says_what_it_is(tab):
    assert tab.title() == 'Which digit is it?' and tab.locator('h1').all_inner_texts() == [tab.title()]
    assert 'arrows draw' in tab.locator(f"#{tab.locator('canvas').get_attribute('aria-describedby')}").inner_text()
    draw(tab, 3)
    expect_number(tab, '3')
    small = tab.evaluate('''() => [...document.querySelectorAll('main *')]
        .filter(o => o.checkVisibility({opacityProperty: true}) && parseFloat(getComputedStyle(o).fontSize) < 13.5
            && [...o.childNodes].some(t => t.nodeType == 3 && t.data.trim())).map(o => o.outerHTML)''')
    assert not small, 'text too small to read'


# Without a browser


def test_many_at_once_get_their_own_answers(client):
    rng = np.random.default_rng(0)
    drawings = [as_url(255 - pages.drawn(rng, i)) for i in range(10)]
    def digit(i): return number_in(asked(client, drawings[i % 10], models=['tiny']))
    with ThreadPoolExecutor(8) as many: assert [*many.map(digit, range(40))] == [str(i % 10) for i in range(40)]


def test_no_file_of_the_machine_can_be_had(client, url):
    picture, meta = root/'results'/'predictions.png', dict(_type='gradio.FileData')
    for given in (dict(path=str(picture)), dict(path=str(picture), meta=meta), dict(path='/etc/passwd', meta=meta),
                  dict(path=url, url=url, meta=meta)):
        for done in (sent(client, photo=given), sent(client, given)):
            assert len(done.text) < 300 and (done.status_code == 500 or 'no picture' in done.text)
        assert sent(client, photo=given).status_code == 500
    for path in (picture, '/etc/passwd', 'setup.cfg'):
        assert client.get(f'/gradio_api/file={path}').status_code == 403
    path, = client.post('/gradio_api/upload', files=dict(files=('../../x.png', picture.read_bytes()))).json()
    assert 'svg' in asked(client, photo=dict(path=path, meta=meta)), 'what was sent is read'


def test_what_is_too_large_is_refused(client):
    large = b'x'*40_000_000
    for size in (2_000_000, len(large)):
        content = b'{"data": ["' + large[:size] + b'", ["best"]]}'
        assert client.post('/gradio_api/run/answer', content=content).status_code == 413
    assert client.post('/gradio_api/upload', files=dict(files=('x.png', large))).status_code == 413


def test_transparent_pictures_are_shown_as_they_are_read(client):
    rng = np.random.default_rng(5)
    alpha = (255*pages.written(rng, [pages.others(rng, 3)[0]])[0]).astype(np.uint8)
    for ink in (0, 255):
        picture = np.dstack([np.full((*alpha.shape, 3), ink, np.uint8), alpha])
        jpeg = re.search('base64,([^"]*)', re.search('<image.*?>', asked(client, as_url(picture)))[0])[1]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg))))
        assert abs(shown.mean() - (255 - ink)) < 80 and np.ptp(shown) > 200, 'ink on paper'


@pytest.mark.parametrize('data', [
    [], [None]*5, ['draw', [1], None, '', ['best']], ['draw', 'x', None, '', 3], ['draw', {'path': 1}, 2, 3, ['best']],
    ['draw', 'data:,', None, '', ['no']], ['gallery', '', None, '99', ['best']], [[], '', None, {}, ['best']]])
def test_nonsense_does_not_stop_it(client, data):
    client.post('/gradio_api/run/answer', json=dict(data=data))
    client.post('/gradio_api/run/answer', content=b'\xff{').close()
    with client_of(client.base_url) as other:
        assert number_in(asked(other, as_url(pages.drawn(np.random.default_rng(7), 7)))) == '7'


def test_a_run_can_be_chosen_and_a_pickle_only_with_trust(trained, tmp_path):
    run = tmp_path/'mine'
    shutil.copytree(trained[0], run)
    drawing = as_url(pages.drawn(np.random.default_rng(7), 7))
    with serving(run, 'tiny') as (url, _), client_of(url) as client:
        found = asked(client, drawing, models=['mine', 'tiny', 'best'])
    assert re.findall('<h2>Read by (.*?)</h2>', found) == ['mine', 'tiny', 'best']
    with serving(run/'learner.pkl', '--trust') as (url, _), client_of(url) as client:
        assert number_in(asked(client, drawing, models=['learner.pkl']))


@pytest.mark.parametrize('args, says', [
    (['nosuch'], "there is no model 'nosuch'"), (['{run}/learner.pkl'], '--trust'), (['--port', '70000'], '--port'),
    (['--host', '203.0.113.1'], 'cannot be at 203.0.113.1'), (['--reject-below', '2'], 'no probability')])
def test_what_cannot_be_served_is_said_in_a_line(sh, trained, args, says):
    done = sh('mnist-app', *(o.format(run=trained[0]) for o in args), '--no-browser')
    assert done.returncode == 1 and says in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_only_this_machine_can_see_it(url):
    address, port = url.removeprefix('http://').split(':')
    assert address == '127.0.0.1'
    with pytest.raises(ConnectionRefusedError): socket.create_connection(('127.0.0.2', int(port)))  # this machine too


def test_it_ends_quietly_and_forgets_photos(tmp_path):
    "Ctrl-C, while a tab is open"
    with serving('tiny', preexec_fn=listen_to_ctrl_c, TMPDIR=tmp_path) as (url, server), client_of(url) as client:
        client.post('/gradio_api/upload', files=dict(files=('x.png', b'hello'))).raise_for_status()
        assert [*tmp_path.rglob('x.png')]
        with client.stream('GET', '/gradio_api/heartbeat/me') as tab:
            next(tab.iter_bytes())
            server.send_signal(signal.SIGINT)
            assert server.wait(20) == 0
        server.log.seek(0)
        assert server.log.read() == '' and not [*tmp_path.rglob('x.png')]


def test_neither_torch_nor_fastai_is_loaded(sh):
    done = sh('python', 'import sys, mnist_fastai.cli, mnist_fastai.app as a; a.build_app(["best"]); '
              'print({"torch", "fastai", "sklearn", "matplotlib"} & {*sys.modules})')
    assert done.stdout.strip() == 'set()', done.stdout + done.stderr


# The gallery


def test_the_gallery_has_what_most_trainings_get_wrong():
    with open(root/'results'/'mistakes.csv') as f: rows = [*csv.DictReader(f)]
    wrong = Counter(o['image'].removesuffix('.png') for o in rows if o['recipe'] in ('strong', 'best'))
    assert min(wrong[o] for o in hard_files) >= max(n for o, n in wrong.items() if o not in hard_files)
    assert len({*hard_files}) == 20


def test_the_gallery_without_mnist(monkeypatch, tmp_path):
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path))
    images, labels = zip(*hard_digits())
    assert labels == tuple(sorted([*range(10)]*2)) and {o.shape for o in images} == {(28, 28)}
    sure = Predictor().probs(np.array(images))[range(20), labels]
    assert sure.min() < .1 and sure.mean() < .8, 'they are hard'


@pytest.mark.mnist
def test_the_gallery_with_mnist():
    images, labels = zip(*hard_digits())
    assert [f'{label}' for label in labels] == [o[0] for o in hard_files]
    assert (Predictor().probs(np.array(images)).argmax(1) != labels).mean() > .5


# The container


def test_the_container_has_what_the_page_imports():
    "And no PyTorch; `make test-full` installs it"
    names = {o for step in docker_steps() for o in step}
    modules = 'app', 'inference', *(f'pictures/{o}' for o in ('finding', 'mnist_form', 'opening'))
    source = ''.join((root/'mnist_fastai'/f'{o}.py').read_text() for o in modules)
    imported = {*re.findall(r'^\s*(?:from|import) (\w+)', source, re.M)}
    imported -= {*sys.stdlib_module_names, 'mnist_fastai', 'torch', 'matplotlib', 'pillow_heif'}
    known = dict(PIL='pillow', uvicorn='gradio', fastapi='gradio', anyio='gradio')
    assert {known.get(o, o) for o in imported} <= names and not names & {'torch', 'fastai', 'scikit-learn'}


@only_full
def test_the_container_serves_the_page(tmp_path):
    "Its steps in a fresh virtual environment"
    venv = install_space(tmp_path)
    assert not [*venv.glob('lib/*/site-packages/torch')]
    with serving(exe=venv/'bin'/'mnist-app') as (url, _), client_of(url) as client:
        assert number_in(asked(client, as_url(pages.drawn(np.random.default_rng(7), 7)))) == '7'
