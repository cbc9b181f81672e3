"""The commands, as people run them: in processes of their own, from any folder, with mistakes."""
import inspect
import os
import re
import shlex
import shutil
import zipfile

import pytest
from conftest import only_full, run_command
from digit_files import as_csv, some_images, some_labels
from serving import offline
from PIL import Image

from mnist_fastai import cli
from mnist_fastai.benchmarks.inference import bench_inference, inference_table
from mnist_fastai.inference import default_reject_below
from mnist_fastai.recipes import recipes
from mnist_fastai.train import train
from mnist_fastai.utils import read_json

commands = [f'mnist-{o}' for o in ('data', 'train', 'train-finder', 'compare', 'sweep', 'lr-find', 'export', 'predict',
                                  'read', 'kaggle', 'evaluate', 'bench')]


@pytest.mark.parametrize('name', commands)
def test_help_explains_every_option(name, sh):
    done = sh(name, '--help')
    assert done.returncode == 0
    for option in inspect.signature(getattr(cli, name.replace('-', '_'))).parameters:
        assert re.search(rf'{option.lower().replace("_", "[-_]")}.*\w', done.stdout), option


def test_help_waits_for_no_import(sh):
    done = sh('python', 'import sys, mnist_fastai.cli; print({"torch", "fastai", "matplotlib"} & set(sys.modules))')
    assert done.stdout.strip() == 'set()'


def test_the_command_and_the_function_take_the_same():
    def plain(f): return {k: (v.default, getattr(v.annotation, '__args__', [v.annotation])[0])  # int of int|None
                          for k, v in inspect.signature(f).parameters.items()}
    options = plain(cli.mnist_train)
    for name in ('list', 'resume', 'From', 'offline', 'version'): assert options.pop(name)
    assert options == plain(train)


def test_the_finders_command_takes_what_its_function_takes():
    from mnist_fastai.pictures.finder import train_finder
    def plain(f): return {k: v.default for k, v in inspect.signature(f).parameters.items()}
    assert plain(cli.mnist_train_finder) == plain(train_finder) | dict(offline=False, version='')


def test_commands_and_the_page_reject_the_same():
    from mnist_fastai.app.core import build_app
    for f in (cli.mnist_predict, cli.mnist_read, cli.mnist_app, build_app):
        assert inspect.signature(f).parameters['reject_below'].default == default_reject_below, f


def test_training_in_a_pipe_is_a_line_an_epoch_and_a_summary(trained):
    run, out = trained
    epochs = [o for o in out.splitlines() if o.startswith('epoch ')]
    assert len(epochs) == 6 and epochs[-1].startswith('epoch 6/6  train_loss')
    assert '\r' not in out and '\x1b' not in out
    last = out.strip().splitlines()[-7:]
    assert last[0] == 'data set       digits (not MNIST)'
    assert last[1] == 'recipe         simple, 108,922 parameters'
    assert re.fullmatch(r'test accuracy  9\d\.\d\d% \(95% interval .*, 360 digits\)', last[2])
    assert 'learner.pkl' in last[5] and str(run.name) in last[5]


def test_predicting_in_another_process_and_folder(trained, sh, tmp_path, digits):
    run = shutil.copytree(trained[0], tmp_path/'run')  # its ONNX file is written there at first use
    files = [str(sorted((digits/'testing'/str(i)).iterdir())[0]) for i in range(10)]
    done = sh('mnist-predict', *files, '--model', run)
    assert done.returncode == 0, done.stderr
    rows = [o.split() for o in done.stdout.splitlines()]
    assert [r[0] for r in rows] == files
    assert sum(r[1] == str(i) for i, r in enumerate(rows)) >= 9


def test_a_folder_stands_for_the_pictures_in_it(sh, tmp_path, digits):
    for digit in (3, 7): shutil.copytree(digits/'testing'/str(digit), tmp_path/'scans'/str(digit))
    (tmp_path/'scans'/'notes.txt').touch()
    done = sh('mnist-predict', 'scans', '--csv')
    assert done.returncode == 0, done.stderr
    files = [row.split(',')[0] for row in done.stdout.splitlines()[1:]]
    assert files == sorted(str(o.relative_to(tmp_path)) for o in (tmp_path/'scans').rglob('*.png'))


def test_auto_without_mnist_says_so_before_and_after(sh, tmp_path):
    done = sh('mnist-train', '--epochs', 1, '--bs', 64, FASTAI_HOME=str(tmp_path/'home'), **offline)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index('THIS IS NOT MNIST') < done.stdout.index('epoch 1/1')
    assert 'digits (not MNIST)' in done.stdout.splitlines()[-7]
    run = next((tmp_path/'runs').iterdir())
    assert 'digits' in run.name and 'digits (not MNIST)' in (run/'metrics.json').read_text()


def test_lr_find_suggests_and_draws(sh, tmp_path):
    done = sh('mnist-lr-find', '--data', 'digits', '--bs', 64, '--num-it', 60)
    assert done.returncode == 0, done.stderr
    assert re.search(r'valley\s+[\d.e-]+\n', done.stdout)
    assert (tmp_path/'lr_find.png').read_bytes()[:4] == b'\x89PNG'


def test_list_shows_every_recipe_and_trains_nothing(sh, tmp_path):
    done = sh('mnist-train', '--list')
    assert done.returncode == 0, done.stderr
    head, *rows = [re.split(r'  +', o) for o in done.stdout.splitlines()]
    assert head == ['recipe', 'network', 'parameters epochs', 'what for'] and [r[0] for r in rows] == [*recipes]
    two_conv = next(o for o in done.stdout.splitlines() if o.startswith('two_conv'))
    assert '30,840' in two_conv and ' 10 ' in two_conv
    assert not list(tmp_path.iterdir())


def test_a_recipe_with_changes_is_trained_and_its_learner_predicts(sh, tmp_path, digits):
    done = sh('mnist-train', '--data', 'digits', '--recipe', 'two_conv:epochs=2', '--augment', 'affine+erase',
              '--lr', .01)
    assert done.returncode == 0, done.stderr
    config = read_json(next((tmp_path/'runs').iterdir())/'config.json')
    assert (config['arch'], config['epochs'], config['augment'], config['bs'], config['lr']) == \
           ('two_conv', 2, 'affine+erase', 32, .01)
    done = sh('mnist-predict', next((digits/'testing'/'1').iterdir()), '--model', next((tmp_path/'runs').iterdir()))
    assert done.returncode == 0, done.stderr


def test_bench_times_augmentation_beside_a_step(sh, tmp_path):
    done = sh('mnist-bench', '--data', 'digits', '--bs', 64, '--what', 'augment', '--out', 'augment.json')
    assert done.returncode == 0, done.stderr
    found = read_json(tmp_path/'augment.json')['milliseconds_a_batch']
    assert list(found) == ['training step', 'affine', 'elastic', 'erase', 'stroke', 'paper',
                           'affine+elastic+erase+stroke+paper']
    assert min(found.values()) > 0


@pytest.mark.parametrize('source', ['my data', 'my data/train.csv', 'my data.zip'])
def test_the_step_that_is_printed_after_training_on_kaggles_digits_answers_its_test(source, sh, tmp_path, digits):
    (folder := tmp_path/'my data').mkdir()
    as_csv(folder/'train.csv', some_images, some_labels)
    (folder/'test.csv').write_text(''.join(  # the same without labels
        o.partition(',')[2] + '\n' for o in (folder/'train.csv').read_text().splitlines()))
    with zipfile.ZipFile(tmp_path/'my data.zip', 'w') as f:
        for name in ('test.csv', 'train.csv'): f.write(folder/name, name)
    if source.endswith('.zip'): shutil.rmtree(folder)
    done = sh('mnist-train', '--data', f'{source}:all', '--valid-size', 0, '--epochs', 1, '--out', 'a run')
    assert done.returncode == 0, done.stderr
    assert 'test accuracy  none: trained on all' in done.stdout and 'validation     none: trained on all' in done.stdout
    assert read_json(tmp_path/'a run'/'metrics.json')['train_images'] == 200
    step = shlex.split(done.stdout.splitlines()[-1].removeprefix('next'))
    assert shutil.which(step[0]), 'it works in this shell, which may not know .venv/bin'
    step[0] = os.path.basename(step[0])
    assert step[0] == 'mnist-kaggle' and step[2:] == ['submission.csv', '--model', 'a run']
    assert (done := sh(*step)).returncode == 0, done.stderr
    assert 'Warning' not in done.stdout
    first = (tmp_path/'submission.csv').read_text()
    assert first.count('\n') == 201
    (tmp_path/'submission.csv').write_text('of yesterday')
    done = sh(*step)
    assert done.returncode == 1 and "'submission.csv' is there already" in done.stderr and done.stderr.count('\n') == 1
    assert (tmp_path/'submission.csv').read_text() == 'of yesterday'
    assert sh(*step, '--force').returncode == 0 and (tmp_path/'submission.csv').read_text() == first


def test_a_packaged_reader_that_has_seen_kaggles_images_says_so(tmp_path, capsys):
    as_csv(tmp_path/'train.csv', some_images[:3], some_labels[:3])
    (tmp_path/'test.csv').write_text(''.join(
        o.partition(',')[2] + '\n' for o in (tmp_path/'train.csv').read_text().splitlines()))
    assert len(cli.mnist_kaggle(tmp_path, tmp_path/'submission.csv', model='tiny')) == 3
    assert "Warning: 'tiny' was trained on most of Kaggle's test images" in capsys.readouterr().out


@pytest.mark.parametrize('model', ['tiny', pytest.param('best', marks=only_full)])
def test_bench_times_reading_beside_fastai(model):
    found = bench_inference('digits', runs=1, threads=1, model=model)
    assert len(found['milliseconds']) == 6 and min(found['milliseconds'].values()) > 0
    assert '| `Learner.predict`, the same path |' in inference_table(found)


def test_bench_compares_three_ways(sh, tmp_path):
    done = sh('mnist-bench', '--data', 'digits', '--bs', 64, '--runs', 1, '--out', 'bench.json')
    assert done.returncode == 0, done.stderr
    for letter in 'abc': assert f'| ({letter}) ' in done.stdout
    assert '"dataset": "digits (not MNIST)"' in (tmp_path/'bench.json').read_text()


mistakes = {
    'no such data':       (['mnist-train', '--data', 'nowhere'], "there is no data at 'nowhere'"),
    'a folder of things': (['mnist-train', '--data', 'folder'], "has no folder 'training'"),
    'a word for epochs':  (['mnist-train', '--epochs', 'many'], 'invalid int value'),
    'no epochs':          (['mnist-train', '--data', 'digits', '--epochs', '0'], 'epochs=0 is not possible'),
    'an infinite rate':   (['mnist-train', '--data', 'digits', '--lr', 'inf'], 'lr=inf is not possible'),
    'no benchmark':       (['mnist-bench', '--data', 'digits', '--what', 'lunch'], "there is no benchmark 'lunch'"),
    'no threads':         (['mnist-bench', '--data', 'digits', '--threads', '0'], 'threads=0 is not possible'),
    'unknown option':     (['mnist-train', '--epoch-count', '3'], 'unrecognized arguments'),
    'unknown network':    (['mnist-train', '--data', 'digits', '--arch', 'vgg'], "there is no network 'vgg'"),
    'unknown recipe':     (['mnist-train', '--data', 'digits', '--recipe', 'vgg'], "there is no recipe 'vgg'"),
    'epochs of a knn':    (['mnist-train', '--recipe', 'knn', '--epochs', '3'], 'knn is fitted in one piece'),
    'a rate of a knn':    (['mnist-lr-find', '--data', 'digits', '--recipe', 'knn'], 'there is no learning rate'),
    'unknown tracker':    (['mnist-train', '--data', 'digits', '--log', 'mlflow'], "there is no tracker 'mlflow'"),
    'a run inside a file': (['mnist-train', '--data', 'digits', '--epochs', '1', '--out', 'note.txt/run'], 'note.txt'),
    'a folder in use':    (['mnist-train', '--data', 'digits', '--out', 'folder'], 'nothing is overwritten'),
    'no images':          (['mnist-predict'], 'required: images'),
    'an empty model':     (['mnist-predict', 'grey.png', '--model', 'folder'], 'has no weights to predict with'),
    'no such model':      (['mnist-predict', 'grey.png', '--model', 'vgg'], "there is no model 'vgg': expected best"),
    'no model':           (['mnist-predict', 'grey.png', '--model', 'note.txt'], "'note.txt' is not a model"),
    'no such image':      (['mnist-predict', 'no.png'], "No such file or directory: 'no.png'"),
    'a URL to read':      (['mnist-predict', 'https://a.org/3.png'], "'https://a.org/3.png' is a URL: download it"),
    'a URL to train on':  (['mnist-train', '--data', 'https://a.org/d.tgz'], "'https://a.org/d.tgz' is a URL"),
    'an empty folder':    (['mnist-read', 'folder'], "'folder' is a folder without pictures"),
    'a typing error':     (['mnist-train', '--data', 'digits', '--recipe', 'simpel'], "(did you mean 'simple'?)"),
    'an old word':        (['mnist-train', '--recipe', 'simple:epoch=3'], "(did you mean 'epochs'?)"),
    'another model':      (['mnist-evaluate', 'tinny'], "there is no model 'tinny' (did you mean 'tiny'?)"),
    'no image':           (['mnist-predict', 'note.txt'], "'note.txt' is not a picture: expected PNG"),
    'no ink':             (['mnist-predict', 'grey.png'], 'there is no digit in this picture'),
    'no page':            (['mnist-read', 'grey.png'], 'there is no digit in this picture'),
    'eleven digits':      (['mnist-predict', 'grey.png', '--top', '11'], 'top=11 is not possible'),
    'no probability':     (['mnist-read', 'grey.png', '--reject-below', '2'], 'reject_below=2.0 is not a probability'),
    'no CSV of digits':   (['mnist-kaggle', 'note.txt', 'out.csv'], "expected Kaggle's pixel0, ..., pixel783"),
    'a file is there':    (['mnist-kaggle', 'note.txt', 'note.txt'], "'note.txt' is there already"),
    'no test.csv':        (['mnist-kaggle', 'folder', 'out.csv'], "'folder' has no test.csv"),
    'three models':       (['mnist-evaluate', 'best', 'tiny', 'strong'], '3 models do not fit on a page'),
    'no pictures':        (['mnist-evaluate', 'tiny', '--data', 'folder/0'], "there is no data at 'folder/0'"),
    'no digit to read':   (['mnist-evaluate', 'tiny', '--data', 'grey'], "no digit could be read in 'grey'"),
    'a report in use':    (['mnist-evaluate', 'tiny', '--data', 'digits', '--out', 'folder'], 'nothing is overwritten'),
    'nobody to evaluate': (['mnist-evaluate', 'vgg'], "there is no model 'vgg': expected best"),
    'few batches':        (['mnist-lr-find', '--data', 'digits', '--num-it', '3'], 'too few to suggest'),
}


@pytest.mark.fault('mistaken option')
@pytest.mark.parametrize('name', mistakes)
def test_a_mistake_is_one_clear_line_and_leaves_nothing(name, sh, tmp_path, trained):
    args, message = mistakes[name]
    (tmp_path/'folder').mkdir()
    (tmp_path/'folder'/'thing').touch()
    (tmp_path/'note.txt').write_text('hello')
    Image.new('L', (90, 90), 200).save(tmp_path/'grey.png')
    (tmp_path/'grey'/'4').mkdir(parents=True)
    shutil.copy(tmp_path/'grey.png', tmp_path/'grey'/'4')
    before = sorted(tmp_path.rglob('*'))
    done = sh(*[str(trained[0]) if a == 'RUN' else a for a in args])
    assert done.returncode in (1, 2) and 'Traceback' not in done.stderr
    assert message in done.stderr.strip().splitlines()[-1]
    assert done.stderr.count('\n') == 1 or 'usage:' in done.stderr
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('where', ['runs', 'home'])
def test_no_write_permission_is_one_clear_line(where, tmp_path):
    (tmp_path/'locked').mkdir(mode=0o500)
    locked_home = dict(FASTAI_HOME=str(tmp_path/'locked'/'x')) if where == 'home' else {}
    cwd = tmp_path/'locked' if where == 'runs' else tmp_path
    prefix = []
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that up
        if not (setpriv := shutil.which('setpriv')): pytest.skip('run as root, and there is no setpriv')
        drop = '-dac_override,-dac_read_search,-fowner'
        prefix = [setpriv, f'--bounding-set={drop}', f'--inh-caps={drop}']
    done = run_command('mnist-train', '--data', 'digits', '--epochs', 1, cwd=cwd, prefix=prefix, **locked_home)
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and 'no permission' in done.stderr
