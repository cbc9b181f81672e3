"""Any picture becomes digits in MNIST's format, or one clear error. Known answers come from photos."""
import hashlib
import io
import json
import struct
import sys
import time
import zlib
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import full
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFont

from mnist_fastai.inference import Predictor
from mnist_fastai.pictures import finding, photos
from mnist_fastai.pictures.finding import find_digit, find_digits, to_mnist
from mnist_fastai.pictures.mnist_form import already, as_mnist, stroke_width
from mnist_fastai.pictures.opening import most_contrast


def page(seed, kind='plain', lengths=(4, 6, 5), **kwargs):
    "A photo of a page, and the boxes of its digits"
    rng = np.random.default_rng(seed)
    sheet, boxes = photos.written(rng, [photos.others(rng, n)[0] for n in lengths], **kwargs)
    return photos.photo(rng, sheet, kind), boxes


def drawn(digit, seed=0): return photos.drawn(np.random.default_rng(seed), digit)


def drawn_page(text='314159\n2653', seed=1, kind='plain', **kwargs):
    "A photo of these digits, drawn"
    rng = np.random.default_rng(seed)
    lines = [[photos.drawn(rng, int(o), 112) for o in line] for line in text.splitlines()]
    return photos.photo(rng, photos.written(rng, lines, gap=(.3, .6), **kwargs)[0], kind)


def overlap(a, b):
    "Intersection over union"
    (l, t), (r, u) = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = max(r - l, 0)*max(u - t, 0)
    return both/(np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2])) - both)


def saved(image, format='png', **kwargs):
    image.save(file := io.BytesIO(), format, **kwargs)
    return file.getvalue()


@pytest.fixture(scope='module')
def best(): return Predictor()


@pytest.fixture(scope='module')
def photo(): return page(1, 'shadow')[0]


@pytest.mark.parametrize('kind', [o for o in photos.kinds if o not in ('perspective', 'all')])
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
    for o in photos.others(rng, 20)[0]:
        o = np.pad(o[2:26, 2:26], 2)
        assert (to_mnist(o) == o).all() and (to_mnist(255 - o) == o).all() and (to_mnist(o/255) == o).all()
        assert find_digits(o)[0][0].box == (0, 0, 28, 28) and (find_digits(o)[0][0].image == o).all()


@pytest.mark.mnist
def test_mnist_comes_through_unchanged():
    from mnist_fastai.data.folders import image_files
    from mnist_fastai.data.sources import mnist_path
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


def test_boxes_are_in_pixels_of_the_picture_however_large(photo):
    large = photo.resize([8*n for n in photo.size])
    for a, b in zip(sum(find_digits(large), []), sum(find_digits(photo), [])):
        assert overlap(a.box, [8*n for n in b.box]) > .7


def test_specks_are_no_digits_and_a_broken_stroke_is_one():
    image = np.full((200, 400), 230, np.uint8)
    image[60:70, 150:200] = image[60:95, 150:160] = 30                    # 5: its bar and its neck,
    image[100:110, 150:195] = image[100:140, 190:200] = image[132:142, 145:195] = 30  # and below a gap its belly
    for y, x in np.random.default_rng(0).integers(10, 190, (30, 2)): image[y:y + 3, x + 200:x + 202] = 30
    [[five]] = find_digits(image)
    assert overlap(five.box, (145, 60, 200, 142)) > .8


@pytest.mark.xfail(strict=True, reason='rows of straight bars look like rules to the finder: not yet taught')
@pytest.mark.parametrize('width', [4, 12])
def test_plain_bars_are_ones(width):
    image = np.full((200, 260), 230, np.uint8)
    for x in (60, 120, 180): image[60:140, x:x + width] = 30
    [found] = find_digits(image)
    assert [overlap(o.box, (x, 60, x + width, 140)) > .5 for o, x in zip(found, (60, 120, 180))] == [True]*3


def test_digits_that_touch_come_apart_and_a_wide_one_does_not():
    for seed in range(4):
        image, [known] = page(seed, lengths=(6,), gap=(-.08, 0))
        [found] = find_digits(image)
        assert len(found) == 6 and np.mean([overlap(o.box, b) for o, b in zip(found, known)]) > .7
    from_middle = np.hypot(*np.mgrid[-30:31, -40:41]/np.array([30, 40])[:, None, None])
    ring = np.pad((from_middle < 1) & (from_middle > .7), 40)
    [[zero]] = find_digits(np.where(ring, 0, 255).astype(np.uint8))
    assert overlap(zero.box, (40, 40, 121, 101)) > .8


def test_thin_and_thick_pens_come_near_the_width_of_mnist():
    for width in (2, 40):
        image = Image.new('L', (300, 300), 255)
        ImageDraw.Draw(image).line([(80, 60), (220, 60), (120, 240)], 0, width)
        assert 1.7 < stroke_width(to_mnist(image)/255) < 5


# Kinds of pictures of one digit


def test_every_kind_of_picture_is_read_like_the_plain_digit(best):
    rng = np.random.default_rng(0)
    images, labels = photos.others(rng, 4)
    assert ''.join(str(o.digit) for o in best.predict_batch(images)) == labels
    read = {kind: best.predict_batch([make(o, rng) for o in images]) for kind, make in photos.picture_kinds.items()}
    assert not [o.reason for found in read.values() for o in found if o.reason]
    right = {kind: sum(str(o.digit) == label for o, label in zip(found, labels)) for kind, found in read.items()}
    assert sum(right.values()) >= .95*4*len(right), right
    assert min(right.values()) >= 2, right


@pytest.mark.parametrize('height', [10, 14, 2000])
def test_digits_of_any_size_are_read(height, best):
    side = round(1.8*height)  # a drawn digit is about .55 of its picture
    how = Image.Resampling.BOX if side < 100 else Image.Resampling.BICUBIC
    digits = range(10) if height < 100 else (2, 5)
    found = best.predict_batch([Image.fromarray(255 - drawn(i, i)).resize((side, side), how) for i in digits])
    assert sum(o.digit == i for o, i in zip(found, digits)) >= .9*len(digits)


def test_colours_that_are_equally_light_are_told_apart(best):
    ink = drawn(3)[..., None] > 127
    image = np.where(ink, (200, 0, 0), (0, 102, 0)).astype(np.uint8)  # both are 60 in grey
    assert np.ptp(np.asarray(Image.fromarray(image).convert('L'))) == 0
    assert best.predict(image).digit == 3 and np.ptp(most_contrast(image.astype(np.float32)/255)) > .3


def test_the_bar_of_a_five_belongs_to_it_also_apart(best):
    image = np.full((160, 140), 230, np.uint8)
    image[20:30, 50:95] = 30  # its bar, and 10 pixels below its neck and belly
    image[40:80, 40:50] = image[70:80, 40:90] = image[70:130, 85:95] = image[122:132, 35:95] = 30
    found = find_digit(image)
    assert overlap(found.box, (35, 20, 95, 132)) > .9 and best.predict(image).digit == 5


def test_what_is_in_mnists_form_is_left_alone_and_what_is_not_is_made_so():
    known = as_mnist(drawn(3)/255)
    assert (already(known) == known).all() and (already(255 - known) == known).all()
    assert already(np.pad(known, 2)) is None and already(np.full((28, 28), 200, np.uint8)) is None
    framed = known.copy()
    framed[0] = 255
    assert already(framed) is None


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
    with pytest.raises(ValueError, match='is no picture'): find_digit(b'\0\0\0\x18ftypmp42')


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


# Pages that are turned, or doubtful


@pytest.mark.parametrize('angle', [30, 90, 180, 270])
def test_a_turned_page_is_read_in_order_and_says_by_how_much(angle, best):
    right = 0
    for seed in range(3):
        upright = drawn_page(seed=seed)
        image = upright.rotate(-angle, Image.Resampling.BICUBIC, expand=True, fillcolor=upright.getpixel((0, 0)))
        found = best.read(image)
        sure = abs((found.angle - angle + 180) % 360 - 180) < 5
        assert sure or not found.upright and 'not sure which side' in str(found)
        if not sure or [o.text for o in found] != ['314159', '2653']: continue
        right += 1
        three, two = (o.digits[0] for o in found)  # boxes are in the picture as it was given
        down = np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        assert np.subtract(two.box[:2], three.box[:2])@down > 0
        assert (np.array(three.box) >= 0).all() and (np.array(three.box[2:]) <= image.size).all()
    assert right >= 2


def test_an_upright_page_is_not_turned(best):
    found = best.read(drawn_page())
    assert [o.text for o in found] == ['314159', '2653'] and found.angle == 0 and found.upright


@pytest.mark.parametrize('text', ['88', '00', '808', '0880'])
def test_a_few_digits_that_look_the_same_upside_down_do_not_claim_to_know(text, best):
    found = [best.read(drawn_page(text, seed)) for seed in range(6)]
    assert sum(o.upright for o in found) <= 2
    assert sum(str(o).splitlines()[0] == text for o in found) >= 5, 'but they are read as they lie'


def with_words(digits, words=(), size=24):
    "A sheet with handwritten digits, and lines in print above them"
    image = Image.new('L', (480, 420), 235)
    font = ImageFont.truetype(Path(matplotlib.get_data_path())/'fonts/ttf/DejaVuSerif.ttf', size)
    for i, line in enumerate(words): ImageDraw.Draw(image).text((30, 30 + 2*size*i), line, 40, font)
    sheet, _ = photos.written(np.random.default_rng(0), [digits], height=50, margin=.2)
    ink = np.zeros((420, 480))
    ink[300:300 + sheet.shape[0], 60:60 + sheet.shape[1]] = sheet
    return (np.asarray(image)*(1 - .85*ink)).astype(np.uint8)


def test_a_page_says_how_much_it_left_out(best):
    digits, label = photos.others(np.random.default_rng(0), 4)
    plain = best.read(with_words(digits))
    assert plain.left_out < .02 and not plain.doubts
    words = 'Dear friends, here are the', 'numbers that you want', 'from the machine room,', 'kindly remember them'
    found = best.read(with_words(digits, words))
    assert found.left_out > .3
    assert found[-1].text == label


# The network


def test_a_look_is_never_at_more_pixels_than_fit_in_memory(monkeypatch):
    session, seen = finding.finder(), []
    class Watched:
        def run(self, outputs, given):
            seen.append(given['picture'].shape)
            return session.run(outputs, given)
    monkeypatch.setattr(finding, 'finder', Watched)
    rng = np.random.default_rng(0)
    tiny, _ = photos.written(rng, [photos.others(rng, 60)[0]]*2, height=12)
    for image in (photos.photo(rng, tiny).resize((4000, 300)), Image.new('L', (6000, 60), 255), drawn_page(seed=2)):
        for find in (find_digit, find_digits):
            try: find(image)
            except ValueError as e: assert 'there is no digit' in str(e)
    seen = np.array(seen)
    area = seen[:, 2]*seen[:, 3]
    assert len(seen) > 6 and (seen[:, 2:] % finding.step == 0).all()
    assert area.max() <= 1.1*finding.most_seen  # sides are rounded


def test_the_network_is_the_one_that_its_json_is_about():
    file = Path(finding.__file__).with_name('finder.json')
    if not file.exists(): pytest.skip('the network that comes with the package has no finder.json yet')
    content = file.with_suffix('.onnx').read_bytes()
    assert hashlib.sha256(content).hexdigest() == json.loads(file.read_text())['onnx_sha256']
    assert len(content) < 1_000_000 and file.with_suffix('.md').exists()


# What is no picture, or has no digits


nothing = {
    'white': Image.new('L', (300, 200), 255),
    'black': Image.new('RGB', (30, 20)),
    'one pixel': Image.new('L', (1, 1)),
    'transparent': Image.new('RGBA', (50, 50), (0, 0, 0, 0)),
    'grain': Image.fromarray(np.random.default_rng(0).normal(200, 9, (300, 300)).clip(0, 255).astype(np.uint8)),
    'a shadow': Image.fromarray((photos.smooth(np.random.default_rng(0), (300, 400), 200)*200 + 40).astype(np.uint8))}


@pytest.mark.parametrize('what', nothing)
def test_a_page_without_ink_says_so(what):
    with pytest.raises(ValueError, match='there is no digit in this picture'): to_mnist(nothing[what])


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
    'several pictures': (np.zeros((5, 28, 28, 1)), 'holds 5 pictures: give them to predict_batch'),
    'no pictures':      (np.zeros((0, 28, 28, 1)), 'holds 0 pictures'),
    'too many axes':    (np.zeros((1, 2, 3, 4, 5)), 'expected numbers, h x w'),
    'an empty editor':  (dict(background=None, layers=[], composite=None), 'this dict is no picture'),
    'an empty dict':    ({}, 'this dict is no picture'),
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
    done = sh('python', 'import sys, mnist_fastai.pictures.finding; print({"torch", "fastai"} & set(sys.modules))')
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
