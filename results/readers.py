"""Answers about pictures, for results/pictures.py: `python results/readers.py mnist_fastai|rapidocr THREADS`.

A line on standard input is the JSON of (file, is it a page?, how often to time it, or 0). The answer is a line of JSON:
way of reading -> lines of (digit, probability, marked as doubtful?), or the median milliseconds. The first line says
the versions. It runs in environments of their own, and so needs nothing else of this repository.
"""
import json
import logging
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median


def installed(name):
    try: return version(name)
    except PackageNotFoundError: return None


def mnist_fastai(threads):
    "A Predictor as it is without options, except that it marks what is doubtful"
    from mnist_fastai import inference
    predictor = inference.Predictor('best', getattr(inference, 'default_reject_below', .9), threads=threads)

    def read(picture, page):
        try: lines = [o.digits for o in predictor.read(picture)] if page else [[predictor.predict(picture)]]
        except ValueError: lines = []
        return {'': [[(str(o.probs.argmax()), float(o.prob), o.digit is None) for o in line if o.probs is not None]
                     for line in lines]}
    return read


def rapidocr(threads):
    "RapidOCR as it is without options; of a single digit also what its recogniser says of the whole picture"
    from rapidocr_onnxruntime import RapidOCR
    logging.disable(logging.WARNING)  # it warns of pictures without text
    engine = RapidOCR(intra_op_num_threads=threads or -1, inter_op_num_threads=threads or -1)

    def digits_of(text, prob): return [(o, float(prob), False) for o in text if o in '0123456789']

    def on_page(picture):
        "Boxes of text in lines: from top to bottom, each from left to right"
        boxes, lines = [(*zip(*corners), *said) for corners, *said in engine(picture)[0] or []], []
        for box in sorted(boxes, key=lambda o: sum(o[1])):
            _, ys, *_ = box
            if lines and sum(ys)/4 < max(lines[-1][0][1]): lines[-1].append(box)  # its middle is not below the first
            else: lines.append([box])
        found = [[digit for box in sorted(line) for digit in digits_of(*box[2:])] for line in lines]
        return [line for line in found if line]

    def read(picture, page):
        found = on_page(picture)
        if page: return dict(engine=found)
        alone = [line for o in engine(picture, use_det=False, use_cls=False)[0] or [] if (line := digits_of(*o))]
        return {'engine, or else recogniser': found or alone, 'recogniser': alone}
    return read


def timed(f, n):
    "The median milliseconds"
    found = []
    for _ in range(n):
        start = time.perf_counter()
        f()
        found.append(1000*(time.perf_counter() - start))
    return median(found)


if __name__ == '__main__':
    read = dict(mnist_fastai=mnist_fastai, rapidocr=rapidocr)[sys.argv[1]](int(sys.argv[2]))
    names = 'rapidocr-onnxruntime', 'onnxruntime', 'numpy', 'pillow'
    print(json.dumps({o: installed(o) for o in names if installed(o)}), flush=True)
    for line in sys.stdin:
        file, page, times = json.loads(line)
        if Path(file).suffix == '.npy':
            import numpy as np
            file = np.load(file)
        print(json.dumps(timed(lambda: read(file, page), times) if times else read(file, page)), flush=True)  # noqa: B023
