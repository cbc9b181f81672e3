"""The network that finds digits is asked within bounds, and is the one that its JSON is about."""
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from known_pages import drawn_page
from PIL import Image

from mnist_fastai.pictures import looking, photos
from mnist_fastai.pictures.finding import find_digit, find_digits


def test_a_look_is_never_at_more_pixels_than_fit_in_memory(monkeypatch):
    session, seen = looking.finder_session(), []
    class Watched:
        def run(self, outputs, given):
            seen.append(given['picture'].shape)
            return session.run(outputs, given)
    monkeypatch.setattr(looking, 'finder_session', Watched)
    rng = np.random.default_rng(0)
    tiny, _ = photos.written(rng, [photos.others(rng, 60)[0]]*2, height=12)
    for image in (photos.photo(rng, tiny).resize((4000, 300)), Image.new('L', (6000, 60), 255), drawn_page(seed=2)):
        for find in (find_digit, find_digits):
            try: find(image)
            except ValueError as e: assert 'there is no digit' in str(e)
    seen = np.array(seen)
    area = seen[:, 2]*seen[:, 3]
    assert len(seen) > 6 and (seen[:, 2:] % looking.step == 0).all()
    assert area.max() <= 1.1*looking.most_seen  # sides are rounded


def test_the_network_is_the_one_that_its_json_is_about():
    file = Path(looking.__file__).with_name('finder.json')
    if not file.exists(): pytest.skip('the network that comes with the package has no finder.json yet')
    content = file.with_suffix('.onnx').read_bytes()
    assert hashlib.sha256(content).hexdigest() == json.loads(file.read_text())['onnx_sha256']
    assert len(content) < 1_000_000 and file.with_suffix('.md').exists()


def test_a_page_full_of_specks_takes_no_longer_than_a_page():
    specks = np.where(np.random.default_rng(0).random((1400, 1400)) < .02, 0, 255).astype(np.uint8)
    started = time.perf_counter()
    try: find_digits(specks)
    except ValueError: pass
    assert time.perf_counter() - started < 30


def test_a_part_in_doubt_is_only_taken_apart_when_somebody_asks(monkeypatch):
    grey = np.asarray(drawn_page('31').convert('L'))
    calls, plain = [], looking.group_by_centre
    monkeypatch.setattr(looking, 'group_by_centre', lambda *args: calls.append(1) or plain(*args))
    parts, doubtful, height = looking.all_parts(*looking.look(grey, 200)[:2])
    assert len(parts) == 2 and height > 20 and len(calls) == 1
    for whole, pieces in doubtful: assert whole in parts and len(pieces) > 1
    assert len(calls) == 3
