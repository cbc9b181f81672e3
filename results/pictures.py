"""How digits in pictures are read: by this package, by its rules of before and by RapidOCR. Writes pictures.json, .md.

    python results/pictures.py --before FOLDER --rapidocr PYTHON --sudoku WHEEL

FOLDER is a checkout of commit de75bca; PYTHON is of an environment with `rapidocr-onnxruntime` 1.4.4; WHEEL comes from
`pip download --no-deps sudoku-ocr==1.1.3`. `--only ours speed` measures this tree again and keeps the rest, `--only`
alone writes pictures.md anew. What `before` and `rapidocr` have read of the same pictures is not read again. `--first
100` reads the first of each group: for all of them RapidOCR needs hours.
"""
import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
from filelock import FileLock
from PIL import Image

from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path
from mnist_fastai.inference import Predictor
from mnist_fastai.pictures import photos
from mnist_fastai.environment import environment
from mnist_fastai.utils import markdown_table, read_json, write_json

here = Path(__file__).parent
result_file = here/'pictures.json'
names = 'ours', 'before', 'rapidocr'
whole = '`mnist-predict`, the whole process'
speeds = {  # milliseconds that were aimed at
    '`predict`, an array of 28 x 28': .3, '`predict`, a PNG of 28 x 28': .5, '`predict`, a PNG of 140 x 140': None,
    '`predict`, a JPEG of 12 megapixels': 400, '`read`, the same': None, whole: None}


# The pictures: groups of (picture, its lines of digits, or None if there are no digits in it)

def digits_read(files, n=500, seed=0):
    "MNIST's test digits that the network reads when it gets them as they are: (`uint8` 28 x 28, what it is)"
    files = sorted(files, key=lambda o: int(o.stem))
    picked = [files[i] for i in np.random.default_rng(seed).choice(len(files), n + 50, replace=False)]
    images = np.array([np.asarray(Image.open(o)) for o in picked])
    answers = Predictor('best').probs(images).argmax(1)
    return [(a, o.parent.name) for a, o, digit in zip(images, picked, answers) if o.parent.name == str(digit)][:n]


def some(rng, files, n):
    "n test digits, and what they are"
    picked = [files[i] for i in rng.integers(len(files), size=n)]
    return [np.asarray(Image.open(o)) for o in picked], ''.join(o.parent.name for o in picked)


def single(rng, files, kind):
    "A photo of one digit, large or small"
    digits, text = some(rng, files, 1)
    height, margin = int(rng.integers(50, 200)), rng.uniform(.3, 1.5)
    return photos.photo(rng, photos.written(rng, [digits], height, margin)[0], kind), [text]


def page(rng, files, kind):
    "A photo of two to four lines of four to nine digits, a few of which touch"
    lines = [some(rng, files, rng.integers(4, 10)) for _ in range(rng.integers(2, 5))]
    sheet, _ = photos.written(rng, [o for o, _ in lines], gap=(.05, .6))
    return photos.photo(rng, sheet, kind), [text for _, text in lines]


def of_sudoku(wheel):
    "Handwritten digits in a photographed sudoku: six cells, and the two parts of its last column without print"
    photo = Image.open(io.BytesIO(zipfile.ZipFile(wheel).read('tests/img/sudoku1.png'))).convert('RGB')
    cells = dict(zip('576231', [(534, 388, 582, 434), (538, 437, 588, 478), (545, 487, 596, 530), (552, 532, 606, 574),
                                (567, 703, 618, 763), (572, 770, 630, 828)]))
    yield 'sudoku cell', [(photo.crop(box), [digit]) for digit, box in cells.items()]
    parts = {'5762': (530, 388, 606, 576), '31': (562, 703, 634, 832)}
    yield 'sudoku page', [(photo.crop(box), [*digits]) for digits, box in parts.items()]


def groups(sudoku):
    "All pictures, a group at a time"
    files = image_files(mnist_path('mnist')/'testing')
    digits = digits_read(files)
    for kind, make in photos.picture_kinds.items():
        rng = np.random.default_rng(1)
        yield f'kind {kind}', [(make(a, rng), [text]) for a, text in digits]
    if sudoku: yield from of_sudoku(sudoku)
    for kind in photos.kinds:
        rng = np.random.default_rng(0)
        yield f'single {kind}', [single(rng, files, kind) for _ in range(200)]
        yield f'page {kind}', [page(rng, files, kind) for _ in range(25)]
    rng = np.random.default_rng(0)
    yield 'drawn', [(Image.fromarray(photos.drawn(rng, i % 10)), [str(i % 10)]) for i in range(1000)]
    yield 'letters', [(Image.fromarray(o), None) for o in photos.letters()]
    yield 'scribbles', [(Image.fromarray(photos.scribble(rng)), None) for _ in range(500)]


def write_pictures(folder, pictures):
    "Files of pictures as they are, or as PNG, and a hash of all that they hold"
    files, hashed = [], hashlib.sha256()
    for i, (picture, lines) in enumerate(pictures):
        if picture.format == 'JPEG': content = picture.fp.getvalue()
        else:
            picture.save(file := io.BytesIO(), 'PNG', compress_level=1)
            content = file.getvalue()
        hashed.update(np.asarray(picture).tobytes() + str(lines).encode())  # not the file: PNGs differ between zlibs
        files.append(folder/f'{i:04}.{(picture.format or "png").lower()}')
        files[-1].write_bytes(content)
    return files, hashed.hexdigest()[:16]


# What was read

def git(*args): return subprocess.check_output(['git', *args], text=True).strip()


def in_tree(folder): return {**os.environ, 'PYTHONPATH': str(folder)}  # its mnist_fastai is the one that is imported


class Reader:
    "A process that answers about pictures"
    def __init__(self, name, args, threads=1):
        tree = dict(ours=here.parent, before=args.before, rapidocr='')[name]
        python, what = (args.rapidocr, 'rapidocr') if name == 'rapidocr' else (sys.executable, 'mnist_fastai')
        if tree is None or not python: raise SystemExit(f'--only {name} needs --{name}: see --help')
        self.process = subprocess.Popen([python, here/'readers.py', what, str(threads)], env=in_tree(tree), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.about = json.loads(self.process.stdout.readline())
        if tree: self.about['commit'] = git('-C', tree, 'rev-parse', '--short', 'HEAD')

    def __call__(self, file, page, times=0):
        print(json.dumps([str(file), page, times]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def aligned(text, answer):
    "Digits to change, add or take away to make one of the other (Levenshtein, 1965), and which of the answer are right"
    row = [(j, [False]*j) for j in range(len(answer) + 1)]
    for i, x in enumerate(text, 1):
        last, row = row, [(i, [])]
        for j, y in enumerate(answer):
            ways = (last[j][0] + (x != y), last[j][1] + [x == y]), (last[j + 1][0] + 1, last[j + 1][1]), \
                (row[j][0] + 1, row[j][1] + [False])
            row.append(min(ways, key=lambda o: o[0]))
    return row[-1]


def score(text, lines):
    "Counts of one picture: `text` are its lines, `lines` what was answered"
    answers = [o for line in lines for o in line]
    answer = '\n'.join(''.join(o[0] for o in line) for line in lines)
    edits, right = aligned('\n'.join(text or []), answer)
    right = [o for o, c in zip(right, answer) if c != '\n']
    n = sum(map(len, text)) if text else 1
    count = Counter(n=n, edits=min(edits, n), unread=int(not answers))
    for good, (_, prob, marked) in zip(right, answers):
        kind = 'good' if good else 'bad'
        count.update({kind: 1, f'{kind}_marked': marked, f'{kind}_sure': prob >= .99})
    return count


def read_group(reader, files, pictures, is_page):
    "What a reader makes of a group, in the better of its ways"
    ways = {}
    for file, (_, text) in zip(files, pictures):
        for way, lines in reader(file, is_page).items(): ways.setdefault(way, Counter()).update(score(text, lines))
    way, best = min(ways.items(), key=lambda o: o[1]['edits'])
    return dict(best, way=way)


def measure(some_names, args):
    "Read everything with these readers, and keep each figure at once"
    readers = {name: Reader(name, args) for name in some_names}
    for group, pictures in groups(args.sudoku):
        pictures = pictures[:args.first]
        with TemporaryDirectory() as folder:
            files, pixels = write_pictures(Path(folder), pictures)
            for name, reader in readers.items():
                known = result().get('readers', {}).get(name, {}).get('groups', {}).get(group, {})
                if name != 'ours' and known.get('pictures') == pixels: continue
                found = dict(pictures=pixels, **read_group(reader, files, pictures, 'page' in group.split()))
                print(f'{name:9} {group:34} {right(found):6.1%} of {found["n"]}, {found["unread"]} unread', flush=True)
                keep(name, reader.about, group, found)


def right(found): return 1 - found['edits']/found['n']


def keep(name, about, group, found):
    "Add a figure to the file, which other readers may be writing to"
    with FileLock(Path(gettempdir())/'mnist_fastai_pictures.lock'):
        r = result()
        reader = r.setdefault('readers', {}).setdefault(name, dict(groups={}))
        reader['about'] = about
        reader['groups'][group] = found
        write(r)


def write(r):
    about = environment()
    write_json(result_file, dict(r, environment={o: about[o] for o in ('cpu', 'cores', 'python', 'system')}))


def result(): return read_json(result_file) if result_file.exists() else {}


def measure_speed(args, rounds=7):
    "Median milliseconds of this tree and of the one before, in turn"
    trees, rng = dict(ours=here.parent, before=args.before), np.random.default_rng(0)
    digits, _ = some(rng, image_files(mnist_path('mnist')/'testing'), 12)
    sheet, _ = photos.written(rng, [digits[:4], digits[4:8], digits[8:]])
    with TemporaryDirectory() as folder:
        array, png, large, jpeg = (Path(folder)/o for o in ('a.npy', '28.png', '140.png', 'photo.jpg'))
        np.save(array, digits[0])
        Image.fromarray(digits[0]).save(png)
        photos.picture_kinds['140 x 140'](digits[0], rng).save(large)
        photos.photo(rng, sheet, 'all').resize((4000, 3000)).save(jpeg, quality=90)
        jobs = dict(zip(speeds, [(array, False, 200), (png, False, 100), (large, False, 20), (jpeg, False, 1),
                                 (jpeg, True, 1)]))
        readers = {name: Reader(name, args, 0) for name in trees}
        found = {what: {name: [] for name in trees} for what in speeds}
        command = [Path(sys.executable).parent/'mnist-predict', png]
        for _ in range(rounds):
            for name, tree in trees.items():
                for what, job in jobs.items(): found[what][name].append(readers[name](*job))
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=in_tree(tree))
                found[whole][name].append(1000*(time.perf_counter() - start))
    write(dict(result(), speed={what: {name: round(median(ms), 3) for name, ms in o.items()}
                                for what, o in found.items()}))


# pictures.md

def of(reader, *starts): return {k: Counter(o) for k, o in reader.get('groups', {}).items() if k.startswith(starts)}


def total(reader, *starts):
    found = Counter()
    for o in of(reader, *starts).values(): found.update({k: n for k, n in o.items() if k not in ('pictures', 'way')})
    return found


def percent(found): return f'{100*right(found):.1f}' if found else '–'


def table(readers, what, start, together=True):
    "A row a group: what each reader read, and how many pictures ours had no answer for"
    titles = [what, 'right %', 'unread', 'rules of before', 'RapidOCR']
    found = {name: of(readers.get(name, {}), start) for name in names}
    rows = {group.removeprefix(start) or start: [found[name].get(group) for name in names] for group in found['ours']}
    if together: rows['**together**'] = [total(readers.get(name, {}), start) for name in names]
    return markdown_table(titles, [[group, percent(ours), ours['unread'], *map(percent, others)]
                                  for group, (ours, *others) in rows.items()])


def targets(ours, speed):
    "What was aimed at: (what, aim, measured, limit: at least, or if negative at most)"
    def worst(groups): return min((right(o), k.split(' ', 1)[1]) for k, o in groups.items())
    kinds, pages, everything = of(ours, 'kind '), of(ours, 'page '), total(ours, 'kind ', 'single ', 'page ')
    n_all = right(pages.pop('page all'))
    (n_kind, kind), (n_page, page) = worst(kinds), worst(pages)
    yield f'the worst kind of picture ({kind})', 'at least 98%', n_kind, .98
    yield 'all kinds of pictures', 'at least 99.3%', right(total(ours, 'kind ')), .993
    yield 'pictures of these kinds without an answer', 'none', total(ours, 'kind ')['unread'], -0.
    yield 'photographed single digits', 'at least 99.5%', right(total(ours, 'single ')), .995
    yield f'digits of the worst kind of page, without "all" ({page})', 'at least 99%', n_page, .99
    yield 'digits of pages of the kind "all"', 'at least 98%', n_all, .98
    yield 'wrong answers that are marked', 'at least 50%', everything['bad_marked']/max(everything['bad'], 1), .5
    yield 'right answers that are marked', 'at most 1.5%', everything['good_marked']/everything['good'], -.015
    if not speed: return
    for what, most in speeds.items():
        if most: yield what, f'under {most:g} ms', speed[what]['ours'], -most
    yield f'{whole}, against before', 'at most 1.1 times', speed[whole]['ours']/speed[whole]['before'], -1.1


def target_rows(ours, speed):
    for what, aim, n, limit in targets(ours, speed):
        met = n >= limit if limit > 0 else n <= -limit
        yield [what, aim, f'{100*n:.1f}%' if '%' in aim else f'{n:.3g}', 'met' if met else '**missed**']


def doubt_rows(readers):
    "How many wrong and right answers are marked, and how many wrong ones have 99% and more"
    parts = dict(kinds=['kind '], singles=['single '], pages=['page '], together=['kind ', 'single ', 'page '])
    for part, starts in parts.items():
        for by, who in dict(this='ours', before='before').items():
            n = total(readers.get(who, {}), *starts)
            bad, good = max(n['bad'], 1), max(n['good'], 1)
            yield [part, by, n['bad'], f"{n['bad_marked']/bad:.0%}", f"{n['bad_sure']/bad:.0%}", n['good'],
                   f"{n['good_marked']/good:.1%}"]


def rejected(ours, name):
    n = total(ours, name)
    return f"{1 - (n['bad'] - n['bad_marked'])/n['n']:.1%} of {n['n']:,} {name}"


def of_rapidocr(reader):
    kinds = of(reader, 'kind ').values()
    if not kinds: return 'RapidOCR was not measured.'
    n, alone = min(o['n'] for o in kinds), sum(o['way'] == 'recogniser' for o in kinds)
    return f'''RapidOCR read the first {n} of each kind, in the better of two ways: as documented, and where that finds
no digit by its recogniser alone ({len(kinds) - alone} kinds); or always by its recogniser alone ({alone} kinds). Only
the digits of its text count.'''


def speed_table(speed):
    rows = [[what, *(f'{o[name]:.2f} ms' for name in ('ours', 'before')), f"{o['ours']/o['before']:.2f}"]
            for what, o in speed.items()]
    return markdown_table(['median', 'this', 'before', 'ratio'], rows)


def report(r):
    "pictures.md"
    readers, speed, env = r['readers'], r.get('speed', {}), r['environment']
    ours = readers['ours']
    versions = '\n'.join(f"- {name}: {', '.join(map(' '.join, readers[name]['about'].items()))}"
                         for name in names if name in readers)
    doubt = ['', 'by', 'wrong answers', 'of them marked', 'of them with 99%', 'right answers', 'of them marked']
    def n(start): return f"{max(o['n'] for o in of(ours, start).values()):,}"
    return f'''# Digits in pictures

How many digits are read right when they come as pictures: by this package, by its rules of before (commit de75bca),
and by [RapidOCR](https://github.com/RapidAI/RapidOCR), an engine for print, which was not made for handwriting. Almost
all pictures are made of MNIST's test digits by [`pictures.photos`](../nbs/14d_pictures.photos.ipynb), which shows each
kind. Measured by `python results/pictures.py` on {env['cores']} cores of {env['cpu']}, Python {env['python']}, with:

{versions}

## Targets

{markdown_table(['', 'aim', 'measured', ''], [*target_rows(ours, speed)])}

Of *answers*, those to all kinds, single digits and pages.

## Kinds of pictures

{n('kind ')} digits each, which the network reads when it gets MNIST's own 28 x 28 pixels: what is lost here is lost on
the way from the picture to the network. *Unread* are those without an answer; they are wrong too. Sizes are in pixels.

{table(readers, 'kind', 'kind ')}

{of_rapidocr(readers.get('rapidocr', {}))}

## Photos

{n('single ')} photos of one digit each, as large as a letter or filling the photo:

{table(readers, 'single digit on paper', 'single ')}

Pages of two to four lines of four to nine digits, some of which touch, {total(ours, 'page ')['n']:,} digits in all. One
that is missed, invented, cut in two or misread is wrong; of a page without an answer every digit is.

{table(readers, 'digits of a page', 'page ')}

{n('drawn')} digits drawn as with a finger, no paper:

{table(readers, '', 'drawn', False)}

## A photo by somebody else

The wheel of `sudoku-ocr` 1.1.3 (MIT) has a photo of a sudoku on folded paper with six digits in blue pen, here as six
cells with the table's lines at their edges, and as the two parts of its last column that are without print. That is
little; no whole page of handwritten digits was in the wheels of scikit-image, scikit-learn, OpenCV, Gradio, mlxtend,
kornia, docTR, keras-ocr, EasyOCR, PaddleOCR, RapidOCR, easyhtr, htrflow, formhtr, handprint, page-dewarp, noteshrink,
HandySeg and shiftlab-ocr-test.

{table(readers, '', 'sudoku ', False)}

## Doubt

Marked is an answer below the default `reject_below`, or that looks like no digit.

{markdown_table(doubt, [*doubt_rows(readers)])}

No digit is seen in {rejected(ours, 'letters')} and {rejected(ours, 'scribbles')}.

## Speed

{speed_table(speed) if speed else 'Not measured yet.'}

Both trees in turn, in one run.
'''


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='*', choices=[*names, 'speed'], default=[*names, 'speed'])
    p.add_argument('--first', type=int)
    for o in ('before', 'rapidocr', 'sudoku'): p.add_argument(f'--{o}')
    args = p.parse_args()
    if readers := [o for o in args.only if o != 'speed']: measure(readers, args)
    if 'speed' in args.only: measure_speed(args)
    if 'ours' in result()['readers']: (here/'pictures.md').write_text(report(result()), encoding='utf-8')


if __name__ == '__main__': main()
