"""Photo-like pages of known digits: paper, light, pens, rules, folds, perspective, blur and JPEG, and drawn strokes."""
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import make_interp_spline
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

kinds = ('plain', 'pen', 'texture', 'shadow', 'vignette', 'ruled', 'squared', 'fold', 'edge', 'perspective', 'blur',
         'noise', 'jpeg', 'board', 'all')


def others(rng, n):
    "n of scikit-learn's digits, written by other people than MNIST's (`uint8` 28 x 28), and what they are"
    small = load_digits()
    rows = rng.integers(len(small.images), size=n)
    found = [Image.fromarray((small.images[i]*15.9).astype(np.uint8)).resize((28, 28)) for i in rows]
    return [np.asarray(o) for o in found], ''.join(map(str, small.target[rows]))


def smooth(rng, shape, size):
    "Random numbers 0 to 1 without detail finer than `size` pixels"
    small = rng.random([max(2, round(n/size) + 1) for n in shape])
    large = Image.fromarray(small.astype(np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(large).clip(0, 1)


def ink_of(digit, height):
    "A digit (28 x 28, 0 to 255) `height` pixels high as ink 0 to 1, cut out"
    rows, cols = np.flatnonzero(digit.any(1)), np.flatnonzero(digit.any(0))
    digit = digit[rows[0]:rows[-1] + 1, cols[0]:cols[-1] + 1]
    scale = height/max(digit.shape)
    size = max(2, round(digit.shape[1]*scale)), max(2, round(digit.shape[0]*scale))
    return np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.BICUBIC))/255


def written(rng, lines, height=60, margin=1., gap=(.15, .6)):
    "Lines of digits as ink on an empty sheet, and the box (left, top, right, bottom) of each digit"
    width = round(height*(max(map(len, lines))*1.35 + 2*margin))
    sheet, boxes = np.zeros((round(height*(1.7*len(lines) + 2*margin)), width), np.float32), []
    for i, line in enumerate(lines):
        x, found = height*(margin + rng.uniform(0, .3)), []
        for digit in line:
            ink = ink_of(digit, height*rng.uniform(.85, 1.1))
            h, w = ink.shape
            top, left = round(height*(margin + 1.7*i + rng.uniform(-.08, .08)) + (height - h)/2), round(x)
            there = sheet[top:top + h, left:left + w]
            np.maximum(there, ink[:there.shape[0], :there.shape[1]], out=there)
            found.append((left, top, left + w, top + h))
            x = left + w + height*rng.uniform(*gap)
        boxes.append(found)
    return sheet, boxes


def rules(shape, distance, width, upright=False):
    "Lines across a sheet, 0 to 1"
    n = shape[1] if upright else shape[0]
    at = np.abs((np.arange(n) - distance*.35) % distance - distance/2) < width/2
    return np.broadcast_to(at[None] if upright else at[:, None], shape).astype(np.float32)


def perspective(rng, image, by=.06):
    "Seen at an angle; `image` is h x w x 3, 0 to 1, the corners move inwards by this share at most"
    h, w = image.shape[:2]
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], float)
    seen = corners + rng.uniform(-by, by, (4, 2))*(w, h)
    rows = []
    for (x, y), (u, v) in zip(corners, seen):
        rows += [(x, y, 1, 0, 0, 0, -u*x, -u*y), (0, 0, 0, x, y, 1, -v*x, -v*y)]
    numbers = np.linalg.solve(np.array(rows), seen.ravel())
    grown = Image.fromarray((image*255).astype(np.uint8)).transform(
        (w, h), Image.Transform.PERSPECTIVE, numbers, Image.Resampling.BICUBIC,
        fillcolor=tuple(int(o) for o in np.median(image, (0, 1))*255))
    return np.asarray(grown)/255


def photo(rng, sheet, kind='plain'):
    "A photo (RGB) of ink on paper"
    def on(*names): return kind in (*names, 'all')
    shape, h = sheet.shape, 60
    paper = np.full((*shape, 3), rng.uniform(.85, .97), np.float32)*[1, rng.uniform(.97, 1), rng.uniform(.9, 1)]
    if on('texture'): paper *= 1 - .1*smooth(rng, shape, 3)[..., None] - .06*smooth(rng, shape, 25)[..., None]
    blue = np.array([.35, .55, .85])
    if kind == 'squared' or (kind == 'all' and rng.random() < .5):
        lines = np.maximum(rules(shape, h*.5, 1.6), rules(shape, h*.5, 1.6, True))*rng.uniform(.25, .6)
        paper = paper*(1 - lines[..., None]*(1 - blue))
    elif on('ruled'):
        paper = paper*(1 - (rules(shape, h*1.7, 2)*rng.uniform(.4, .9))[..., None]*(1 - blue))
    color = rng.uniform(.02, .25, 3)
    if on('pen'): color = np.array([rng.uniform(.05, .5), rng.uniform(.05, .4), rng.uniform(.1, .75)])
    image = paper*(1 - sheet[..., None]*(1 - color))
    if on('fold'):
        at, side = rng.uniform(.2, .8)*shape[1], np.arange(shape[1])
        shade = 1 - .25*np.exp(-((side - at)/3)**2) - .12*(side > at)
        image = image*shade[None, :, None]
    if on('perspective'): image = perspective(rng, image)
    if kind == 'edge':
        table, m = np.broadcast_to(rng.uniform(.1, .5, 3), image.shape).copy(), 20
        table[m:-m, m:-m] = image[m:-m, m:-m]
        image = table
    if on('shadow'): image = image*(1 - .65*smooth(rng, shape, max(shape)/2))[..., None]
    if on('vignette'):
        y, x = (np.linspace(-1, 1, n) for n in shape)
        image = image*(1 - .3*(y[:, None]**2 + x**2))[..., None]
    if kind == 'board': image = 1 - image*rng.uniform(.8, 1)
    if on('blur'): image = gaussian_filter(image, (rng.uniform(1, 2.2),)*2 + (0,))
    if on('noise'): image = image + rng.normal(0, .05, image.shape)
    found = Image.fromarray((image.clip(0, 1)*255).astype(np.uint8))
    if on('jpeg'):
        found.save(file := io.BytesIO(), 'jpeg', quality=int(rng.integers(20, 50)))
        found = Image.open(file)
    return found


strokes = {
    0: [[(.5, 0), (.1, .15), (0, .5), (.1, .85), (.5, 1), (.9, .85), (1, .5), (.9, .15), (.5, 0)]],
    1: [[(.3, .2), (.5, 0), (.5, .5), (.5, 1)]],
    2: [[(.05, .25), (.2, .03), (.6, 0), (.9, .2), (.8, .5), (.4, .75), (0, 1), (.5, .98), (1, 1)]],
    3: [[(.1, .08), (.5, 0), (.9, .15), (.8, .4), (.4, .48), (.85, .58), (1, .8), (.6, 1), (.05, .92)]],
    4: [[(.55, 0), (.3, .35), (0, .65), (.5, .65), (1, .65)], [(.75, .3), (.72, .6), (.7, 1)]],
    5: [[(.9, 0), (.5, .01), (.15, .02), (.12, .2), (.08, .45), (.5, .38), (.95, .55), (.9, .85), (.5, 1), (.03, .93)]],
    6: [[(.75, 0), (.35, .2), (.08, .55), (.1, .88), (.5, 1), (.9, .85), (.85, .6), (.5, .5), (.1, .7)]],
    7: [[(0, .02), (.5, .02), (1, 0), (.75, .35), (.5, .65), (.35, 1)]],
    8: [[(.85, .12), (.5, 0), (.12, .15), (.25, .38), (.5, .48), (.85, .65), (.8, .93), (.45, 1), (.1, .88), (.15, .65),
         (.5, .48), (.82, .35), (.85, .12)]],
    9: [[(.9, .15), (.5, 0), (.1, .15), (.1, .42), (.5, .5), (.88, .35), (.9, .1), (.88, .5), (.75, 1)]]}


def letters():
    "Letters that look like no digit, in the typefaces that come with matplotlib, dark on light, `uint8` 160 x 160"
    for face in ('DejaVuSans', 'DejaVuSerif-Italic', 'DejaVuSansMono', 'cmmi10', 'cmtt10', 'STIXGeneral'):
        font = ImageFont.truetype(Path(matplotlib.get_data_path())/f'fonts/ttf/{face}.ttf', 80)
        for letter in 'ACDEFHJKLMNPQRTUVWXYabdefhkmnprtwxy':
            ImageDraw.Draw(image := Image.new('L', (160, 160), 255)).text((40, 30), letter, font=font)
            yield np.asarray(image)


def scribble(rng): return drawn(rng, None)


def drawn(rng, digit, size=280):
    "A digit (None: a scribble) drawn with mouse or finger: strokes of any width, light on dark, `uint8` size x size"
    canvas = Image.new('L', (2*size, 2*size))
    brush, turn, lean = ImageDraw.Draw(canvas), rng.uniform(-.2, .2), rng.uniform(-.3, .3)
    rotate = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    wide, tall = size*rng.uniform(.25, .5)*(.5 if digit == 1 else 1), size*rng.uniform(.4, .75)
    middle, width = size*(.5 + rng.uniform(-.08, .08, 2)), size*rng.uniform(.03, .09)
    for points in [rng.random((rng.integers(5, 10), 2))] if digit is None else strokes[digit]:
        p = (np.array(points) - .5 + rng.normal(0, .02, (len(points), 2)))*(wide, tall)
        p[:, 0] -= lean*p[:, 1]
        spline = make_interp_spline(np.arange(len(p)), p@rotate + middle, k=min(3, len(p) - 1))
        path = spline(np.linspace(0, len(p) - 1, 300))
        path += gaussian_filter(rng.normal(0, .02*size, path.shape), (12, 0))
        for (x, y), r in zip(2*path, width*(.75 + .5*smooth(rng, (2, 300), 60)[0])):
            brush.ellipse((x - r, y - r, x + r, y + r), 255)
    return np.asarray(canvas.reduce(2))
