"""README, docs/ and results/ say what was measured, link to what is there, and their code runs."""
import json
import re
import runpy
from pathlib import Path

import pandas as pd
import pytest
import readme
from serving import offline

root = Path(__file__).parents[1]
pages = [root/'README.md', root/'CONTRIBUTING.md', root/'CHANGELOG.md', *sorted(root.glob('docs/*.md')),
         *sorted(root.glob('results/*.md'))]
first_page = pages[0].read_text(encoding='utf-8')


def result(name): return json.loads((root/'results'/f'{name}.json').read_text())


def test_tables_are_the_results():
    for page in readme.pages:
        text = page.read_text(encoding='utf-8')
        assert readme.written(text) == text, f'{page.relative_to(root)} is out of date: make readme'


def test_every_table_is_shown_once():
    texts = [page.read_text(encoding='utf-8') for page in readme.pages]
    shown = [o for text in texts for o in re.findall(r'<!-- ((?!end)[\w ]+) -->', text)]
    assert sorted(shown) == sorted(readme.tables)


def test_the_page_about_pictures_is_its_results():
    report = runpy.run_path(str(root/'results'/'pictures.py'))['report']
    page = (root/'results'/'pictures.md').read_text(encoding='utf-8')
    assert report(result('pictures')) == page, 'python results/pictures.py --only'


def test_the_results_are_about_mnist():
    board, trials = (pd.read_csv(root/'results'/f'{o}.csv') for o in ('leaderboard', 'trials'))
    assert set(trials.dataset) == {'MNIST'}
    for r in board.itertuples():
        same = trials[(trials.recipe == r.recipe) & (trials.train_images == r.train_images)]
        assert len(same) == r.seeds and same.test.mean() == pytest.approx(r.test, abs=1e-5)
        assert r.seeds >= 3 or pd.isna(r.epochs)  # what has no randomness is run once
    measured = 'simple_cnn', 'two_conv', 'augment', 'overhead', 'race', 'scale'
    assert {result(f'bench_{o}')['dataset'] for o in measured} == {'MNIST'}


def test_the_readme_is_short_and_begins_with_its_figures():
    lines = first_page.split('\n')
    assert len(lines) <= 150
    assert [i for i, o in enumerate(lines) if o.startswith('| `best`')][0] < 25


def test_its_code_runs_from_data_to_prediction(sh, tmp_path):
    code = re.search(r'```python\n(.*?)```', first_page, re.S)[1]
    show = '\nprint(label, int(index), f"{probs.sum():.3f}")'
    done = sh('python', code + show, FASTAI_HOME=str(tmp_path/'home'), **offline)
    assert done.returncode == 0, done.stderr
    label, index, total = done.stdout.splitlines()[-1].split()
    assert label == index and total == '1.000'


@pytest.mark.parametrize('page', pages, ids=lambda o: o.relative_to(root).as_posix())
def test_every_file_it_links_to_is_there(page):
    links = [o.split('#')[0] for o in re.findall(r'\]\(([^)]+)\)', page.read_text(encoding='utf-8'))]
    missing = [o for o in links if not o.startswith('http') and not (page.parent/o).exists()]
    assert links and not missing


def test_every_page_of_docs_is_on_the_site():
    shown = re.search(r"for o in \(([^)]+)\)\]", (root/'tools'/'site'/'hooks.py').read_text())[1]
    assert set(re.findall(r'\w+', shown)) == {o.stem for o in root.glob('docs/*.md')}
