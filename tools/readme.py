"""Write the tables of README.md, docs/ and results/ from the files in results/: `make readme`.

A table stands between `<!-- name -->` and `<!-- end -->`, and `tables` below says what is in it. A figure in a table is
never typed: change the file in results/ (with the command that results/README.md names for it), then run this.
"""
import json
import re
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
from count import import_graph

from mnist_fastai.bench import bench_table
from mnist_fastai.benchmarks.augment import augment_table
from mnist_fastai.benchmarks.inference import inference_table
from mnist_fastai.benchmarks.overhead import overhead_table
from mnist_fastai.benchmarks.race import race_table
from mnist_fastai.benchmarks.scale import scale_table
from mnist_fastai.compare.leaderboard import leaderboard_table, format_mean_std, leaderboard
from mnist_fastai.models import archs, n_params
from mnist_fastai.recipes import recipes
from mnist_fastai.utils import markdown_table

root = Path(__file__).parents[1]
pages = [root/'README.md', root/'CONTRIBUTING.md', *sorted(root.glob('docs/*.md')), root/'results'/'README.md',
         root/'results'/'reliability.md']
board = pd.read_csv(root/'results'/'leaderboard.csv')
pairs = pd.read_csv(root/'results'/'pairs.csv')
trials = pd.read_csv(root/'results'/'trials.csv')
most = board.train_images.max()
accurate_trials = pd.read_csv(root/'results'/'accuracy_trials.csv')
accurate = leaderboard(accurate_trials)
aims = dict(micro=.99, tiny=.994, strong=.996, best=.9975)


def result(name): return json.loads((root/'results'/f'{name}.json').read_text())


def rows(*recipes, sizes=(most,)):
    "Some rows of the leaderboard"
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


def summary():
    "The recipes to know, on one screen"
    def line(name, parameters, test, seeds, seconds, cpu, threads, images):
        hardware = f"{threads} thread{'s'*int(threads > 1)} of {re.sub(r'[(]R[)]| Processor', '', cpu)}"
        return [f'`{name}`', f'{parameters:,}', test, seeds, seconds, hardware, f'{images:,}']
    def trained(name, board, trials, images):
        row = board[(board.recipe == name) & (board.train_images == images)].iloc[0]
        runs = trials[(trials.recipe == name) & (trials.train_images == images)]
        (cpu,), (threads,) = runs.cpu.unique(), runs.threads.unique()
        test, seconds = format_mean_std(row, 'test'), f'{row.seconds:,.0f}'
        return line(name, row.parameters, test, row.seeds, seconds, cpu, threads, images)
    race = result('bench_race')
    fast, parameters = race['rows']['`fast`'], n_params(archs[recipes['fast'].arch]())
    scores = pd.Series(fast['accuracies'])
    test = format_mean_std(dict(test=scores.mean(), test_std=scores.std()), 'test')
    seconds = f"{fast['seconds']['median']:.1f}"
    lines = [trained('simple', board, trials, most),
             line('fast', parameters, test, len(scores), seconds, race['cpu'], race['threads'], 60_000),
             *(trained(name, accurate, accurate_trials, 60_000) for name in ('tiny', 'strong', 'best'))]
    return markdown_table(['recipe', 'parameters', 'test % ± sd', 'seeds', 'seconds', 'hardware', 'images'], lines)


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


def service():
    "How quick the service is beside the page, and how large both are"
    r = result('service')
    def median(name, of, kind, at_once): return statistics.median(
        o[of] for o in r['rounds'][name] if (o['pictures'], o['at_once']) == (kind, at_once))
    kinds = [*dict.fromkeys((o['pictures'], o['at_once']) for o in r['rounds']['page'])]
    lines = [[kind, at_once, command, f"{median(name, 'a_second', kind, at_once):,.0f}",
              *(f'{median(name, of, kind, at_once):.1f}' for of in ('median', 'p99'))]
             for kind, at_once in kinds for name, command in (('page', '`mnist-app`'), ('service', '`mnist-serve`'))]
    more = [f"{median('service', 'a_second', *o)/median('page', 'a_second', *o):.1f} times as many answers ({o[0]})"
            for o in kinds if o[1] > 1]
    starts, first, bad, steady = (r[o] for o in ('start_seconds', 'first_mb', 'bad_inputs', 'steady_mb'))
    rounds, most = (max(o[k] for o in r['rounds']['page']) for k in ('round', 'at_once'))
    env, versions, failed = r['environment'], r['versions'], sum(n for status, n in bad.items() if status >= '500')
    return f'''{markdown_table(['pictures', 'at a time', 'command', 'answers a second', 'median ms', 'p99 ms'], lines)}

With {most} requests at a time that is {' and '.join(more)}. Medians of {rounds} rounds, on
{env['cores']} cores of {env['cpu']}, of which the client takes its share; both run at the same time, with `best`.

| | until it answers, s | MB after the first answers |
| --- | ---: | ---: |
| `mnist-app` | {starts['page']:.1f} | {first['page']} |
| `mnist-serve` | {starts['service']:.1f} | {first['service']} |

Memory of `mnist-serve` in {r['steady_requests']:,} requests: {steady[0]} MB before, at most {max(steady)}, {steady[-1]}
after. Broken pictures and forms: {sum(bad.values()):,}, of which {failed} got a status of 500 or above.
FastAPI {versions['fastapi']}, uvicorn {versions['uvicorn']}, Gradio {versions['gradio']}.'''


def faults():
    "What was injected, by kind"
    found = result('reliability')['faults']
    lines = [[kind, sum(n.values()), n['survived']] for kind, n in sorted(found.items())]
    total = [sum(o[i] for o in lines) for i in (1, 2)]
    return markdown_table(['kind', 'injected', 'survived'], [*lines, ['**together**', *total]])


def own_digits():
    "How own digits and MNIST are read before and after fine-tuning"
    found, lines = result('finetune')['trials'], []
    for n in sorted({o['pictures'] for o in found}):
        trials = [o for o in found if o['pictures'] == n]
        (before, own), (old, valid) = (100*np.array([o[k] for o in trials]).T for k in ('own', 'valid'))
        test = 100*np.mean([o['test'] for o in trials])
        means = [f'{o:.2f}' for o in (before.mean(), own.mean(), own.min(), old.mean(), valid.mean(), test)]
        lines.append([f'{n:,}', len(trials), *means])
    best = json.loads((root/'mnist_fastai'/'pretrained'/'best.json').read_text())
    table = markdown_table(['pictures', 'persons', 'own % before', 'after', 'of the worst', 'MNIST validation % before',
                            'after', 'test % after'], lines)
    return f"{table}\n\nBefore, `best` read {best['metrics']['test']['accuracy']:.2%} of the test images."


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


def layout():
    "Each module and its subject; each imports only from those above it"
    subjects, graph, lines = {}, import_graph(root), ['| module | what is in it |', '| --- | --- |']
    for file in sorted(root.glob('nbs/[0-9]*.ipynb')):
        first = ''.join(json.loads(file.read_text(encoding='utf-8'))['cells'][0]['source'])
        name, subject = re.match(r'# (.+)\n\n> (.+)', first).groups()
        subjects[name] = f'| [`{name}`](nbs/{file.name}) | {subject} |'
    def add(name):
        for o in sorted(graph[name], key=[*subjects].index): add(o)
        if subjects[name] not in lines: lines.append(subjects[name])
    for name in subjects: add(name)
    return '\n'.join(lines)


plain = [o for o in board.recipe.unique() if ':' not in o]
small = board.train_images.min()
both = sorted(set(board[board.train_images == small].recipe) & set(plain))
tables = {
    **{f'bench {o}': bench_table(result(f'bench_{o}')) for o in ('simple_cnn', 'two_conv')},
    'bench augment': augment_table(result('bench_augment')),
    'overhead': overhead_table(result('bench_overhead')),
    'race': race_table(result('bench_race')),
    'scale': scale_table(result('bench_scale')),
    'inference': inference_table(result('bench_inference')),
    'app': app(),
    'service': service(),
    'summary': summary(),
    'layout': layout(),
    'on all': on_all(),
    'own digits': own_digits(),
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
    def table(match): return f'<!-- {match[1]} -->\n{tables[match[1]]}\n<!-- end -->'
    return re.sub(r'<!-- ((?!end)[\w ]+) -->\n.*?<!-- end -->', table, text, flags=re.S)


if __name__ == '__main__':
    for page in pages: page.write_text(written(page.read_text(encoding='utf-8')), encoding='utf-8')
