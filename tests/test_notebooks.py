"""Notebooks and modules are the same thing, and notebooks are clean."""
import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serving import offline

root = Path(__file__).parent.parent
bin = Path(sys.executable).parent
modules = sorted(o for o in (root/'mnist_fastai').rglob('*.py') if not o.name.startswith('_'))
stories = sorted((root/'nbs'/'stories').glob('[!.]*.ipynb'))
notebooks = [*sorted((root/'nbs').glob('[0-9]*.ipynb')), *stories]


def contents(folder, pattern): return {str(o.relative_to(folder)): o.read_text() for o in folder.rglob(pattern)}


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    "A copy of the project after export and clean"
    copy = tmp_path_factory.mktemp('fresh')
    for name in ('nbs', 'mnist_fastai'):
        shutil.copytree(root/name, copy/name, ignore=shutil.ignore_patterns('.ipynb_checkpoints', '__pycache__'))
    for name in ('pyproject.toml', 'setup.cfg', 'README.md'): shutil.copy(root/name, copy)
    for name in ('nbdev-export', 'nbdev-clean'): subprocess.run([bin/name], cwd=copy, check=True, capture_output=True)
    return copy


def test_exporting_changes_no_module(fresh):
    assert contents(fresh/'mnist_fastai', '*.py') == contents(root/'mnist_fastai', '*.py')


def test_notebooks_are_clean(fresh):
    assert contents(fresh/'nbs', '*.ipynb') == {k: v for k, v in contents(root/'nbs', '*.ipynb').items()
                                                if '.ipynb_checkpoints' not in k}


@pytest.mark.parametrize('module', modules, ids=lambda o: o.relative_to(root/'mnist_fastai').as_posix())
def test_every_module_has_its_notebook(module):
    source = re.search(r'File to edit: (?:\.\./)+(nbs/\S+\.ipynb)', module.read_text())
    assert source and (root/source[1]).is_file()


@pytest.mark.parametrize('notebook', notebooks, ids=lambda o: o.name)
def test_notebooks_keep_the_house_style(notebook):
    cells = json.loads(notebook.read_text())['cells']
    assert re.match(r'# .+\n\n> .+', ''.join(cells[0]['source'])), 'expected a title and a lead'
    for cell in cells:
        source = ''.join(cell['source'])
        if not re.match(r'#\| export', source): continue
        # A function is as long as its subject, and a class stands in one cell with its methods
        assert source.count('\n') <= 80, f'too long a cell:\n{source}'
        assert max(map(len, source.split('\n'))) <= 120, f'too long a line:\n{source}'
    assert notebook.stat().st_size < 300_000
    assert 'site-packages' not in notebook.read_text(), 'a path of the machine that ran it'
    assert not any(o.get('output_type') == 'error' for c in cells for o in c.get('outputs', []))


def names_used(story):
    "Every name and attribute in its code"
    cells = [o for o in json.loads(story.read_text())['cells'] if o['cell_type'] == 'code']
    nodes = [n for cell in cells for n in ast.walk(ast.parse(''.join(cell['source'])))]
    return {ast.unparse(n) for n in nodes if isinstance(n, ast.Name)
            or isinstance(n, ast.Attribute) and re.fullmatch(r'[\w.]+', ast.unparse(n))}


def test_doc_answers_for_every_name_in_a_story_without_a_network(sh):
    names = sorted(set.union(*map(names_used, stories)))
    done = sh('python', f'''
import json, types, warnings; warnings.simplefilter("ignore")
import mnist_fastai.all as everything
usual = types.ModuleType("usual")  # what stories call the things that they make
vars(usual).update(vars(everything), learn=everything.Learner, dls=everything.DataLoaders,
                   interp=everything.ClassificationInterpretation, reader=everything.Predictor)
def find(name):
    o = usual
    for part in name.split("."):  # of modules and classes; not `path.name` because there is a function `path`
        if not isinstance(o, (types.ModuleType, type)) or not hasattr(o, part): return
        o = getattr(o, part)
    return o if callable(o) else None
texts = {{k: everything.doc(o).data for k in {names} if (o := find(k))}}
print(json.dumps(texts))''', **offline)
    assert done.returncode == 0, done.stderr
    texts = json.loads(done.stdout)
    assert len(texts) > 100 and set(texts) > {
        'mnist_dls', 'Learner', 'learn.fit_one_cycle', 'interp.plot_top_losses', 'nn.Conv2d', 'F.conv2d', 'pd.read_csv'}
    for text in texts.values(): assert len(text) > 40 and 'LNone' not in text and '{target' not in text, text


def test_one_import_is_the_whole_vocabulary(sh):
    done = sh('python', '''
import warnings; warnings.simplefilter("ignore")
from mnist_fastai.all import *
for f, words in ((mnist_learner, ["arch", "A key of `archs`", "mnist_fastai/learner.py"]),
                 (untar_data, ["force_download", "overwrite any existing copy", "fastai/data/external.py"])):
    text = doc(f)._repr_markdown_()
    assert all(w in text for w in words), text
print(*[o.__name__ for o in (mnist_path, mnist_dls, mnist_test_dl, simple_cnn, find_lr, train, load_run, Learner, nn)])
''')
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ['mnist_path', 'mnist_dls']
