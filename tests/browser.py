"""A real browser without a window, for what a person looks at."""
import shutil
from contextlib import contextmanager

names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream']


@contextmanager
def open_browser():
    "Chromium by Playwright; `FileNotFoundError` or `ImportError` if one of them is not there"
    from playwright.sync_api import sync_playwright
    if not (exe := next(filter(None, map(shutil.which, names)), None)):
        raise FileNotFoundError(f'there is no browser: expected one of {", ".join(names)}')
    with sync_playwright() as p: yield p.chromium.launch(executable_path=exe, args=flags)
