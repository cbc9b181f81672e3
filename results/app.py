"""The page, installed as its container installs it: size, speed, memory, and pictures of it. `python results/app.py`;
with `--pictures`, of this installation and without measuring"""
import io
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from PIL import Image
from scipy.interpolate import make_interp_spline

from mnist_fastai.drawing import data_url
from mnist_fastai.pictures import photos as pages
from mnist_fastai.environment import environment
from mnist_fastai.utils import write_json

here = Path(__file__).parent
sys.path.insert(0, str(here.parent/'tests'))
from browser import draw_stroke, open_browser  # noqa: E402
from serving import install_space, serving  # noqa: E402


def drawing(rng, digit):
    "A drawing as the canvas sends it"
    return data_url(Image.fromarray(255 - pages.drawn(rng, digit, 224)))


def memory(server):
    "MB of RAM that a process has (Linux)"
    lines = Path(f'/proc/{server.pid}/status').read_text().splitlines()
    return int(next(o for o in lines if o.startswith('VmRSS')).split()[1])//1024


def ask(client, drawings, models, at_once, n=500):
    "n answers, so many at a time: the median milliseconds of one, the slowest twentieth, answers a second"
    def one(i):
        start = time.perf_counter()
        done = client.post('/gradio_api/run/answer', json=dict(
            data=['draw', drawings[i % len(drawings)], None, '', models]))
        assert done.status_code == 200 and 'class=\\"number' in done.text, done.text
        return 1000*(time.perf_counter() - start)
    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as many: found = [*many.map(one, range(n))]
    took, (median, slow) = time.perf_counter() - start, np.quantile(found, [.5, .95]).round(1).tolist()
    return dict(models=models, at_once=at_once, median=median, slowest_twentieth=slow, a_second=round(n/took))


def measure(url, server):
    "Speed in three rounds, and the memory after each"
    rng, rounds = np.random.default_rng(0), []
    drawings = [drawing(rng, i % 10) for i in range(50)]
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for i in range(3):
            for models, at_once in ((['best'], 1), (['best'], 20), (['best', 'strong', 'tiny'], 1)):
                rounds.append(dict(round=i + 1, **ask(client, drawings, models, at_once), memory_mb=memory(server)))
                print(rounds[-1])
    return rounds


def draw(tab, digit):
    "With the mouse, round where a hand is round"
    for stroke in pages.strokes[digit]:
        curve = make_interp_spline(np.arange(len(stroke)), stroke, k=min(3, len(stroke) - 1))
        draw_stroke(tab, curve(np.linspace(0, len(stroke) - 1, 60)))


def pictures(url):
    "A drawn digit, and a photo of a page that three models read"
    rng = np.random.default_rng(3)
    lines = [np.hstack([pages.drawn(rng, int(o), 160)[:, 24:-24] for o in line]) for line in ('314159', '265358')]
    pages.photo(rng, np.pad(np.vstack(lines)/255, 60), 'shadow').save(photo := io.BytesIO(), 'jpeg', quality=90)
    with open_browser() as browser:
        tab = browser.new_page(viewport=dict(width=1100, height=860), device_scale_factor=1.5)
        tab.goto(url)
        tab.get_by_text('The answer appears here.').wait_for()
        tab.get_by_label('tiny').check()
        draw(tab, 5)
        tab.locator('.number', has_text='5').last.wait_for()
        tab.wait_for_timeout(500)
        tab.screenshot(path=here/'app_draw.png')
        tab.get_by_label('strong').check()
        tab.set_viewport_size(dict(width=1100, height=1130))
        tab.get_by_role('tab', name='Photo').click()
        tab.locator('input[type=file]').first.set_input_files(
            dict(name='page.jpg', mimeType='image/jpeg', buffer=photo.getvalue()))
        tab.locator('.answer svg').wait_for()
        tab.wait_for_timeout(500)
        tab.screenshot(path=here/'app_photo.png')
    for name in ('draw', 'photo'):
        image = Image.open(here/f'app_{name}.png').convert('RGB')
        image.quantize(256).save(here/f'app_{name}.png', optimize=True)


if '--pictures' in sys.argv:
    with serving() as (url, _): pictures(url)
    sys.exit()
with TemporaryDirectory() as folder:
    venv = install_space(Path(folder))
    installed = int(subprocess.check_output(['du', '-sm', venv], text=True).split()[0])
    with serving(python=venv/'bin'/'python', GRADIO_TEMP_DIR=f'{folder}/uploads') as (url, server):
        rounds = measure(url, server)
        pictures(url)
write_json(here/'app.json', dict(installed_mb=installed, milliseconds=rounds, gradio=version('gradio'),
                                 environment=environment()))
