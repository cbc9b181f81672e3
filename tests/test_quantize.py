"""A network in 8-bit integers: smaller, nearly as accurate, and a reader like any other."""
import pytest
from conftest import run_command

from mnist_fastai.data.folders import image_files
from mnist_fastai.inference import Predictor
from mnist_fastai.quantize import export_int8
from mnist_fastai.train import train
from mnist_fastai.utils import read_json


@pytest.fixture(scope='module')
def trained_run(tmp_path_factory, digits):
    return train('digits', 'simple', epochs=3, out=tmp_path_factory.mktemp('int8')/'run').path


def test_it_is_a_third_of_the_size_and_says_how_accurate_it_is(trained_run, digits, tmp_path):
    found = export_int8(trained_run, tmp_path/'mine')
    assert [o.name for o in found.files] == ['mine-int8.onnx', 'mine-int8.json']
    assert found.files[0].stat().st_size < (tmp_path/'mine.onnx').stat().st_size/3
    about = read_json(found.files[1])
    assert about['valid_int8'] == found.int8 and about['valid_float32'] == found.float32
    assert about['metrics']['valid']['correct'] == found.float32['correct'], 'it is the network that was trained'
    assert found.float32['correct'] - found.int8['correct'] <= 5
    files = image_files(digits/'testing')[::12]
    whole, small = (Predictor(tmp_path/o).predict_batch(files) for o in ('mine.onnx', 'mine-int8.onnx'))
    assert sum(a.perhaps == b.perhaps for a, b in zip(whole, small)) >= len(files) - 1


def test_the_command_prints_both_accuracies(trained_run, tmp_path):
    done = run_command('mnist-export', trained_run, '--out', 'mine', '--int8', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [o.split()[0] for o in done.stdout.splitlines()[-2:]] == ['float32', 'int8']
    assert (tmp_path/'mine-int8.onnx').is_file()


def test_a_run_without_validation_images_is_refused(tmp_path, digits):
    run = train('digits', 'mlp', epochs=1, valid_size=0, out=tmp_path/'run').path
    with pytest.raises(ValueError, match='kept no validation images'): export_int8(run)
    assert not (run/'weights-int8.onnx').exists()
