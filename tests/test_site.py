"""The site as a reader's browser shows it. `make docs` runs this on what it has built; without `SITE` it is skipped."""
import functools
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

pytestmark = pytest.mark.skipif('SITE' not in os.environ, reason='of the built site: make docs')
root, site = Path(__file__).parents[1], Path(os.environ.get('SITE', '.')).resolve()
public = 'https://mnist-fastai.github.io/mnist_fastai/'
source = 'https://github.com/mnist-fastai/mnist_fastai/blob/main/'

# What a page is, in the browser. A part is too wide if neither it nor anything around it can be scrolled.
look = '''() => {
    const all = s => [...document.querySelectorAll(s)], main = document.querySelector('.md-content') || document.body
    const scrolls = o => o && (/auto|scroll/.test(getComputedStyle(o).overflowX) || scrolls(o.parentElement))
    const texts = [...main.querySelectorAll('*')].filter(o => o.checkVisibility() && !o.closest('svg, sub, sup, math')
        && [...o.childNodes].some(t => t.nodeType == 3 && t.data.trim()))
    return {
        title: document.title, heads: all('h1').length, width: document.documentElement.scrollWidth,
        ids: all('[id], a[name]').map(o => o.id || o.name), links: all('a[href]').map(o => o.href),
        blank: all('img').filter(o => !o.naturalWidth).map(o => o.src.slice(0, 100)),
        small: texts.filter(o => parseFloat(getComputedStyle(o).fontSize) < 13.5).map(o => o.outerHTML.slice(0, 100)),
        wide: [...main.querySelectorAll('*')].filter(o => o.checkVisibility() && !scrolls(o)
            && o.getBoundingClientRect().right > innerWidth + 1).map(o => o.outerHTML.slice(0, 100))}}'''


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    "The site's address, in a folder as on GitHub"
    assert (site/'index.html').is_file(), f'no site in {site}: make docs builds it'
    folder = tmp_path_factory.mktemp('host')
    (folder/'mnist_fastai').symlink_to(site)
    with ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/mnist_fastai/'
        server.shutdown()


@pytest.fixture(scope='module')
def pages(base, browser):
    "What each page is on a telephone, by address"
    found, context = {}, browser.new_context(viewport=dict(width=390, height=844))
    for file in sorted(site.rglob('*.html')):
        tab, url, bad, asked = context.new_page(), base + file.relative_to(site).as_posix(), [], []
        tab.on('request', lambda o, asked=asked: asked.append(o.url))
        tab.on('requestfailed', lambda o, bad=bad: bad.append(o.url))
        tab.on('response', lambda o, bad=bad: o.status < 400 or bad.append(o.url))
        tab.on('pageerror', lambda o, bad=bad: bad.append(str(o)))
        tab.goto(url)  # until it is loaded: the network may be idle before that
        tab.wait_for_load_state('networkidle')
        found[url] = dict(tab.evaluate(look), bad=bad, asked=[o for o in asked if not o.startswith(('data:', 'blob:'))])
        tab.close()
    context.close()
    return found


def check(pages, of):
    "No page has faults"
    __tracebackhide__ = True
    faults = {url.split('/mnist_fastai/')[1]: there for url, page in pages.items() if (there := of(page))}
    assert not faults, '\n'.join(f'{page}: {there}' for page, there in faults.items())


def test_every_kind_of_page_is_there(base, pages):
    for o in ('index', 'CHANGELOG', 'CONTRIBUTING', 'docs/commands', 'api/data.core', 'nbs/03g_data.core',
              'nbs/stories/speed', 'results/index'):
        assert f'{base}{o}.html' in pages
    check(pages, lambda o: not o['title'] or not o['heads'])


def test_nothing_is_missing_and_nothing_fails(pages):
    check(pages, lambda o: o['bad'] + o['blank'])


def test_nothing_comes_from_another_host(base, pages):
    check(pages, lambda o: [url for url in o['asked'] if not url.startswith(base)])


def test_every_link_leads_somewhere(base, pages):
    def leads(link):
        if link.startswith(source): return (root/unquote(urldefrag(link)[0][len(source):])).exists()
        url, fragment = urldefrag(link.replace(public, base))
        if urlsplit(url).netloc != urlsplit(base).netloc: return True
        if url.endswith('/'): url += 'index.html'
        if url in pages: return not fragment or unquote(fragment) in pages[url]['ids']
        return url.startswith(base) and (site/unquote(url[len(base):])).is_file()
    check(pages, lambda o: [link for link in o['links'] if not leads(link)])
    assert sum(len(o['links']) for o in pages.values()) > 1000


def test_a_telephone_can_show_it(pages):
    check(pages, lambda o: o['wide'] + o['small'] + [f'{o["width"]} pixels wide']*(o['width'] > 391))


def test_the_search_finds(base, browser):
    tab = browser.new_page()
    tab.goto(base)
    tab.locator('[data-md-component=search-query]').fill('mnist_learner')
    tab.locator('.md-search-result__link', has_text='mnist_learner').first.click(timeout=20_000)
    tab.wait_for_url(f'{base}*/*')
    assert 'mnist_learner' in tab.locator('.md-content').inner_text()
