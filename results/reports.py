"""The reports of `best` and of a training of `simple` on MNIST, and a picture of each: `python results/reports.py`."""
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mnist_fastai.report.page import report
from mnist_fastai.train import train

here = Path(__file__).parent
sys.path.insert(0, str(here.parent/'tests'))
from browser import open_browser  # noqa: E402

with TemporaryDirectory() as d, open_browser() as browser:
    models = dict(best='best', simple=train('mnist', out=f'{d}/simple').path)
    for name, model in models.items():
        page = report(model, out=f'{d}/report_{name}').path/'report.html'
        shutil.copy(page, here/f'report_{name}.html')
        tab = browser.new_page(viewport=dict(width=1160, height=1000))
        tab.goto(page.as_uri())
        tab.screenshot(path=here/f'report_{name}.png')
