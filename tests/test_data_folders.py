"""Image folders: which layout is accepted."""
import shutil
from pathlib import Path

import pytest
from digit_files import good, png

from mnist_fastai.data.core import mnist_dls
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path


@pytest.mark.fault('bad data')
def test_folders_that_are_no_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder 'training'"): mnist_path(tmp_path)
    for name in good: (tmp_path/name).parent.mkdir(parents=True); (tmp_path/name).write_bytes(png())
    assert mnist_path(tmp_path) == tmp_path
    (tmp_path/'training'/'10').mkdir()
    with pytest.raises(ValueError, match="'10', which is not a digit"): mnist_path(tmp_path)


def test_hidden_folders_are_no_digits(tmp_path, digits):
    folder = Path(shutil.copytree(digits, tmp_path/'digits'))
    shutil.copytree(folder/'training'/'3', folder/'training'/'.ipynb_checkpoints')
    assert len(image_files(folder/'training')) == len(image_files(digits/'training'))
    assert mnist_dls(folder).vocab == [*'0123456789']
