"""`python -m rec_engine` is `rec-engine`."""

from rec_engine.cli import main

main()
