"""The service, as programs meet it over HTTP: its answers are those of the commands, and whatever comes, it goes on."""
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import uvicorn
from known_pages import drawn, drawn_page, saved
from PIL import Image
from serving import root, serving

from mnist_fastai.cli import mnist_predict, mnist_read, mnist_serve
from mnist_fastai.inference import Predictor
from mnist_fastai.pictures.finding import to_mnist
from mnist_fastai.service import BatchReader, Limits, load_readers, service_app


def png(image): return saved(image if isinstance(image, Image.Image) else Image.fromarray(image))


four, small, page = png(drawn(4)), png(to_mnist(drawn(7))), png(drawn_page('314159\n2653', 0, 'shadow'))


def client_of(url, **kwargs): return httpx.Client(base_url=url, timeout=60, trust_env=False, **kwargs)


@pytest.fixture(scope='module')
def service():
    "The address of `mnist-serve best tiny` and its process"
    with serving('best', 'tiny', '--seconds', 60, command='serve') as started: yield started  # a machine may be busy


@pytest.fixture
def client(service):
    with client_of(service[0]) as client: yield client


@contextmanager
def running(app):
    "A client of an app that a thread of this process serves"
    with socket.create_server(('127.0.0.1', 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level='critical'))
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listening]))
        thread.start()
        try:
            with client_of(f'http://127.0.0.1:{listening.getsockname()[1]}') as client: yield client
        finally:
            server.should_exit = True
            thread.join()


def refusal(done, status):
    "The sentence of an error"
    assert done.status_code == status, done.text
    said, = done.json().items()
    assert said[0] == 'detail' and isinstance(said[1], str) and '\n' not in said[1] and 'Traceback' not in said[1]
    return said[1]


@pytest.mark.parametrize('path, picture, command', [
    ('/predict', four, mnist_predict), ('/predict', small, mnist_predict), ('/read', page, mnist_read),
    ('/read', four, mnist_read)])
def test_it_answers_what_the_commands_print(client, path, picture, command, tmp_path, capsys):
    (tmp_path/'a.png').write_bytes(picture)
    command([str(tmp_path/'a.png')], json=True)
    known, = json.loads(capsys.readouterr().out)
    as_curl_sends_it = {'content-type': 'application/x-www-form-urlencoded'}
    for done, name in ((client.post(path, content=picture), '-'),
                       (client.post(path, content=picture, headers=as_curl_sends_it), '-'),
                       (client.post(path, files=dict(file=('a.png', picture))), 'a.png')):
        assert done.status_code == 200 and done.headers['content-type'] == 'application/json'
        assert done.json() == [known | dict(file=name)]


def test_a_form_may_have_several_pictures(client):
    done = client.post('/predict', files=[('file', (name, o)) for name, o in (
        ('4.png', four), ('note.txt', b'hello'), ('7.png', small), ('none.png', b''))])
    rows = done.json()
    assert [o['file'] for o in rows] == ['4.png', 'note.txt', '7.png', 'none.png']
    assert [o['digit'] for o in rows] == [4, None, 7, None]
    assert 'is not a picture' in rows[1]['reason'] and rows[1]['reason'] == rows[3]['reason']


def test_more_digits_and_another_model_can_be_asked_for(client):
    one, = client.post('/predict', content=four, params=dict(top=3, model='tiny')).json()
    assert one['digit'] == 4 and len({one[k] for k in ('digit', 'digit_2', 'digit_3')}) == 3
    assert one['probability'] != client.post('/predict', content=four).json()[0]['probability']
    for params, said in ((dict(top=0), 'top: '), (dict(top='x'), 'top: '), (dict(model='tinny'), "mean 'tiny'")):
        assert said in refusal(client.post('/predict', content=four, params=params), 422)


bomb = png(Image.new('1', (20_000, 20_000)))


refused = {
    'text': (b'hello', 422, 'is not a picture'),
    'a web address': (b'http://127.0.0.1/a.png', 422, 'is not a picture'),
    'a path': (str(root/'results'/'predictions.png').encode(), 422, 'is not a picture'),
    'JSON': (b'{"url": "http://127.0.0.1/a.png"}', 422, 'is not a picture'),
    'nothing': (b'', 422, 'there is no picture'),
    'half a picture': (four[:len(four)//2], 422, 'is damaged'),
    'its first bytes': (four[:20], 422, ''),
    'a picture without a digit': (png(np.full((60, 60), 200, np.uint8)), 422, 'there is no digit'),
    'an EPS': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n', 422, 'is not a picture'),
    'many pixels': (png(Image.new('1', (6000, 6000))), 413, 'at most 25,000,000'),
    'a bomb': (bomb, 422, 'too large'),
    'a large file': (b'x'*21*2**20, 413, 'at most 20,971,520 bytes'),
    'a very large file': (b'x'*40*2**20, 413, 'at most 20,971,520 bytes')}


@pytest.mark.parametrize('path', ['/predict', '/read'])
@pytest.mark.parametrize('kind', refused)
def test_what_cannot_be_read_is_refused_in_a_sentence(client, kind, path):
    content, status, said = refused[kind]
    assert said in refusal(client.post(path, content=content), status)
    if content: assert said in refusal(client.post(path, files=dict(file=('a.png', content))), status)


form = 'multipart/form-data; boundary=x'


@pytest.mark.parametrize('content, kind, status', [
    (b'--x\r\nnonsense', form, 400), (b'', form, 400), (four, 'multipart/form-data', 400),
    (b'--x\r\n\r\nhello\r\n--x--\r\n', form, 400), (four, 'multipart/form-data; boundary=' + 'y'*300, 400),
    (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--x--\r\n', form, 422),
    (b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nhello\r\n--x--\r\n', form, 422),
    (b'--x\r\nContent-Disposition: form-data; name="file"; filename="\\ud800"\r\n\r\nhello\r\n--x--\r\n',
     form + '; charset=unicode_escape', 422),
    (b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xff"\r\n\r\nhello\r\n--x--\r\n',
     form + '; charset=idna', 422)])
def test_a_broken_form_is_refused_in_a_sentence(client, content, kind, status):
    done = client.post('/predict', content=content, headers={'content-type': kind})
    refusal(done, done.status_code)
    assert done.status_code in (400, 422)


def test_what_it_does_not_have_is_said(client):
    refusal(client.get('/predict'), 405)
    refusal(client.post('/nosuch'), 404)
    refusal(client.post('/health', content=b'x'*2_000_000), 405)


def test_a_stranger_is_not_answered(client):
    "No other name may lead here, and no page of another site may read an answer"
    port = client.base_url.port
    for host in ('evil.example', f'evil.example:{port}', '127.0.0.1.evil.example', '', 'localhost.', '[::1', '0.0.0.0'):
        for path in ('/health', '/docs', '/openapi.json', '/nosuch'):
            assert '--names' in refusal(client.get(path, headers=dict(host=host)), 400)
    for host in ('127.0.0.1', f'LOCALHOST:{port}', f'[::1]:{port}'):
        assert client.get('/health', headers=dict(host=host)).status_code == 200
    origin = {'origin': 'http://evil.example', 'access-control-request-method': 'POST'}
    for done in (client.options('/predict', headers=origin), client.post('/predict', content=four, headers=origin)):
        assert not [o for o in done.headers if o.startswith('access-control')]


def test_its_state_and_its_description(client):
    assert client.get('/health').json() | dict(version='') == dict(
        status='ok', version='', models=['best', 'tiny'], under_way=0)
    spec, docs = client.get('/openapi.json').json(), client.get('/docs')
    assert {*spec['paths']} == {'/predict', '/read', '/health'}
    assert {*spec['paths']['/predict']['post']['responses']} == {'200', '400', '413', '422', '503'}
    assert all(o in docs.text for o in ('POST /predict', 'POST /read', 'GET /health', 'probability_2', '?top=1'))
    assert not re.findall('(?:src|href)=', docs.text), 'it loads nothing'


def test_the_lines_in_the_readme_work(client, tmp_path, monkeypatch, capsys):
    (tmp_path/'page.jpg').write_bytes(page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('no_proxy', '*')
    text = (root/'README.md').read_text().replace('http://127.0.0.1:8000', str(client.base_url).rstrip('/'))
    code, = re.findall('```python\n([^`]*urllib[^`]*)```', text)
    assert len(code.splitlines()) == 5
    exec(code, {})
    assert capsys.readouterr().out == "['314159', '2653']\n"
    assert 'curl -F file=@photo.jpg http://127.0.0.1:8000/predict' in (root/'README.md').read_text()


# What comes together


def batches_of(reader):
    "The sizes of the batches that a `Predictor` will read"
    sizes, predict_batch = [], reader.predict_batch
    def counted(pictures):
        sizes.append(len(found := predict_batch(pictures)))
        return found
    reader.predict_batch = counted
    return sizes


def test_what_arrives_together_is_read_in_one_batch(monkeypatch):
    monkeypatch.setattr('mnist_fastai.service.os.cpu_count', lambda: 1)
    monkeypatch.setattr('mnist_fastai.service.patience', 60)  # on a busy machine it would end in the middle
    readers = load_readers(['tiny'])
    sizes, go = batches_of(readers['tiny']), threading.Event()
    readers['tiny'].read_batch = lambda pictures: [go.wait(30) and Predictor('tiny').read(o) for o in pictures]
    with running(service_app(readers)) as client, ThreadPoolExecutor(21) as many:
        slow = many.submit(client.post, '/read', content=page)
        while client.get('/health').json()['under_way'] < 1: time.sleep(.01)
        answers = [many.submit(client.post, '/predict', content=png(to_mnist(drawn(i % 10)))) for i in range(20)]
        while client.get('/health').json()['under_way'] < 21: time.sleep(.01)
        time.sleep(.1)
        go.set()
        assert [o.result().json()[0]['digit'] for o in answers] == [i % 10 for i in range(20)]
        assert slow.result().json()[0]['lines'][0]['text'] == '314159'
    assert sizes == [20]


def test_one_that_cannot_be_read_does_not_harm_those_that_came_with_it():
    tiny = Predictor('tiny')
    def fail(pictures):
        if b'bad' in (pictures := [*pictures]): raise RuntimeError('as no picture should')
        return tiny.predict_batch(pictures)
    reading = BatchReader(10**6, threads=1)
    with reading.changed: asked = [reading.ask(fail, o) for o in (four, b'bad', small)]
    assert [asked[i].result(30).digit for i in (0, 2)] == [4, 7]
    with pytest.raises(RuntimeError): asked[1].result(30)


def test_many_at_once_get_their_own_answers(client):
    pictures = [png(drawn(i)) for i in range(10)] + [png(to_mnist(drawn(i))) for i in range(10)] + [four[:90]]
    def one(i):
        done = client.post('/predict', content=pictures[i % 21])
        return done.json()[0]['digit'] if done.status_code == 200 else None
    with ThreadPoolExecutor(20) as many: found = [*many.map(one, range(63))]
    assert found == [None if i % 21 == 20 else i % 21 % 10 for i in range(63)]


# Limits


@pytest.fixture(scope='module')
def strict():
    "A client of a service with small limits, whose model hangs when a page is read"
    readers, go = load_readers(['tiny']), threading.Event()
    readers['tiny'].read_batch = lambda pictures: [go.wait(30) and None for _ in pictures]
    limits = Limits(megabytes=5000/2**20, pixels=10_000, seconds=.3, waiting=3)
    with running(service_app(readers, limits=limits)) as client:
        yield client
        go.set()


def test_bytes_and_pixels_are_limited(strict):
    assert strict.post('/predict', content=small).status_code == 200
    assert '5,000 bytes' in refusal(strict.post('/predict', content=four + b'x'*5000), 413)
    assert 'at most 10,000' in refusal(strict.post('/predict', content=png(Image.new('L', (101, 100)))), 413)


def test_an_answer_comes_in_time_or_says_that_it_does_not(strict):
    start = time.monotonic()
    assert 'within 0.3 seconds' in refusal(strict.post('/read', content=small), 503)
    def slowly():
        for i in range(20): yield small[i:i + 1]; time.sleep(.05)
    assert 'within 0.3 seconds' in refusal(strict.post('/predict', content=slowly()), 503)
    assert time.monotonic() - start < 10 and strict.get('/health').json()['under_way'] == 0


def test_only_so_many_wait(strict):
    with ThreadPoolExecutor(10) as many:
        done = [*many.map(lambda _: strict.post('/read', content=small), range(10))]
    said = [refusal(o, 503) for o in done]
    busy = [o for o, text in zip(done, said) if 'too much is asked at once' in text]
    assert 1 <= len(busy) <= 7 and all(o.headers['retry-after'] == '1' for o in busy)


# The command


def test_who_goes_away_does_not_stop_it(service, client):
    host, port = client.base_url.host, client.base_url.port
    head = f'POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n'.encode()
    for sent in (head, head + four[:500], head + four[:500]*2, b'\xff'*50, b''):
        with socket.create_connection((host, port)) as s: s.sendall(sent)
    assert client.post('/predict', content=four).json()[0]['digit'] == 4
    assert client.get('/health').json()['under_way'] == 0
    service[1].log.seek(0)
    assert 'Traceback' not in service[1].log.read()


def test_it_loads_neither_torch_nor_gradio(sh):
    done = sh('python', 'import sys, mnist_fastai.cli\nfrom mnist_fastai.service import load_readers, service_app\n'
              'service_app(load_readers(["best"]))\n'
              'print({"torch", "fastai", "gradio", "sklearn", "pandas", "matplotlib", "onnx"} & {*sys.modules})')
    assert done.stdout.strip() == 'set()', done.stdout + done.stderr


@pytest.mark.parametrize('models, options, says', [
    (['nosuch'], {}, "there is no model 'nosuch'"), ([], dict(port=70000), 'the service cannot be at'),
    ([], dict(host='203.0.113.1', port=0), 'cannot be at 203.0.113.1'), ([], dict(reject_below=2), 'not a probability'),
    ([], dict(waiting=-1), 'waiting=-1'), ([], dict(seconds=-1), 'seconds=-1')])
def test_what_cannot_be_served_is_refused(models, options, says):
    with pytest.raises((ValueError, OSError), match=says): mnist_serve(models, **options)


def test_the_page_has_the_same_routes(app_url):
    with client_of(app_url) as client:
        assert client.post('/predict', content=four).json()[0]['digit'] == 4
        assert client.post('/read', content=small, params=dict(model='tiny')).json()[0]['lines'][0]['text'] == '7'
        assert client.get('/health').json()['models'] == ['best', 'strong', 'tiny']
        assert {*client.get('/openapi.json').json()['paths']} == {'/predict', '/read', '/health'}
        assert 'Which digit' in client.get('/').text
        for path in ('/', '/config', '/gradio_api/info'):
            assert '--names' in refusal(client.get(path, headers=dict(host='evil.example')), 400)
        done = client.get('/config', headers=dict(origin='http://evil.example'))
        assert not [o for o in done.headers if o.startswith('access-control')]
