"""How `best` reads photo-like pages of MNIST's test digits, and drawn digits: `python results/own_digits.py`."""
import sys
from pathlib import Path

import numpy as np
from fastprogress.fastprogress import progress_bar
from PIL import Image

from mnist_fastai.data import image_files, mnist_path
from mnist_fastai.inference import Predictor
from mnist_fastai.runs import environment, share, write_json

here = Path(__file__).parent
sys.path.insert(0, str(here.parent/'tests'))
import pages  # noqa: E402


def edits(a, b):
    "Digits to change, add or take away to make one text the other (Levenshtein, 1965)"
    row = [*range(len(b) + 1)]
    for i, x in enumerate(a, 1):
        last, row = row, [i]
        for j, y in enumerate(b, 1): row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    return row[-1]


def some(rng, n):
    "n test digits, and what they are"
    picked = [files[i] for i in rng.integers(len(files), size=n)]
    return [np.asarray(Image.open(o)) for o in picked], ''.join(o.parent.name for o in picked)


def digit(rng, kind):
    "A photo of one digit, large or small, and what it is"
    digits, text = some(rng, 1)
    height, margin = int(rng.integers(50, 200)), rng.uniform(.3, 1.5)
    return pages.photo(rng, pages.written(rng, [digits], height, margin)[0], kind), text


def page(rng, kind):
    "A photo of two to four lines of four to nine digits, a few of which touch, and what they are"
    lines = [some(rng, rng.integers(4, 10)) for _ in range(rng.integers(2, 5))]
    return pages.photo(rng, pages.written(rng, [o for o, _ in lines], gap=(.05, .6))[0], kind), [o for _, o in lines]


def one(image):
    try: return str(reader.predict(image).digit)
    except ValueError: return ''


def lines_of(image):
    try: return '\n'.join(o.text for o in reader.read(image))
    except ValueError: return ''


def measure(kind, singles=200, sheets=25):
    "Of single digits and of whole pages: how many are right"
    rng = np.random.default_rng(0)
    right = sum(one(image) == text for image, text in (digit(rng, kind) for _ in range(singles)))
    wrong = n = 0
    for image, lines in (page(rng, kind) for _ in range(sheets)):
        n, wrong = n + sum(map(len, lines)), wrong + edits(lines_of(image), '\n'.join(lines))
    return dict(single=share(right, singles), page=share(max(n - wrong, 0), n))


def rejected(images, least=.9):
    "How many pictures get no answer"
    careful = Predictor(reject_below=least)
    return share(sum(careful.predict(o).digit is None for o in images), len(images))


def photos(kinds, n=30):
    "Single digits that are read right"
    rng = np.random.default_rng(1)
    return [image for image, text in (digit(rng, kind) for kind in kinds for _ in range(n)) if one(image) == text]


files, reader, rng = image_files(mnist_path('mnist')/'testing'), Predictor('best'), np.random.default_rng(0)
kinds = {kind: measure(kind) for kind in progress_bar(pages.kinds)}
drawn = sum(one(pages.drawn(rng, i % 10)) == str(i % 10) for i in range(1000))
careful = dict(letters=rejected([*pages.letters()]), scribbles=rejected([pages.scribble(rng) for _ in range(500)]),
               right=rejected(photos(pages.kinds)))
write_json(here/'own_digits.json',
           dict(kinds=kinds, drawn=share(drawn, 1000), rejected_below_90=careful, environment=environment()))
for part in ('single', 'page'):
    print(part, sum(o[part]['correct'] for o in kinds.values())/sum(o[part]['n'] for o in kinds.values()))
print('drawn', drawn/1000)
for what, o in careful.items(): print('rejected', what, o['accuracy'], o['n'])
