"""For the time being: all of this is in `mnist_fastai.pictures.photos`."""
from mnist_fastai.pictures.photos import *  # noqa: F403
from mnist_fastai.pictures.photos import ndimage, smooth

gaussian_filter, smooth = ndimage.gaussian_filter, smooth
