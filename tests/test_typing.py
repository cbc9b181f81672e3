"""What a type checker says of a program that uses the package."""
import os
import subprocess
import sys
from pathlib import Path

from conftest import only_full

program = '''
from pathlib import Path
from fastai.vision.all import *
from mnist_fastai.all import *

dls = mnist_dls('digits', bs=64, train_size=None, num_workers=None)
learn = mnist_learner(dls, 'simple_cnn')
learn.fit_one_cycle(1, 1e-2)
find_lr(learn, plot=None)
run = train('digits', 'simple', train_size=None, log=None, out=Path('run'), epochs=1)
print(run.path, load_run(None), find_run(run.path))
board = compare(['mlp'], jobs=None, scheduler=None).board
reader = Predictor('best')
answer = reader.predict(Path('a.png'))
print(answer.digit, answer.prob, [line.text for line in reader.read('page.jpg')])
export_weights(run.path, out=None)
'''


@only_full
def test_a_type_checker_accepts_a_program_and_finds_its_mistakes(tmp_path):
    def check(text):
        (tmp_path/'program.py').write_text(text)
        done = subprocess.run([sys.executable, '-m', 'mypy', '--follow-imports=silent', '--ignore-missing-imports',
                               'program.py'], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, 'MYPYPATH': str(Path(__file__).parents[1])})
        return done.stdout
    assert 'Success' in (said := check(program)), said
    wrong = program.replace("'best'", "'best', reject_below='much'").replace('out=None', 'out=3')
    assert check(wrong).count('error:') == 2
