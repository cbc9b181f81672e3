"""The page, as a person with a browser meets it."""
import io

import numpy as np
import pytest
from browser import draw_stroke, path_of

from mnist_fastai.app.core import hard_digits
from mnist_fastai.pictures import photos as pages


@pytest.fixture(scope='module')
def window(browser):
    "A window for all tests: Gradio's files come from its cache"
    with browser.new_context(viewport=dict(width=1160, height=900), permissions=['camera']) as window: yield window


@pytest.fixture
def tab(app_url, window):
    "The page in a tab of its own; nothing may fail in it, and nothing may come from elsewhere"
    wrong = []
    with window.new_page() as tab:
        own = app_url, 'data:', 'blob:'
        tab.on('request', lambda request: None if request.url.startswith(own) else wrong.append(request.url))
        tab.on('pageerror', lambda error: wrong.append(str(error)))
        opened(tab, app_url)
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


def clear(tab):
    tab.get_by_role('button', name='Clear').click()
    tab.get_by_text('The answer appears here.').wait_for()


def photo_of(digits, kind='plain'):
    "A photo as a JPEG, and what it shows"
    rng = np.random.default_rng(7)
    known = [pages.others(rng, n) for n in digits]
    pages.photo(rng, pages.written(rng, [o for o, _ in known])[0], kind).save(file := io.BytesIO(), 'jpeg', quality=90)
    return file.getvalue(), '\n'.join(text for _, text in known)


def test_a_digit_is_read_while_it_is_drawn(tab):
    for digit in (2, 3, 4, 7):
        draw(tab, digit, up=digit == 4)  # a 4 has two strokes; of the others the button is still held down
        expect_number(tab, str(digit))
        rows = [row.split() for row in tab.locator('.bars tr').all_inner_texts()]
        assert [row[0] for row in rows] == list('0123456789')
        assert max(rows, key=lambda row: float(row[1][:-1]))[0] == str(digit)
        sizes = tab.locator('.pictures img').evaluate_all('all => all.map(o => [o.naturalWidth, o.naturalHeight])')
        assert sizes == [[28, 28], [28, 28]], 'what the network sees, and the class activation map'
        tab.mouse.up()
        clear(tab)


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


def test_undo_takes_back_the_last_stroke(tab):
    from playwright.sync_api import expect
    undo = tab.get_by_role('button', name='Undo')
    def drawn(): return tab.evaluate("document.querySelector('canvas').toDataURL()")
    def scribble():
        draw_stroke(tab, [(-.4, 0), (1.4, 1), (-.4, 1), (1.4, 0)], 4)
        expect(tab.locator('.number').first).not_to_have_text('7')
    expect(undo).to_be_disabled()
    draw(tab, 7)
    expect_number(tab, '7')
    seven = drawn()
    for take_back in (undo.click, lambda: tab.keyboard.press('Control+z')):
        scribble()
        take_back()
        expect_number(tab, '7')
        assert drawn() == seven
    clear(tab)
    undo.click()
    expect_number(tab, '7')
    tab.keyboard.press('Control+z')
    tab.get_by_text('The answer appears here.').wait_for()
    expect(undo).to_be_disabled()


def test_undo_leaves_texts_and_hidden_drawings_alone(tab):
    draw(tab, 3)
    expect_number(tab, '3')
    tab.evaluate("document.querySelector('main').append(document.createElement('textarea'))")
    text = tab.locator('textarea').last
    text.press_sequentially('hello')
    text.press('Control+z')
    assert text.input_value() == '', 'its own Undo'
    tab.get_by_role('tab', name='Hard digits').click()
    tab.get_by_text('The answer appears here.').wait_for()
    tab.keyboard.press('Control+z')
    tab.get_by_role('tab', name='Draw').click()
    expect_number(tab, '3')
    tab.get_by_label('tiny').check()
    tab.get_by_text('Read by tiny').wait_for()
    tab.keyboard.press('Control+z')  # in a box to tick there is nothing else to undo
    tab.get_by_text('The answer appears here.').wait_for()


def test_a_letter_is_not_sure_and_models_stand_side_by_side(tab):
    draw_stroke(tab, [(0, 0), (0, 1), (0, .5), (1, 0), (0, .5), (1, 1)], 4)  # a K
    tab.locator('.unsure', has_text='not sure').wait_for()
    clear(tab)
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
    tab.locator('.answer svg').wait_for()
    assert tab.locator('.number').inner_text() == text
    assert tab.locator('.answer rect').count() == tab.locator('.tiles summary').count() == 11
    inside = tab.locator('.answer svg').bounding_box()
    for o in tab.locator('.answer rect').all():
        box = o.bounding_box()
        assert box['width'] > 5 and inside['x'] < box['x'] and box['y'] + box['height'] < inside['y'] + inside['height']
    assert not tab.locator('.tiles .bars').first.is_visible()
    tab.locator('.tiles summary').first.click()
    assert tab.locator('.tiles .bars').first.is_visible()


def test_models_read_one_photo_in_rows(tab):
    content, text = photo_of([5, 6])
    tab.get_by_label('strong').check()
    tab.get_by_label('tiny').check()
    tab.get_by_role('tab', name='Photo').click()
    choose_file(tab, 'page.jpg', content)
    tab.locator('.answer svg').wait_for()
    assert tab.locator('.answer svg').count() == 1 and tab.locator('.answer rect').count() == 11
    assert [o.replace(' ', '')[:len(text)] for o in tab.locator('.number').all_inner_texts()] == [text]*3
    answer, photo = tab.locator('.answer').bounding_box(), tab.locator('.answer svg').bounding_box()
    assert photo['width'] == answer['width']
    long_name(tab.locator('.rows h2').nth(1))
    names, numbers = ([o.bounding_box() for o in tab.locator(f'.rows {o}').all()] for o in ('h2', '.number'))
    assert len({o['x'] for o in numbers}) == 1 and max(o['x'] + o['width'] for o in names) < numbers[0]['x']
    tab.locator('.tiles summary').first.click()
    assert [o.is_visible() for o in tab.locator('.tiles .bars').all()[:4]] == [True]*3 + [False]


def long_name(heading):
    "As a run of many settings is called"
    heading.evaluate("o => o.textContent = 'Read by 20261128-140501_two_conv_augmented_for_a_long_time_with_seed_3'")


def bars(tab):
    "Left, top and width of each model's bars"
    boxes = [o.bounding_box() for o in tab.locator('.bars').all()]
    return [[o[k] for o in boxes] for k in ('x', 'y', 'width')]


def test_long_names_do_not_shift_the_bars(tab):
    draw(tab, 3)
    expect_number(tab, '3')
    for name in ('strong', 'tiny'): tab.get_by_label(name).check()
    tab.get_by_text('Read by tiny').wait_for()
    left, _, width = bars(tab)
    heading = tab.locator('.models h2').nth(1)
    long_name(heading)
    assert bars(tab)[::2] == [left, width] and len({*bars(tab)[1]}) == 1, 'side by side, at one height'
    box = heading.bounding_box()
    assert box['x'] + heading.evaluate('o => o.scrollWidth') < left[2], 'the name stays in its column'
    tab.set_viewport_size(dict(width=390, height=844))
    left, top, _ = bars(tab)
    assert len({*left}) == 1 and top == sorted({*top}), 'one below the other'
    assert tab.evaluate('document.documentElement.scrollWidth') == 390
    tab.set_viewport_size(dict(width=1160, height=900))


def test_a_camera_will_do(tab):
    tab.get_by_role('tab', name='Photo').click()
    tab.get_by_role('button', name='Capture from camera').click()
    tab.get_by_role('button', name='Click to Access Webcam').click()
    tab.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    tab.get_by_role('button', name='capture photo').click()
    tab.locator('.models, [role=alert]').first.wait_for()  # whatever there is to see in Chromium's own moving picture


def test_what_is_no_photo_is_refused_with_a_message(tab, tmp_path):
    tab.get_by_role('tab', name='Photo').click()
    choose_file(tab, 'bad.png', b'hello')
    tab.get_by_role('alert').get_by_text('This is not a picture: expected PNG').wait_for()
    tab.get_by_role('button', name='Remove Image').click()
    with open(tmp_path/'large.png', 'wb') as file: file.truncate(20*2**20 + 1)
    tab.locator('input[type=file]').first.set_input_files(tmp_path/'large.png')
    tab.get_by_text('exceed the maximum allowed size').first.wait_for()
    choose_file(tab, 'page.txt', b'hello', 'text/plain')
    tab.get_by_text('Invalid file type').first.wait_for()
    content, text = photo_of([4])
    choose_file(tab, 'page.jpg', content)
    expect_number(tab, text)


def test_a_telephone_can_use_it(app_url, browser):
    with browser.new_context(viewport=dict(width=360, height=740), has_touch=True, is_mobile=True) as context:
        tab = context.new_page()
        opened(tab, app_url)
        touch = context.new_cdp_session(tab)
        def finger(kind, *at):
            touch.send('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in at]))
        first, *rest = path_of(tab, pages.strokes[2][0])
        finger('touchStart', first)
        for point in rest: finger('touchMove', point)
        finger('touchEnd')
        expect_number(tab, '2')
        assert tab.evaluate('scrollY') == 0, 'the finger drew and did not scroll'
        assert not tab.get_by_text('arrows draw').is_visible(), 'it has no keys'
        tab.get_by_role('button', name='Undo').tap()  # right after a fast stroke
        tab.get_by_text('The answer appears here.').wait_for()
        choices = ['Draw', 'Photo', 'Hard digits']
        for name in choices:
            tab.get_by_role('tab', name=name).click()
            assert tab.evaluate('document.documentElement.scrollWidth') <= 360
        assert all(o['height'] >= 24 for o in (tab.get_by_role('tab', name=o).bounding_box() for o in choices))


def test_the_page_says_what_it_is(tab):
    assert tab.title() == 'Which digit is it?' and tab.locator('h1').all_inner_texts() == [tab.title()]
    keys = tab.locator(f"#{tab.locator('canvas').get_attribute('aria-describedby')}")
    assert keys.is_visible() and 'arrows draw' in keys.inner_text()
    draw(tab, 3)
    expect_number(tab, '3')
    small = tab.evaluate('''() => [...document.querySelectorAll('main *')]
        .filter(o => o.checkVisibility({opacityProperty: true}) && parseFloat(getComputedStyle(o).fontSize) < 13.5
            && [...o.childNodes].some(t => t.nodeType == 3 && t.data.trim())).map(o => o.outerHTML)''')
    assert not small, 'text too small to read'
