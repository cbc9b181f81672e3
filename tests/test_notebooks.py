"""Notebooks and modules are the same thing, laid out as CONTRIBUTING says, and an import changes nothing but itself."""
import ast
import io
import json
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace

import count
import numpy as np
import pytest
from conftest import run_command
from IPython.core.inputtransformer2 import TransformerManager
from mnist_fastai.inference import Predictor
from mnist_fastai.pictures import photos
from serving import offline

root = Path(__file__).parent.parent
bin = Path(sys.executable).parent
modules = sorted(o for o in (root/'mnist_fastai').rglob('*.py') if not o.name.startswith('_'))
stories = sorted((root/'nbs'/'stories').glob('[!.]*.ipynb'))
notebooks = [*sorted((root/'nbs').glob('[0-9]*.ipynb')), *stories]
to_python = TransformerManager().transform_cell  # `!` and `%` are IPython's


def differing(a, b, pattern):
    "The files that are not the same in two folders"
    names = {o.relative_to(folder).as_posix() for folder in (a, b) for o in folder.rglob(pattern)}
    def content(file): return file.read_bytes() if file.exists() else None
    return sorted(o for o in names if '.ipynb_checkpoints' not in o and content(a/o) != content(b/o))


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    "A copy of the project after export and clean"
    copy = tmp_path_factory.mktemp('fresh')
    for name in ('nbs', 'mnist_fastai'):
        shutil.copytree(root/name, copy/name, ignore=shutil.ignore_patterns('.ipynb_checkpoints', '__pycache__'))
    for name in ('pyproject.toml', 'setup.cfg', 'README.md'): shutil.copy(root/name, copy)
    for name in ('nbdev-export', 'nbdev-clean'): subprocess.run([bin/name], cwd=copy, check=True, capture_output=True)
    return copy


def test_exporting_changes_no_module(fresh): assert not differing(fresh/'mnist_fastai', root/'mnist_fastai', '*.py')


def test_notebooks_are_clean(fresh): assert not differing(fresh/'nbs', root/'nbs', '*.ipynb')


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
        if cell['cell_type'] != 'code' or notebook not in stories and not re.match(r'#\| *export', source): continue
        longest = max(source.split('\n'), key=len)
        assert len(longest) <= (88 if notebook in stories else 120), f'too long a line: {longest}'
    assert notebook.stat().st_size < 300_000
    assert 'site-packages' not in notebook.read_text(), 'a path of the machine that ran it'
    assert 'widget-view' not in notebook.read_text(), 'a stored widget is dead: clear this output'
    assert not any(o.get('output_type') == 'error' for c in cells for o in c.get('outputs', []))


@pytest.mark.parametrize('notebook', notebooks, ids=lambda o: o.name)
def test_links_lead_to_files(notebook):
    texts = [''.join(o['source']) for o in json.loads(notebook.read_text())['cells'] if o['cell_type'] == 'markdown']
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', '\n'.join(texts))
    assert not [o for o in links if not (notebook.parent/o).exists()]


def test_each_story_opens_in_colab():
    colab = 'https://colab.research.google.com'
    for story in stories:
        link = f'{colab}/github/mnist-fastai/mnist_fastai/blob/main/{story.relative_to(root).as_posix()}'
        first = ''.join(json.loads(story.read_text())['cells'][0]['source'])
        assert f'\n\n[![Open in Colab]({colab}/assets/colab-badge.svg)]({link})' in first, story.name


def test_stories_install_themselves_in_colab_and_nowhere_else(monkeypatch):
    code, = {to_python(''.join(json.loads(o.read_text())['cells'][1]['source'])) for o in stories}
    done = []
    shell = SimpleNamespace(system=done.append, run_line_magic=lambda name, rest: done.append(f'{name} {rest}'))
    exec(code, dict(get_ipython=lambda: shell))
    assert not done
    monkeypatch.setitem(sys.modules, 'google.colab', ModuleType('google.colab'))
    exec(code, dict(get_ipython=lambda: shell))
    assert done == ['cd -q /content', 'git clone -q --depth 1 https://github.com/mnist-fastai/mnist_fastai',
                    'cd -q mnist_fastai/nbs/stories', 'pip install -q ../..']


def run_upload_cells(name, **names):
    "The cells of a story that read what is uploaded, with what the story has made before: their names, what they show"
    shown = []
    names |= dict(io=io, display=lambda *args: shown.extend(args))
    for cell in json.loads((root/'nbs'/'stories'/f'{name}.ipynb').read_text())['cells']:
        if cell['cell_type'] == 'code' and 'read_uploads' in (code := ''.join(cell['source'])): exec(code, names)
    return SimpleNamespace(**names), shown


def uploaded(content):
    "As a browser sends it to ipywidgets 8"
    about = dict(name='a.png', type='image/png', size=len(content), last_modified=datetime.now())
    return dict(about, content=memoryview(content))


@pytest.fixture(scope='module')
def seven():
    "A photo of a 7, and its file"
    rng = np.random.default_rng(0)
    image = photos.photo(rng, np.pad(photos.drawn(rng, 7, 150), 80), 'pen')
    image.save(file := io.BytesIO(), 'png')
    return image, file.getvalue()


def test_the_first_story_reads_what_is_uploaded(seven):
    photo, file = seven
    story, shown = run_upload_cells('01_first_learner', photo=photo, reader=Predictor('tiny'),
                                    found=SimpleNamespace(digit=7), test_eq=lambda a, b: None)
    assert story.answer.digit == 7
    story.button.click()
    assert not shown  # nothing has been uploaded yet
    story.upload.value = uploaded(file), uploaded(b'no picture')
    story.button.click()
    good, bad = shown
    assert good.digit == 7 and 'picture' in bad.reason
    assert story.read_uploads({'a.png': dict(metadata={}, content=file)})[0].digit == 7  # as ipywidgets 7 has it


def test_own_digits_are_read_by_the_model_chosen(seven, capsys):
    page, file = seven
    story, shown = run_upload_cells('your_own_digits', page=page, Predictor=Predictor)
    printed = [o.split()[:2] for o in capsys.readouterr().out.splitlines()]
    assert printed[:3] == [['best', '7'], ['strong', '7'], ['tiny', '7']]
    best = shown.pop()  # of the story's own page, as long as nothing has been uploaded
    story.choice.value = 'tiny'
    tiny = shown.pop()
    assert [o.text for o in best] == [o.text for o in tiny] == ['7'] and best.digits[0].prob != tiny.digits[0].prob
    story.upload.value = uploaded(file), uploaded(b'no picture')
    good, bad = shown
    assert good.digits[0].prob == tiny.digits[0].prob and 'picture' in bad.reason
    assert story.read_uploads('tiny', {'a.png': dict(metadata={}, content=file)})[0][0].text == '7'


def names_used(story):
    "Every name and attribute in its code"
    cells = [o for o in json.loads(story.read_text())['cells'] if o['cell_type'] == 'code']
    nodes = [n for cell in cells for n in ast.walk(ast.parse(to_python(''.join(cell['source']))))]
    return {ast.unparse(n) for n in nodes if isinstance(n, ast.Name)
            or isinstance(n, ast.Attribute) and re.fullmatch(r'[\w.]+', ast.unparse(n))}


@pytest.fixture(scope='module')
def process(tmp_path_factory):
    "What a fresh process says of fastai and torch before and after importing the package, of `all` and of `doc`"
    names = sorted({'untar_data'}.union(*map(names_used, stories)))
    done = run_command('python', f"""
import importlib, json, types, warnings; warnings.simplefilter("ignore")
import fastai.vision.all as vision, pandas, torch
from fastai.callback.fp16 import CastToTensor
from fastai.learner import AvgSmoothLoss, Learner, Recorder
classes = Learner, CastToTensor, Recorder, AvgSmoothLoss, torch.nn.CrossEntropyLoss, torch.nn.Module
def state(): return {{f"{{o.__name__}}.{{k}}": v for o in classes for k, v in vars(o).items()}} | vars(vision)
def is_ours(o): return str(getattr(o, "__module__", "")).startswith("mnist_fastai")
before, usual = state(), sorted(k for k in vars(vision) if k[0] != "_")
for o in {sorted(count.module_files())}: importlib.import_module("mnist_fastai." + o)
after = state()
changed = [k for k, v in before.items() if after.get(k) is not v]
changed += [k for k, v in after.items() if k not in before and (is_ours(v) or "CrossEntropyLoss" in k)]

import mnist_fastai.all as everything
from mnist_fastai.showdoc import doc
words = vars(vision) | {{k: getattr(everything, k) for k in everything.__all__}}
words |= dict(learn=Learner, dls=vision.DataLoaders, interp=vision.ClassificationInterpretation,
              reader=everything.Predictor, doc=doc)  # what stories call the things that they make
def find(name):
    first, *parts = name.split(".")
    o = words.get(first)
    for part in parts:  # of modules and classes; not `path.name` because there is a function `path`
        if not isinstance(o, (types.ModuleType, type)) or not hasattr(o, part): return
        o = getattr(o, part)
    return o if callable(o) else None
texts = {{k: doc(o).data for k in {names} if (o := find(k))}}
print(json.dumps(dict(changed=changed, all=everything.__all__, fastai=usual, texts=texts)))""",
                       cwd=tmp_path_factory.mktemp('process'), **offline)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_changes_nothing_of_fastai_or_torch(process): assert not process['changed']


def test_all_is_short_and_hides_nothing_of_fastai(process):
    names = process['all']
    assert len(names) == len(set(names)) <= 50
    assert not set(names) & set(process['fastai'])
    assert {'mnist_path', 'mnist_dls', 'mnist_learner', 'find_lr', 'train', 'load_run', 'load_pretrained'} < set(names)


def test_doc_answers_for_every_name_in_a_story_without_a_network(process):
    texts = process['texts']
    assert len(texts) > 100 and set(texts) > {
        'mnist_dls', 'Learner', 'learn.fit_one_cycle', 'interp.plot_top_losses', 'nn.Conv2d', 'F.conv2d', 'pd.read_csv'}
    for text in texts.values(): assert len(text) > 40 and 'LNone' not in text and '{target' not in text, text
    for name, words in (('mnist_learner', ('arch', 'A key of `archs`', 'mnist_fastai/learner.py')),
                        ('untar_data', ('force_download', 'overwrite any existing copy', 'fastai/data/external.py'))):
        assert all(o in texts[name] for o in words), texts[name]


def test_imports_go_one_way():
    assert not count.cycle(count.import_graph()), 'a cycle'


def test_a_cycle_would_be_found(tmp_path):
    for name, text in (('a', 'from .b.c import x'), ('d', 'from mnist_fastai import a'),
                       ('b/c', 'def f():\n    from ..d import y')):
        file = tmp_path/'mnist_fastai'/f'{name}.py'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert count.import_graph(tmp_path) == {'a': {'b.c'}, 'b.c': {'d'}, 'd': {'a'}}
    assert count.cycle(count.import_graph(tmp_path)) == ['a', 'b.c', 'd']


def test_no_module_is_too_long_to_read():
    lengths = {name: len(file.read_text().splitlines()) for name, file in count.module_files().items()}
    assert not {name: n for name, n in lengths.items() if n > 350}


def test_a_name_is_defined_in_one_module(): assert not count.names_defined_twice()


def test_what_is_exported_is_shown():
    found = {o.name: count.exports(o) for o in notebooks if o not in stories}
    every = sum(found.values(), [])
    assert sum(map(bool, every))/len(every) >= .6, 'exports that prose, a demo or a test follows'
    assert not {name: n for name, o in found.items() if (n := count.longest_bare_row(o)) > 3}, 'bare exports in a row'
