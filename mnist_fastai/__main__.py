"""List the commands, or run one: `python -m mnist_fastai train --epochs 2`."""
import sys

from mnist_fastai.cli import choose_command

sys.exit(choose_command()())
