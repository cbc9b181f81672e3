"""From any source of digits to fastai `DataLoaders`. Names of before the split still resolve, for old learners."""
from importlib import import_module

_moved = dict(DigitDL='core', stratified_splitter='core', training_files='core', mnist_block='core', mnist_dls='core',
              mnist_test_dl='core', image_files='folders', mnist_path='sources', describe='cache')


def __getattr__(name):
    "An exported learner of before the split names `mnist_fastai.data.DigitDL`: load its module when it is asked for"
    if name in _moved: return getattr(import_module(f'{__name__}.{_moved[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
