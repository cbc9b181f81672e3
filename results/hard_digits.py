"""The digits that the page shows where MNIST is not: `python results/hard_digits.py`.

Of each digit the two of scikit-learn's test images to which `best` gives it the least probability.
"""
from pathlib import Path

import numpy as np
from PIL import Image

import mnist_fastai
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path
from mnist_fastai.inference import Predictor

files = image_files(mnist_path('digits')/'testing')
images, labels = np.array([np.asarray(Image.open(o)) for o in files]), np.array([int(o.parent.name) for o in files])
known = Predictor('best').probs(images)[range(len(labels)), labels]
hard = [i for digit in range(10) for i in sorted(np.flatnonzero(labels == digit), key=lambda i: known[i])[:2]]
sheet = Image.fromarray(np.hstack(images[hard]))
sheet.save(Path(mnist_fastai.__file__).parent/'pretrained/hard_digits.png', optimize=True)
