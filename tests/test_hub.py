"""A bundle on the Hugging Face hub: a stand-in for its HTTP API, on loopback."""
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mnist_fastai import cli
from mnist_fastai.hub import push_to_hub

hub = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed: pip install huggingface_hub')


@pytest.fixture
def stand_in(monkeypatch):
    "What was uploaded, by name; requests without the right token are refused, as by the hub"
    uploaded = {}
    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_): pass

        def answer(self, status=200, **content):
            body = json.dumps(content).encode()
            self.send_response(status)
            for k, v in (('Content-Type', 'application/json'), ('Content-Length', len(body))): self.send_header(k, v)
            self.end_headers()
            self.wfile.write(body)

        def is_refused(self):
            if self.headers.get('Authorization') == 'Bearer hf_right': return False
            self.answer(401, error='Invalid username or password.')
            return True

        def do_GET(self):
            if self.is_refused(): return
            if self.path.startswith('/api/whoami'): return self.answer(name='somebody', type='user', orgs=[])
            self.answer(id='somebody/seven', sha='0'*40, siblings=[])

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
            if self.is_refused(): return
            if self.path == '/api/repos/create':
                return self.answer(url=f'{address}/somebody/seven', name='somebody/seven', id='1')
            if '/preupload/' in self.path:
                return self.answer(files=[dict(path=o['path'], uploadMode='regular', shouldIgnore=False, oid=None)
                                          for o in json.loads(body)['files']])
            if '/commit/' not in self.path: return self.answer()
            for line in map(json.loads, body.splitlines()):
                if line['key'] == 'file': uploaded[line['value']['path']] = base64.b64decode(line['value']['content'])
            self.answer(success=True, commitOid='0'*40, commitUrl=f'{address}/somebody/seven/commit/0', hookOutput='')

    with ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        monkeypatch.setattr('huggingface_hub.HfApi.__init__', with_endpoint(hub.HfApi.__init__, address))
        monkeypatch.setenv('HF_TOKEN', 'hf_right')
        yield uploaded
        server.shutdown()


def with_endpoint(init, address):
    def new(self, *args, **kwargs): init(self, *args, **{'endpoint': address, **kwargs})
    return new


def test_the_bundle_is_uploaded_with_its_card_and_without_code(exported, stand_in):
    _, files = exported
    address = push_to_hub(files, 'seven')
    assert address.endswith('/somebody/seven')
    uploaded = stand_in
    assert sorted(uploaded) == ['README.md', 'mine.json', 'mine.onnx', 'mine.safetensors'], 'and no pickle'
    by_suffix = {o.suffix: o.read_bytes() for o in files}
    assert uploaded['mine.onnx'] == by_suffix['.onnx'] and uploaded['mine.json'] == by_suffix['.json']
    assert uploaded['README.md'].startswith(b'---\n') and uploaded['README.md'].endswith(by_suffix['.md'])


def test_the_command_writes_uploads_and_says_where(exported, stand_in, tmp_path, capsys):
    cli.mnist_export(str(exported[0]), str(tmp_path/'mine'), to=['hub', 'seven'])
    assert capsys.readouterr().out.splitlines()[-1].endswith('/somebody/seven')
    assert 'mine.onnx' in stand_in
    with pytest.raises(ValueError, match='expected hub USER/NAME'): cli.mnist_export('run', to=['moon', 'seven'])


@pytest.mark.fault('network away or slow')
def test_a_refusal_is_one_sentence_and_uploads_nothing(exported, stand_in, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_wrong')
    with pytest.raises(ValueError, match='the hub refuses: .*log in with: hf auth login') as e:
        push_to_hub(exported[1], 'seven')
    assert '\n' not in str(e.value) and not stand_in
