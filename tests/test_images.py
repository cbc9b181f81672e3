"""Any picture becomes digits in MNIST's format, or one clear error. Known answers come from pages.py."""
import io
import struct
import time
import zlib

import numpy as np
import pages
import pytest
from conftest import full
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from mnist_fastai.images import find_digits, stroke_width, to_mnist


def page(seed, kind='plain', lengths=(4, 6, 5), **kwargs):
    "A photo of a page, and the boxes of its digits"
    rng = np.random.default_rng(seed)
    sheet, boxes = pages.written(rng, [pages.others(rng, n)[0] for n in lengths], **kwargs)
    return pages.photo(rng, sheet, kind), boxes


def overlap(a, b):
    "Intersection over union"
    (l, t), (r, u) = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = max(r - l, 0)*max(u - t, 0)
    return both/(np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2])) - both)


def saved(image, format='png', **kwargs):
    image.save(file := io.BytesIO(), format, **kwargs)
    return file.getvalue()


@pytest.fixture(scope='module')
def photo(): return page(1, 'shadow')[0]


@pytest.mark.parametrize('kind', [o for o in pages.kinds if o not in ('perspective', 'all')])
def test_the_digits_of_a_page_are_found_line_by_line(kind):
    right = total = 0
    for seed in range(3):
        image, boxes = page(seed, kind)
        lines = find_digits(image)
        assert len(lines) == len(boxes)
        for found, known in zip(lines, boxes):
            total += len(known)
            if len(found) == len(known): right += sum(overlap(o.box, b) > .5 for o, b in zip(found, known))
    assert right >= .95*total


@pytest.mark.parametrize('kind', ['perspective', 'all'])
def test_a_page_seen_at_an_angle_has_its_lines(kind):
    for seed in range(3): assert [len(o) for o in find_digits(page(seed, kind)[0])] == [4, 6, 5]


def test_every_digit_is_28_by_28_centred_and_in_a_box_of_20():
    for line in find_digits(page(3)[0]):
        for o in line:
            assert o.image.shape == (28, 28) and o.image.dtype == np.uint8 and o.image.max() > 200
            rows, cols = np.flatnonzero((o.image > 40).any(1)), np.flatnonzero((o.image > 40).any(0))
            assert 18 <= max(np.ptp(rows), np.ptp(cols)) + 1 <= 20
            middle = np.array(np.nonzero(o.image))@o.image[o.image > 0]/o.image.sum()
            assert np.abs(middle - 13.5).max() < 1


def test_its_own_images_come_through_unchanged():
    rng = np.random.default_rng(0)
    for o in pages.others(rng, 20)[0]:
        o = np.pad(o[2:26, 2:26], 2)
        assert (to_mnist(o) == o).all() and (to_mnist(255 - o) == o).all() and (to_mnist(o/255) == o).all()
        assert find_digits(o)[0][0].box == (0, 0, 28, 28) and (find_digits(o)[0][0].image == o).all()


@pytest.mark.mnist
def test_mnist_comes_through_unchanged():
    from mnist_fastai.data import image_files, mnist_path
    for file in image_files(mnist_path('mnist')/'testing'):
        assert (to_mnist(file) == np.asarray(Image.open(file))).all(), file


def test_every_way_to_give_the_same_picture_gives_the_same_digits(photo, tmp_path):
    photo.save(tmp_path/'page.png')
    pixels = np.asarray(photo)
    seen = find_digits(photo)
    ways = dict(path=tmp_path/'page.png', text=str(tmp_path/'page.png'), bytes=saved(photo), array=pixels,
                file=io.BytesIO(saved(photo)), floats=(pixels/255), tiff=saved(photo, 'tiff'),
                alpha=np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))
    for way, source in ways.items():
        found = find_digits(source)
        assert [[o.box for o in line] for line in found] == [[o.box for o in line] for line in seen], way
        assert all((a.image == b.image).all() for x, y in zip(found, seen) for a, b in zip(x, y)), way


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
    drawn = pages.drawn(np.random.default_rng(0), 3)
    for ink in (0, 255, 90):
        layers = [np.full_like(drawn, ink)]*3
        seen = to_mnist(np.dstack([*layers, drawn]))
        assert np.abs(seen.astype(int) - to_mnist(drawn)).mean() < 8


def test_a_camera_held_sideways_says_so_in_the_file(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(photo.transpose(Image.Transpose.ROTATE_90), 'jpeg', exif=exif, quality=95)
    assert [len(o) for o in find_digits(turned)] == [4, 6, 5]


def test_boxes_are_in_pixels_of_the_picture_however_large(photo):
    large = photo.resize([8*n for n in photo.size])
    for a, b in zip(sum(find_digits(large), []), sum(find_digits(photo), [])):
        assert overlap(a.box, [8*n for n in b.box]) > .7


def test_specks_and_a_broken_stroke():
    image = np.full((200, 400), 230, np.uint8)
    image[60:140, 20:32] = image[60:140, 60:72] = image[60:140, 100:112] = 30  # 111
    image[60:70, 150:200] = image[60:95, 150:160] = 30                    # 5: its bar and its neck,
    image[100:110, 150:195] = image[100:140, 190:200] = image[132:142, 145:195] = 30  # and below a gap its belly
    for y, x in np.random.default_rng(0).integers(10, 190, (30, 2)): image[y:y + 3, x + 200:x + 202] = 30
    [[*ones, five]] = find_digits(image)
    assert [overlap(o.box, (x, 60, x + 12, 140)) > .8 for o, x in zip(ones, (20, 60, 100))] == [True]*3
    assert overlap(five.box, (145, 60, 200, 142)) > .8


def test_digits_that_touch_are_cut_and_wide_ones_are_not():
    def ring(width):
        from_middle = np.hypot(*np.mgrid[-30:31, -width:width + 1]/np.array([30, width])[:, None, None])
        return (from_middle < 1) & (from_middle > .7)
    sheet = np.zeros((140, 500), bool)
    sheet[40:101, 40:121] = ring(40)
    for left in (200, 244, 350): sheet[40:101, left:left + 45] |= ring(22)
    [found] = find_digits(np.where(sheet, 0, 255).astype(np.uint8))
    known = [(40, 40, 121, 101), (200, 40, 245, 101), (244, 40, 289, 101), (350, 40, 395, 101)]
    assert len(found) == 4 and all(overlap(o.box, b) > .8 for o, b in zip(found, known))


def test_thin_and_thick_pens_come_near_the_width_of_mnist():
    for width in (2, 40):
        image = Image.new('L', (300, 300), 255)
        ImageDraw.Draw(image).line([(80, 60), (220, 60), (120, 240)], 0, width)
        assert 1.7 < stroke_width(to_mnist(image)/255) < 5


nothing = {
    'white': Image.new('L', (300, 200), 255),
    'black': Image.new('RGB', (30, 20)),
    'one pixel': Image.new('L', (1, 1)),
    'transparent': Image.new('RGBA', (50, 50), (0, 0, 0, 0)),
    'grain': Image.fromarray(np.random.default_rng(0).normal(200, 9, (300, 300)).clip(0, 255).astype(np.uint8)),
    'a shadow': Image.fromarray((pages.smooth(np.random.default_rng(0), (300, 400), 200)*200 + 40).astype(np.uint8))}


@pytest.mark.parametrize('what', nothing)
def test_a_page_without_ink_says_so(what):
    with pytest.raises(ValueError, match='there is no (ink|digit) in this picture'): to_mnist(nothing[what])


def bomb(width, height):
    "A PNG of a few hundred bytes that says it is that large"
    def number(n): return struct.pack('>I', n)
    def chunk(kind, data=b''): return number(len(data)) + kind + data + number(zlib.crc32(kind + data))
    head = number(width) + number(height) + bytes([8, 0, 0, 0, 0])
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND')


wrong = {
    'no image':         (b'seven', 'this is no picture: expected PNG, JPEG'),
    'empty':            (b'', 'is no picture'),
    'PostScript':       (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'is no picture'),
    'a bomb':           (bomb(60_000, 60_000), 'is too large'),
    'a smaller bomb':   (bomb(12_000, 12_000), '12000 x 12000 pixels: expected at most 100,000,000'),
    'truncated PNG':    (saved(page(0)[0])[:3000], 'is damaged'),
    'truncated JPEG':   (saved(page(0)[0], 'jpeg')[:3000], 'is damaged'),
    'no pixels':        (np.zeros((0, 5)), 'expected numbers, h x w'),
    'too many axes':    (np.zeros((2, 3, 4, 5)), 'expected numbers, h x w'),
    'two channels':     (np.zeros((9, 9, 2)), 'expected numbers, h x w'),
    'NaN':              (np.full((9, 9), np.nan), 'expected 0 to 1, 0 to 255 or 0 to 65535'),
    'negative':         (np.full((9, 9), -1.), 'expected 0 to 1'),
    'None':             (None, 'expected numbers, h x w'),
    'a complex array':  (np.zeros((9, 9), complex), 'expected numbers, h x w')}


@pytest.mark.parametrize('what', wrong)
def test_what_is_no_picture_is_refused(what):
    source, said = wrong[what]
    started = time.perf_counter()
    for f in (to_mnist, find_digits):
        with pytest.raises(ValueError, match=said): f(source)
    assert time.perf_counter() - started < 10


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.png'): to_mnist(tmp_path/'nothing.png')
    (tmp_path/'cut.png').write_bytes(saved(page(0)[0])[:2000])
    with pytest.raises(ValueError, match='cut.png. is damaged'): to_mnist(tmp_path/'cut.png')


def test_a_page_full_of_specks_takes_no_longer_than_a_page():
    specks = np.where(np.random.default_rng(0).random((1400, 1400)) < .02, 0, 255).astype(np.uint8)
    started = time.perf_counter()
    try: find_digits(specks)
    except ValueError: pass
    assert time.perf_counter() - started < 30


def test_it_imports_neither_torch_nor_fastai(sh):
    done = sh('python', 'import sys, mnist_fastai.images; print({"torch", "fastai"} & set(sys.modules))')
    assert done.stdout == 'set()\n', done.stderr


seeds = [saved(page(0)[0].reduce(2), o) for o in ('png', 'jpeg', 'gif', 'bmp', 'tiff', 'webp')]
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


@settings(max_examples=10_000 if full else 300, deadline=10_000, database=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example])
@given(st.one_of(pictures, st.binary(max_size=200), files, files))
def test_whatever_comes_in_digits_or_one_clear_error_come_out(source):
    try: lines = find_digits(source)
    except ValueError as e:
        assert str(e) and '\n' not in str(e)
        return
    assert all(o.image.shape == (28, 28) and o.image.dtype == np.uint8 for line in lines for o in line)
