"""`python scripts/serve.py` is `rec-engine serve`."""

import sys

from rec_engine.cli import main

main(["serve", *sys.argv[1:]])
