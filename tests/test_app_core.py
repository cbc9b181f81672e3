"""The page, as somebody without a browser meets it, and what it needs to be served."""
import csv
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
from conftest import listen_to_ctrl_c, only_full
from fastapi.testclient import TestClient
from PIL import Image
from serving import docker_steps, install_space, root, serving

from mnist_fastai.app.core import build_app, hard_digits, hard_files
from mnist_fastai.cli import mnist_app
from mnist_fastai.drawing import data_url
from mnist_fastai.inference import Predictor
from mnist_fastai.pictures import photos as pages


def client_of(url): return httpx.Client(base_url=url, timeout=60, trust_env=False)


@pytest.fixture
def client(app_url):
    with client_of(app_url) as client: yield client


def as_url(array): return data_url(Image.fromarray(array))  # as the canvas sends it


def send(client, drawing='', photo=None, models=('best',)):
    "What the page would send"
    data = ['photo' if photo else 'draw', drawing, photo, '', list(models)]
    return client.post('/gradio_api/run/answer', json=dict(data=data))


def ask(*args, **kwargs): return send(*args, **kwargs).raise_for_status().json()['data'][0]


def number_in(html): return re.search(r'class="number[^>]*>([^<]*)', html)[1]


@pytest.fixture(scope='module')
def seven(): return as_url(pages.drawn(np.random.default_rng(7), 7))


def test_many_at_once_get_their_own_answers(client):
    rng = np.random.default_rng(0)
    drawings = [as_url(255 - pages.drawn(rng, digit)) for digit in range(10)]
    def digit(i): return number_in(ask(client, drawings[i % 10], models=['tiny']))
    with ThreadPoolExecutor(8) as many: assert [*many.map(digit, range(40))] == [str(i % 10) for i in range(40)]


def test_no_file_of_the_machine_can_be_had(client, app_url):
    picture, meta = root/'results'/'predictions.png', dict(_type='gradio.FileData')
    for given in (dict(path=str(picture)), dict(path=str(picture), meta=meta), dict(path='/etc/passwd', meta=meta),
                  dict(path=app_url, url=app_url, meta=meta)):
        for done in (send(client, photo=given), send(client, given)):
            assert len(done.text) < 300 and (done.status_code == 500 or 'not a picture' in done.text)
        assert send(client, photo=given).status_code == 500
    for path in (picture, '/etc/passwd', 'setup.cfg'):
        assert client.get(f'/gradio_api/file={path}').status_code == 403
    path, = client.post('/gradio_api/upload', files=dict(files=('../../x.png', picture.read_bytes()))).json()
    assert 'svg' in ask(client, photo=dict(path=path, meta=meta)), 'what was sent is read'


def test_what_is_too_large_is_refused(client):
    large = b'x'*40_000_000
    for size in (2_000_000, len(large)):
        content = b'{"data": ["' + large[:size] + b'", ["best"]]}'
        assert client.post('/gradio_api/run/answer', content=content).status_code == 413
    assert client.post('/gradio_api/upload', files=dict(files=('x.png', large))).status_code == 413


@pytest.mark.parametrize('data', [
    [], [None]*5, ['draw', [1], None, '', ['best']], ['draw', 'x', None, '', 3], ['draw', {'path': 1}, 2, 3, ['best']],
    ['draw', 'data:,', None, '', ['no']], ['gallery', '', None, '99', ['best']], [[], '', None, {}, ['best']]])
def test_nonsense_does_not_stop_it(client, data, seven):
    client.post('/gradio_api/run/answer', json=dict(data=data))
    client.post('/gradio_api/run/answer', content=b'\xff{').close()
    with client_of(client.base_url) as other: assert number_in(ask(other, seven)) == '7'


def test_only_this_machine_can_see_it(app_url):
    address, port = app_url.removeprefix('http://').split(':')
    assert address == '127.0.0.1'
    with pytest.raises(ConnectionRefusedError): socket.create_connection(('127.0.0.2', int(port)))  # this machine too


def test_a_run_can_be_chosen_and_a_pickle_with_trust(trained, tmp_path, seven):
    run = shutil.copytree(trained[0], tmp_path/'mine')
    with TestClient(build_app([run, 'tiny', run/'learner.pkl'], trust=True)) as client:
        html = ask(client, seven, models=['mine', 'tiny', 'best', 'learner.pkl'])
    assert sorted(re.findall('<h2>Read by (.*?)</h2>', html)) == ['best', 'learner.pkl', 'mine', 'tiny']
    assert re.findall('class="number"[^>]*>(.)', html) == ['7']*4


refused = {'unknown model': (['nosuch'], {}, "there is no model 'nosuch'"),
           'pickle without trust': (['{run}/learner.pkl'], {}, '--trust'),
           'port': ([], dict(port=70000), '--port'),
           'host': ([], dict(host='203.0.113.1', port=0), 'cannot be at 203.0.113.1'),
           'probability': ([], dict(reject_below=2), 'not a probability')}


@pytest.mark.parametrize('name', refused)
def test_what_cannot_be_served_is_refused(name, trained, tmp_path, monkeypatch):
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))  # or `serve` sets it, for this process
    models, options, says = refused[name]
    models = [model.format(run=trained[0]) for model in models]
    with pytest.raises((ValueError, OSError), match=says): mnist_app(models, no_browser=True, **options)


def test_the_command_says_in_a_line_what_is_wrong(sh):
    done = sh('mnist-app', 'nosuch', '--no-browser')
    assert done.returncode == 1 and "there is no model 'nosuch'" in done.stderr and done.stderr.count('\n') == 1


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
    done = sh('python', 'import sys, mnist_fastai.cli, mnist_fastai.app.core as core; core.build_app(["best"]); '
              'print({"torch", "fastai", "sklearn", "matplotlib"} & {*sys.modules})')
    assert done.stdout.strip() == 'set()', done.stdout + done.stderr


# The gallery


def test_the_gallery_has_what_most_training_runs_get_wrong():
    with open(root/'results'/'mistakes.csv') as file: rows = [*csv.DictReader(file)]
    wrong = Counter(row['image'].removesuffix('.png') for row in rows if row['recipe'] in ('strong', 'best'))
    assert min(wrong[name] for name in hard_files) >= max(n for name, n in wrong.items() if name not in hard_files)
    assert len({*hard_files}) == 20


def test_the_gallery_without_mnist(monkeypatch, tmp_path):
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path))
    images, labels = zip(*hard_digits())
    assert labels == tuple(sorted([*range(10)]*2)) and {image.shape for image in images} == {(28, 28)}
    sure = Predictor().probs(np.array(images))[range(20), labels]
    assert sure.min() < .1 and sure.mean() < .8, 'they are hard'


@pytest.mark.mnist
def test_the_gallery_with_mnist():
    images, labels = zip(*hard_digits())
    assert [f'{label}' for label in labels] == [name[0] for name in hard_files]
    assert (Predictor().probs(np.array(images)).argmax(1) != labels).mean() > .5


# The container


def modules_of(name, seen):
    "The source of a module and of all that it imports of this package, except within functions"
    file = root/f'{name.replace(".", "/")}.py'
    if name in seen or not file.is_file(): return
    seen[name] = source = file.read_text()
    for dots, rest in re.findall(r'^from (\.+)([\w.]*) import', source, re.M):
        modules_of('.'.join([*name.split('.')[:-len(dots)], rest]), seen)


def test_the_container_has_what_the_page_imports():
    "And no PyTorch; `make test-full` installs it"
    names = {package for step in docker_steps() for package in step}
    modules_of('mnist_fastai.app.core', seen := {})
    assert {'mnist_fastai.app.answers', 'mnist_fastai.inference', 'mnist_fastai.pictures.finding'} <= {*seen}
    imported = {name for source in seen.values() for line in re.findall(r'^(?:from|import) (\w.*)', source, re.M)
                for name in [line.split(' import ')[0]] for name in re.findall(r'(?:^|, )(\w+)', name)}
    imported -= {*sys.stdlib_module_names, 'mnist_fastai'}
    known = dict(PIL='pillow', **dict.fromkeys(('uvicorn', 'fastapi', 'starlette', 'pydantic', 'anyio'), 'gradio'))
    assert {known.get(name, name) for name in imported} <= names and not names & {'torch', 'fastai', 'scikit-learn'}


@only_full
def test_the_container_serves_the_page(tmp_path, seven):
    "Its steps in a fresh virtual environment"
    venv = install_space(tmp_path)
    assert not [*venv.glob('lib/*/site-packages/torch')]
    with serving(python=venv/'bin'/'python') as (url, _), client_of(url) as client:
        assert number_in(ask(client, seven)) == '7'
