"""The service under load, beside the page: `python results/service.py`, four minutes; `--quick`: a twentieth of it"""
import asyncio
import base64
import io
import json
import statistics
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from mnist_fastai.environment import environment
from mnist_fastai.pictures import photos
from mnist_fastai.pictures.finding import to_mnist
from mnist_fastai.utils import write_json

here = Path(__file__).parent
sys.path.insert(0, str(here.parent/'tests'))
from serving import serving  # noqa: E402


def png(array):
    Image.fromarray(array).save(file := io.BytesIO(), 'png')
    return file.getvalue()


rng = np.random.default_rng(0)
drawings = [255 - photos.drawn(rng, i % 10, 224) for i in range(50)]  # as the page's canvas sends them
pictures = {'28 x 28': [png(to_mnist(o)) for o in drawings], 'drawn, 224 x 224': [png(o) for o in drawings]}


def request(path, body, kind): return (f'POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n'
                                       f'Content-Length: {len(body)}\r\n\r\n').encode() + body


def to_service(picture): return request('/predict', picture, 'image/png')


def to_page(picture):
    url = 'data:image/png;base64,' + base64.b64encode(picture).decode()
    return request('/gradio_api/run/answer', json.dumps(dict(data=['draw', url, None, '', ['best']])).encode(),
                   'application/json')


async def ask_all(url, requests, at_once):
    "(status, milliseconds) of each request, so many at a time; a client that takes little of the machine's time itself"
    requests, found = iter(requests), []
    async def one_after_the_other():
        reader, writer = await asyncio.open_connection('127.0.0.1', urlsplit(url).port)
        for content in requests:
            start = time.perf_counter()
            writer.write(content)
            head = (await reader.readuntil(b'\r\n\r\n')).decode().lower()
            await reader.readexactly(int(head.partition('content-length: ')[2].partition('\r')[0]))
            found.append((int(head.split()[1]), 1000*(time.perf_counter() - start)))
        writer.close()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return found


def load(url, requests, at_once):
    "Its speed: the median and the slowest hundredth, in milliseconds, and answers a second"
    start = time.perf_counter()
    found = asyncio.run(ask_all(url, requests, at_once))
    took, statuses = time.perf_counter() - start, Counter(status for status, _ in found)
    assert {*statuses} == {200}, statuses
    median, p99 = np.quantile([ms for _, ms in found], [.5, .99]).round(1).tolist()
    return dict(median=median, p99=p99, a_second=round(len(found)/took, 1))


def memory(server):
    "MB of RAM that a process has (Linux)"
    lines = Path(f'/proc/{server.pid}/status').read_text().splitlines()
    return int(next(o for o in lines if o.startswith('VmRSS')).split()[1])//1024


def bad_inputs():
    "What is no picture, or none that can be read"
    good = pictures['drawn, 224 x 224'][0]
    broken = [bytes(rng.permutation(np.frombuffer(good, np.uint8))) if i % 2 else good[:rng.integers(len(good))]
              for i in range(300)]
    flipped = []
    for _ in range(300):
        a = np.frombuffer(good, np.uint8).copy()
        a[rng.integers(len(a), size=5)] = rng.integers(256, size=5)
        flipped.append(a.tobytes())
    form = 'multipart/form-data; boundary=x'
    return [request(path, o, kind) for path in ('/predict', '/read') for o in (b'', b'hello', *broken, *flipped)
            for kind in ('image/png', form)]


def measure(quick):
    n, rounds = (20, 1) if quick else (1, 3)
    found, begin = {'page': [], 'service': []}, time.perf_counter()
    with serving('best') as (page, page_process):
        starts = dict(page=time.perf_counter() - begin)
        begin = time.perf_counter()
        with serving('best', command='serve') as (service, process):
            starts['service'] = time.perf_counter() - begin
            programs = dict(page=(page, to_page, 400//n, page_process), service=(service, to_service, 2000//n, process))
            for url, form, _, _ in programs.values():  # warm, and as large as after its first answers
                load(url, [form(o) for kind in pictures.values() for o in kind[:5]], 2)
            small = {name: memory(o[3]) for name, o in programs.items()}
            for i in range(rounds):
                for kind, files in pictures.items():
                    for at_once in (1, 20):
                        for name, (url, form, many, _) in programs.items():
                            requests = [form(o) for o in files]
                            row = load(url, [requests[j % 50] for j in range(many)], at_once)
                            found[name].append(dict(round=i + 1, pictures=kind, at_once=at_once, **row))
                            print(name, found[name][-1], flush=True)
            statuses = Counter(status for status, _ in asyncio.run(ask_all(service, bad_inputs()[::n], 20)))
            print('bad inputs', statuses)
            requests, steady = [to_service(o) for kind in pictures.values() for o in kind], [memory(process)]
            for _ in range(10):
                load(service, [requests[j % 100] for j in range(2000//n)], 20)
                steady.append(memory(process))
            print('memory', steady)
    return dict(rounds=found, start_seconds={k: round(o, 2) for k, o in starts.items()}, first_mb=small,
                bad_inputs={str(k): o for k, o in sorted(statuses.items())}, steady_requests=10*(2000//n),
                steady_mb=steady,
                versions={o: version(o) for o in ('fastapi', 'uvicorn', 'gradio')}, environment=environment())


if __name__ == '__main__':
    result = measure(quick='--quick' in sys.argv)
    for kind in pictures:
        page, service = (statistics.median(o['a_second'] for o in result['rounds'][name]
                                           if o['pictures'] == kind and o['at_once'] == 20)
                         for name in ('page', 'service'))
        print(f'{kind}: {service/page:.1f} times as many answers a second as the page')
    write_json(here/'service.json', result)
