"""The ensemble and the mistakes of two comparisons: `python results/accuracy.py CHOSEN FINAL`.

CHOSEN kept validation images, on which members and votes are chosen; FINAL was trained on all training images."""
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from mnist_fastai.compare.ensemble import choose_members, ensemble
from mnist_fastai.compare.leaderboard import read_trials
from mnist_fastai.data.folders import image_files
from mnist_fastai.data.sources import mnist_path
from mnist_fastai.environment import environment
from mnist_fastai.runs import load_predictions
from mnist_fastai.utils import write_json

here = Path(__file__).parent


def trials_of(folder):
    "A row for each finished trial, with its path"
    trials = read_trials([o.parent for o in Path(folder).glob('trials/*/metrics.json')])
    recipe = trials.recipe.str.partition(':teacher')[0]  # while choosing, the teacher was another
    return trials.assign(recipe=recipe, path=[Path(folder)/'trials'/o for o in trials.trial])


def mistakes(trials):
    "Every test image that a training gets wrong: a row each"
    files, rows = image_files(mnist_path('mnist')/'testing'), []
    for t in trials.itertuples():
        scores, labels = load_predictions(t.path)
        probs = softmax(scores, 1)
        for i in np.flatnonzero(probs.argmax(1) != labels):
            rows.append(dict(recipe=t.recipe, seed=t.seed, image=f'{files[i].parent.name}/{files[i].name}',
                             predicted=probs[i].argmax(), probability=round(float(probs[i].max()), 4)))
    return pd.DataFrame(rows)


chosen, final = (trials_of(o) for o in sys.argv[1:3])
candidates = chosen[chosen.recipe.isin(final.recipe)].drop_duplicates('recipe')
votes = choose_members([*candidates.path])
by_recipe = {name: [*g.path] for name, g in final.groupby('recipe')}
members = [(path, v/len(by_recipe[name])) for name, v in zip(candidates.recipe, votes) if v for path in by_recipe[name]]
result = dict(votes={o: v for o, v in zip(candidates.recipe, votes) if v},
              valid=ensemble([*candidates.path], votes, 'valid'),
              members=len(members), test=ensemble(*zip(*members)), environment=environment())
print(result['votes'], result['valid'], result['test'])
write_json(here/'ensemble.json', result)
mistakes(final).to_csv(here/'mistakes.csv', index=False)
