"""`python scripts/train.py` is `rec-engine train`."""

import sys

from rec_engine.cli import main

main(["train", *sys.argv[1:]])
