"""The ensemble and the mistakes of two comparisons: `python results/accuracy.py CHOSEN FINAL`.

CHOSEN kept validation images, on which members and votes are chosen; FINAL was trained on all training images."""
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from mnist_fastai.compare import choose_members, ensemble, predictions, read_trials
from mnist_fastai.data import image_files, mnist_path
from mnist_fastai.runs import environment, write_json

here = Path(__file__).parent


def trials_of(folder):
    "recipe -> folders of its trials"
    folders = sorted(o.parent for o in Path(folder).glob('trials/*/metrics.json'))
    trials = read_trials(folders)
    return {name: [Path(folder)/'trials'/o for o in g.trial] for name, g in trials.groupby('recipe')}


def mistakes(final):
    "Every test image that a training gets wrong: a row each"
    files = image_files(mnist_path('mnist')/'testing')
    rows = []
    for recipe, folders in final.items():
        for seed, folder in enumerate(folders, 1):
            probs, labels = predictions(folder)
            for i in np.flatnonzero(probs.argmax(1) != labels):
                rows.append(dict(recipe=recipe, seed=seed, image=f'{files[i].parent.name}/{files[i].name}',
                                 predicted=probs[i].argmax(), probability=round(float(probs[i].max()), 4)))
    return pd.DataFrame(rows)


chosen, final = (trials_of(o) for o in sys.argv[1:3])
names = [o for o in chosen if o in final]
votes = choose_members([chosen[o][0] for o in names])
members = [(folder, v/len(final[o])) for o, v in zip(names, votes) if v for folder in final[o]]
result = dict(votes={o: v for o, v in zip(names, votes) if v},
              valid=ensemble([chosen[o][0] for o in names], votes, 'valid'),
              members=len(members), test=ensemble(*zip(*members)), environment=environment())
print(result['votes'], result['valid'], result['test'])
write_json(here/'ensemble.json', result)
mistakes(final).to_csv(here/'mistakes.csv', index=False)
