"""A real browser without a window, for what a person looks at."""
import shutil
from contextlib import contextmanager

names = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable',
         '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome')
flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream']


@contextmanager
def open_browser():
    "Chromium by Playwright; `FileNotFoundError` or `ImportError` if one of them is not there"
    from playwright.sync_api import sync_playwright
    if not (exe := next(filter(None, map(shutil.which, names)), None)):
        raise FileNotFoundError(f'there is no browser: expected one of {", ".join(names)}')
    with sync_playwright() as p: yield p.chromium.launch(executable_path=exe, args=flags)


def path_of(tab, stroke):
    "A stroke of `pages.strokes` on the canvas of a page, in pixels of the window"
    box = tab.locator('canvas').first.bounding_box()
    return [(box['x'] + box['width']*(.28 + .44*x), box['y'] + box['height']*(.15 + .7*y)) for x, y in stroke]


def draw_stroke(tab, stroke, steps=1, up=True):
    "With the mouse, so many moves from point to point"
    first, *rest = path_of(tab, stroke)
    tab.mouse.move(*first)
    tab.mouse.down()
    for o in rest: tab.mouse.move(*o, steps=steps)
    if up: tab.mouse.up()
