"""The README's code runs, and its figures are those in results/."""
import csv
import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest
from conftest import offline

from mnist_fastai.bench import bench_table

root = Path(__file__).parent.parent
readme = (root/'README.md').read_text()


def test_its_code_runs_from_data_to_prediction(sh, tmp_path):
    code = re.search(r'```python\n(.*?)```', readme, re.S)[1]
    show = '\nprint(label, int(index), f"{probs.sum():.3f}")'
    done = sh('python', code + show, FASTAI_HOME=str(tmp_path/'home'), **offline)
    assert done.returncode == 0, done.stderr
    label, index, total = done.stdout.splitlines()[-1].split()
    assert label == index and total == '1.000'


@pytest.mark.parametrize('name', re.findall(r'<!-- bench (\w+) -->', readme) or ['none'])
def test_its_tables_are_the_results(name):
    result = json.loads((root/'results'/f'bench_{name}.json').read_text())
    assert result['dataset'] == 'MNIST' and result['runs'] >= 3
    assert f'<!-- bench {name} -->\n{bench_table(result)}\n' in readme


def test_its_accuracy_is_the_mean_of_the_committed_seeds():
    with (root/'results'/'simple_cnn_seeds.csv').open() as f:
        accs = [float(r['test_accuracy']) for r in csv.DictReader(f) if r['dataset'] == 'MNIST']
    assert len(accs) == 5 and f'**{100*mean(accs):.2f}% ± {100*stdev(accs):.2f}**' in readme


def test_every_file_it_links_to_is_there():
    links = [o for o in re.findall(r'\]\(([^)]+)\)', readme) if not o.startswith('http')]
    assert len(links) > 5 and all((root/o).exists() for o in links)
