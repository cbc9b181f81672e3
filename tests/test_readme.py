"""The READMEs' code runs, and their figures are those in results/. `make readme` writes the tables anew."""
import json
import re
import runpy
from pathlib import Path

import pandas as pd
import pytest
from serving import offline

from mnist_fastai.bench import bench_table
from mnist_fastai.benchmarks.augment import augment_table
from mnist_fastai.benchmarks.inference import inference_table
from mnist_fastai.benchmarks.overhead import overhead_table
from mnist_fastai.benchmarks.race import race_table
from mnist_fastai.benchmarks.scale import scale_table
from mnist_fastai.compare.leaderboard import leaderboard_table, format_mean_std, leaderboard
from mnist_fastai.utils import markdown_table

root = Path(__file__).parent.parent
pages = [root/'README.md', root/'results'/'README.md', root/'results'/'reliability.md']
readme = pages[0].read_text(encoding='utf-8')
board = pd.read_csv(root/'results'/'leaderboard.csv')
pairs = pd.read_csv(root/'results'/'pairs.csv')
trials = pd.read_csv(root/'results'/'trials.csv')
most = board.train_images.max()
accurate = leaderboard(pd.read_csv(root/'results'/'accuracy_trials.csv'))
aims = dict(micro=.99, tiny=.994, strong=.996, best=.9975)


def result(name): return json.loads((root/'results'/f'{name}.json').read_text())


def rows(*recipes, sizes=(most,)):
    part = board[board.recipe.isin(recipes) & board.train_images.isin(sizes)]
    return leaderboard_table(part)


def conditions():
    "What the leaderboard was measured on"
    def one(name): return ', '.join(str(o) for o in trials[name].unique())
    return (f"Seconds are of training, with {one('threads')} thread(s) of {one('cpu')}; torch {one('torch')}, "
            f"fastai {one('fastai')}.")


def difference(a, b, n=most):
    "How two recipes differ on the test set, in percentage points"
    r = pairs[(pairs.train_images == n) & pairs.a.isin([a, b]) & pairs.b.isin([a, b])].iloc[0]
    sign = 1 if r.a == a else -1
    low, high = sorted((sign*r.low, sign*r.high))
    noise = 'more than' if r.larger_than_noise else 'within'
    return (f'`{a}` minus `{b}`: {100*sign*r.test_difference:+.2f} points on the test images (95% interval '
            f'{100*low:+.2f} to {100*high:+.2f}, {r.seeds} seeds, adjusted p = {r.p_adjusted:.2g}): {noise} the noise.')


def on_all():
    "What was trained on all images beside what it was chosen by, and what was aimed at"
    lines = []
    for name, aim in aims.items():
        by_images = {r['train_images']: r for r in accurate[accurate.recipe == name].to_dict('records')}
        final, chosen = by_images.get(60_000), by_images.get(most, {})
        if final: lines.append([f'`{name}`', f"{final['parameters']:,}", final['epochs'], final['seeds'],
                                format_mean_std(final, 'test'), f'{100*aim:.4g}',
                                *(format_mean_std(chosen, o) for o in ('valid', 'stress', 'worst'))])
    return markdown_table(['recipe', 'parameters', 'epochs', 'seeds', 'test %', 'aim %', 'validation %', 'stress %',
                          'worst %'], lines)


def app():
    "How quick the page is, and how large"
    r = result('app')
    rounds, env = r['milliseconds'], r['environment']
    last, memory = max(o['round'] for o in rounds), [o['memory_mb'] for o in rounds]
    names = dict(median='median ms', slowest_twentieth='slowest 5%, ms', a_second='answers a second', memory_mb='MB')
    lines = [[', '.join(f'`{m}`' for m in o['models']), o['at_once'], *(f'{o[k]:.0f}' for k in names)]
             for o in rounds if o['round'] == last]
    return f'''{markdown_table(['models', 'requests at a time', *names.values()], lines)}

500 requests a row, the last of {last} rounds, on {env['cores']} cores of {env['cpu']}, of which the client takes its
share; memory in all rounds: {min(memory)} to {max(memory)} MB. Gradio {r['gradio']}; all that is installed takes
{r['installed_mb']} MB.'''


def faults():
    "What was injected, by kind"
    found = result('reliability')['faults']
    lines = [[kind, sum(n.values()), n['survived']] for kind, n in sorted(found.items())]
    total = [sum(o[i] for o in lines) for i in (1, 2)]
    return markdown_table(['kind', 'injected', 'survived'], [*lines, ['**together**', *total]])


def checkpoints():
    "What one adds to an epoch"
    return markdown_table(['recipe', 'an epoch, s', 'its checkpoint, s', 'share'], [
        [f"`{o['recipe']}`", f"{o['epoch']:.2f}", f"{o['checkpoint']:.3f}", f"{o['share']:.1%}"]
        for o in result('reliability')['checkpoints']])


def ten_thousand_trials(trials=10_000, workers=200):
    "What they cost on a hundred machines of two cores"
    empty, trial = result('reliability')['cluster'].values()
    n, took = empty['tasks'], trials*trial['seconds']/workers
    sent, files = (trial[o]/1e6 for o in ('bytes_sent', 'bytes_of_files'))
    table = markdown_table(['', 'measured', f'for {trials:,} trials'], [
        ['time of a trial', f"{trial['seconds']:.0f} s, {trial['seconds_of_training']:.0f} s of them training",
         f"{trials*trial['seconds']/3600:.0f} hours of a core, **{took/60:.0f} minutes** on {workers} cores"],
        ['time of the scheduler', f"{n/empty['seconds']:.0f} empty ones a second",
         f"{trials*empty['seconds']/n:.0f} s"],
        ['messages to the scheduler', f"{empty['messages']/n:.0f} a trial", f"{trials*empty['messages']/n:,.0f}"],
        ['sent without files', f"{empty['bytes']/n:,.0f} bytes a trial", f"{trials*empty['bytes']/n/1e6:.0f} MB"],
        ['sent with files', f'{sent:.1f} MB a trial', f'{trials*sent/1000:.0f} GB, {trials*sent/took:.0f} MB a second'],
        ['files', f'{files:.1f} MB a trial', f'{trials*files/1000:.0f} GB']])
    return f"Trials of `{trial['recipe']}` on MNIST, one thread each; measured on one machine, two workers:\n\n{table}"


plain = [o for o in board.recipe.unique() if ':' not in o]
small = board.train_images.min()
both = sorted(set(board[board.train_images == small].recipe) & set(plain))
blocks = {
    **{f'bench {o}': bench_table(result(f'bench_{o}')) for o in ('simple_cnn', 'two_conv')},
    'bench augment': augment_table(result('bench_augment')),
    'overhead': overhead_table(result('bench_overhead')),
    'race': race_table(result('bench_race')),
    'scale': scale_table(result('bench_scale')),
    'inference': inference_table(result('bench_inference')),
    'app': app(),
    'on all': on_all(),
    'faults': faults(),
    'checkpoints': checkpoints(),
    'ten thousand trials': ten_thousand_trials(),
    'leaderboard': f'{rows(*plain)}\n\n{conditions()}',
    'one or two': '\n\n'.join([rows('one_conv', 'two_conv', 'one_conv:epochs=30'), difference('two_conv', 'one_conv'),
                               difference('one_conv:epochs=30', 'one_conv'),
                               difference('two_conv', 'one_conv:epochs=30')]),
    'sizes': rows(*both, sizes=(small, most)),
    'classical': rows('simple', 'two_conv', 'mlp', 'svm', 'knn', 'linear'),
    'batchnorm and augmentation': '\n\n'.join([
        rows('classic_cnn', 'batchnorm_aug:augment=none', 'batchnorm_aug'),
        difference('batchnorm_aug:augment=none', 'classic_cnn'),
        difference('batchnorm_aug', 'batchnorm_aug:augment=none')]),
}


def written(text):
    "A page with its tables made from results/"
    def table(match): return f'<!-- {match[1]} -->\n{blocks[match[1]]}\n<!-- end -->'
    return re.sub(r'<!-- ((?!end)[\w ]+) -->\n.*?<!-- end -->', table, text, flags=re.S)


@pytest.mark.parametrize('page', pages, ids=lambda o: f'{o.parent.name}/{o.name}')
def test_its_tables_are_the_results(page):
    assert written(page.read_text(encoding='utf-8')) == page.read_text(encoding='utf-8'), 'make readme'


def test_every_table_is_shown():
    shown = {o for page in pages for o in re.findall(r'<!-- ((?!end)[\w ]+) -->', page.read_text(encoding='utf-8'))}
    assert shown == set(blocks)


def test_the_page_about_pictures_is_its_results():
    report = runpy.run_path(str(root/'results'/'pictures.py'))['report']
    page = (root/'results'/'pictures.md').read_text(encoding='utf-8')
    assert report(result('pictures')) == page, 'python results/pictures.py --only'


def test_the_results_are_about_mnist():
    assert set(trials.dataset) == {'MNIST'}
    for r in board.itertuples():
        same = trials[(trials.recipe == r.recipe) & (trials.train_images == r.train_images)]
        assert len(same) == r.seeds and same.test.mean() == pytest.approx(r.test, abs=1e-5)
        assert r.seeds >= 3 or pd.isna(r.epochs)  # what has no randomness is run once
    measured = 'simple_cnn', 'two_conv', 'augment', 'overhead', 'race', 'scale'
    assert {result(f'bench_{o}')['dataset'] for o in measured} == {'MNIST'}


def test_its_accuracy_is_that_of_the_leaderboard():
    r = board[(board.recipe == 'simple') & (board.train_images == most)].iloc[0]
    assert f'**{100*r.test:.2f}% ± {100*r.test_std:.2f}**' in readme
    fast = 100*pd.Series(result('bench_race')['rows']['`fast`']['accuracies'])
    assert f'**{fast.mean():.2f}% ± {fast.std():.2f}** ({len(fast)} seeds)' in readme


def test_its_code_runs_from_data_to_prediction(sh, tmp_path):
    code = re.search(r'```python\n(.*?)```', readme, re.S)[1]
    show = '\nprint(label, int(index), f"{probs.sum():.3f}")'
    done = sh('python', code + show, FASTAI_HOME=str(tmp_path/'home'), **offline)
    assert done.returncode == 0, done.stderr
    label, index, total = done.stdout.splitlines()[-1].split()
    assert label == index and total == '1.000'


@pytest.mark.parametrize('page', pages, ids=lambda o: f'{o.parent.name}/{o.name}')
def test_every_file_it_links_to_is_there(page):
    links = [o for o in re.findall(r'\]\(([^)]+)\)', page.read_text(encoding='utf-8')) if not o.startswith('http')]
    assert len(links) > 3 and all((page.parent/o).exists() for o in links)


if __name__ == '__main__':
    for page in pages: page.write_text(written(page.read_text(encoding='utf-8')), encoding='utf-8')
