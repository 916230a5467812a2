"""`python scripts/evaluate.py` is `rec-engine evaluate`."""

import sys

from rec_engine.cli import main

main(["evaluate", *sys.argv[1:]])
