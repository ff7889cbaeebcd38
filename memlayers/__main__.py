"""python -m memlayers: scripts/train.py of an installed package."""

import sys

from memlayers.studies.cli import execute, verb

verb(lambda: execute(sys.argv[1:]))
