"""Any picture is opened, or refused with one clear error."""
import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from conftest import full, only_full
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from known_pages import drawn, overlap, page, saved
from PIL import Image

from mnist_fastai.inference import Predictor
from mnist_fastai.pictures.finding import find_digit, find_digits, to_mnist
from mnist_fastai.pictures.opening import most_contrast, reduced, upright


@pytest.fixture(scope='module')
def photo(): return page(1, 'shadow')[0]


@pytest.fixture(scope='module')
def found(photo): return find_digits(photo)


def test_every_way_to_give_the_same_picture_gives_the_same_pixels(photo, found, tmp_path):
    photo.save(tmp_path/'page.png')
    pixels, (known, _) = np.asarray(photo), upright(photo, 1000)
    ways = dict(path=tmp_path/'page.png', text=str(tmp_path/'page.png'), bytes=saved(photo), array=pixels,
                file=io.BytesIO(saved(photo)), floats=(pixels/255), tiff=saved(photo, 'tiff'),
                alpha=np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))
    for way, source in ways.items():
        assert (upright(source, 1000)[0] == known).all(), way
    again = find_digits(tmp_path/'page.png')
    assert [[o.box for o in line] for line in again] == [[o.box for o in line] for line in found]


def test_colours_depths_and_polarity_do_not_matter(photo):
    grey = photo.convert('L')
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16)*257)
    ways = dict(palette=photo.quantize(64), deep=deep, png16=saved(deep), negative=Image.eval(grey, lambda o: 255 - o),
                gif=saved(photo, 'gif'), jpeg=saved(photo, 'jpeg', quality=70), webp=saved(photo, 'webp'))
    known = [[o.box for o in line] for line in find_digits(grey)]
    for way, source in ways.items():
        found = find_digits(source)
        assert [len(o) for o in found] == [len(o) for o in known], way
        assert min(overlap(a.box, b) for x, y in zip(found, known) for a, b in zip(x, y)) > .8, way


def test_ink_on_nothing_is_read_whatever_its_colour():
    three = drawn(3)
    for ink in (0, 255, 90):
        layers = [np.full_like(three, ink)]*3
        seen = to_mnist(np.dstack([*layers, three]))
        assert np.abs(seen.astype(int) - to_mnist(three)).mean() < 8


def test_a_camera_held_sideways_says_so_in_the_file(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(photo.transpose(Image.Transpose.ROTATE_90), 'jpeg', exif=exif, quality=95)
    assert [len(o) for o in find_digits(turned)] == [4, 6, 5]


def test_boxes_are_in_pixels_of_the_picture_however_large(photo, found):
    large = photo.resize([8*n for n in photo.size])
    for a, b in zip(sum(find_digits(large), []), sum(found, [])):
        assert overlap(a.box, [8*n for n in b.box]) > .7


def test_colours_that_are_equally_light_are_told_apart():
    ink = drawn(3)[..., None] > 127
    image = np.where(ink, (200, 0, 0), (0, 102, 0)).astype(np.uint8)  # both are 60 in grey
    assert np.ptp(np.asarray(Image.fromarray(image).convert('L'))) == 0
    assert Predictor().predict(image).digit == 3 and np.ptp(most_contrast(image.astype(np.float32)/255)) > .3


def test_a_picture_is_unwrapped(tmp_path):
    image = drawn(3)
    known = find_digit(image).image
    rgba = np.dstack([np.zeros((*image.shape, 3), np.uint8), image])  # black on nothing, as an editor has it
    Image.fromarray(image).save(tmp_path/'three.png')
    editor = dict(background=None, layers=[rgba], composite=rgba)
    for o in (image[None, ..., None], image[None, None], dict(composite=image), dict(composite=tmp_path/'three.png'),
              editor, (tmp_path/'three.png').open('rb')):
        assert np.abs(find_digit(o).image.astype(float) - known).mean() < 8
    for o in (known[None, ..., None], known[None, None], known[None], known[..., None], known[..., None]/255):
        assert (find_digit(o).image == known).all() and (find_digits(o)[0][0].image == known).all()


def phone_file(brand=b'heic'): return b'\0\0\0\x18ftyp' + brand + b'\0\0\0\0mif1' + brand + b'\0\0\0\0'


def test_a_picture_of_a_telephone_names_its_format_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)  # as if it were not installed
    monkeypatch.delitem(Image.OPEN, 'HEIF', raising=False)
    (tmp_path/'photo.heic').write_bytes(phone_file())
    for o in (tmp_path/'photo.heic', str(tmp_path/'photo.heic'), phone_file(b'mif1')):
        with pytest.raises(ValueError, match='is HEIC: convert it to JPEG, or pip install pillow-heif'): find_digit(o)
    Image.init()
    monkeypatch.delitem(Image.OPEN, 'AVIF', raising=False)
    with pytest.raises(ValueError, match='is AVIF: convert it to JPEG, or pip install --upgrade pillow'):
        find_digit(phone_file(b'avif'))
    with pytest.raises(ValueError, match='is not a picture'): find_digit(b'\0\0\0\x18ftypmp42')


@pytest.mark.parametrize('suffix, needs', [('heic', 'pillow_heif'), ('avif', 'PIL._avif')])
def test_a_picture_of_a_telephone_is_read_where_there_is_a_decoder(suffix, needs, tmp_path):
    decoder = pytest.importorskip(needs)
    if suffix == 'heic': decoder.register_heif_opener()
    image = drawn(3)
    Image.fromarray(image).convert('RGB').save(tmp_path/f'three.{suffix}', quality=95)
    found = find_digit(tmp_path/f'three.{suffix}').image.astype(float)
    assert np.abs(found - find_digit(image).image).mean() < 3
    whole = (tmp_path/f'three.{suffix}').read_bytes()
    with pytest.raises(ValueError): find_digit(whole[:len(whole)//2])


def bomb(width, height):
    "A PNG of a few hundred bytes that says it is that large"
    def number(n): return struct.pack('>I', n)
    def chunk(kind, data=b''): return number(len(data)) + kind + data + number(zlib.crc32(kind + data))
    head = number(width) + number(height) + bytes([8, 0, 0, 0, 0])
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND')


cut = page(0)[0]


wrong = {
    'no image':         (b'seven', 'this is not a picture: expected PNG, JPEG'),
    'empty':            (b'', 'is not a picture'),
    'PostScript':       (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'is not a picture'),
    'a bomb':           (bomb(60_000, 60_000), 'is too large'),
    'a smaller bomb':   (bomb(12_000, 12_000), '12000 x 12000 pixels: expected at most 100,000,000'),
    'truncated PNG':    (saved(cut)[:3000], 'is damaged'),
    'truncated JPEG':   (saved(cut, 'jpeg')[:3000], 'is damaged'),
    'no pixels':        (np.zeros((0, 5)), 'expected numbers, h x w'),
    'several pictures': (np.zeros((5, 28, 28, 1)), 'holds 5 pictures: give them to predict_batch'),
    'no pictures':      (np.zeros((0, 28, 28, 1)), 'holds 0 pictures'),
    'too many axes':    (np.zeros((1, 2, 3, 4, 5)), 'expected numbers, h x w'),
    'an empty editor':  (dict(background=None, layers=[], composite=None), 'this dict is not a picture'),
    'an empty dict':    ({}, 'this dict is not a picture'),
    'two channels':     (np.zeros((9, 9, 2)), 'expected numbers, h x w'),
    'NaN':              (np.full((9, 9), np.nan), 'expected 0 to 1, 0 to 255 or 0 to 65535'),
    'negative':         (np.full((9, 9), -1.), 'expected 0 to 1'),
    'None':             (None, 'expected numbers, h x w'),
    'a complex array':  (np.zeros((9, 9), complex), 'expected numbers, h x w')}


@pytest.mark.parametrize('what', wrong)
def test_what_is_not_a_picture_is_refused(what):
    source, said = wrong[what]
    started = time.perf_counter()
    for f in (to_mnist, find_digits):
        with pytest.raises(ValueError, match=said): f(source)
    assert time.perf_counter() - started < 10


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.png'): to_mnist(tmp_path/'nothing.png')
    (tmp_path/'cut.png').write_bytes(saved(cut)[:2000])
    with pytest.raises(ValueError, match='cut.png. is damaged'): to_mnist(tmp_path/'cut.png')


seeds = [saved(cut.reduce(2), o) for o in ('png', 'jpeg', 'gif', 'bmp', 'tiff', 'webp')]
sizes = st.tuples(st.integers(0, 40), st.integers(0, 40))
kinds = st.sampled_from(['uint8', 'uint16', 'int32', 'float32', 'float64', 'bool', 'complex64', 'int8'])
shapes = st.one_of(sizes, st.tuples(sizes, st.sampled_from([3, 4])).map(lambda o: (*o[0], o[1])),
                   st.lists(st.integers(0, 5), max_size=4).map(tuple))
pictures = kinds.flatmap(lambda kind: arrays(kind, shapes))
edits = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), min_size=1, max_size=20)


def changed(file, edits, length):
    "A file with other bytes here and there, and cut off"
    found = bytearray(file)
    for at, byte in edits: found[at % len(found)] = byte
    return bytes(found[:length])


files = st.builds(changed, st.sampled_from(seeds), edits, st.one_of(st.none(), st.integers(0, 20_000)))


@settings(max_examples=10_000 if full else 100, deadline=10_000, database=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example])
@given(st.one_of(pictures, st.binary(max_size=200), files, files))
def test_whatever_comes_in_digits_or_one_clear_error_come_out(source):
    try: lines = find_digits(source)
    except ValueError as e:
        assert str(e) and '\n' not in str(e)
        return
    assert all(o.image.shape == (28, 28) and o.image.dtype == np.uint8 for line in lines for o in line)


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'I;16'])
def test_a_large_picture_is_made_smaller_in_bands_as_if_at_once(mode):
    rng = np.random.default_rng(3)
    shape = (2503, 4001, len(mode)) if mode in ('RGB', 'RGBA') else (2503, 4001)
    values = rng.integers(0, 65536 if mode == 'I;16' else 256, shape).astype(np.uint16 if mode == 'I;16' else np.uint8)
    values[..., -1 if mode == 'RGBA' else slice(0)] = 255
    at_once = Image.fromarray((values/257).round().astype(np.uint8) if mode == 'I;16' else values).reduce(4)
    found = reduced(Image.fromarray(values), 1000)
    assert (np.asarray(found.convert('RGB')) == np.asarray(at_once.convert('RGB'))).all()


@only_full
@pytest.mark.fault('hostile or damaged files')
@pytest.mark.parametrize('mode', ['L', 'P', 'I;16', 'RGB', 'RGBA'])
def test_no_picture_takes_more_than_400_megabytes(mode, tmp_path):
    side = 9_480 if mode in ('RGB', 'RGBA') else 10_000  # larger ones are refused
    Image.new(mode, (side, side)).save(tmp_path/'a.png', compress_level=1)
    code = ('import resource, sys; from mnist_fastai.pictures.opening import upright\n'
            'def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3\n'
            'before = peak(); upright(sys.argv[1], 1000); print(peak() - before)')
    done = subprocess.run([sys.executable, '-c', code, tmp_path/'a.png'], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400
