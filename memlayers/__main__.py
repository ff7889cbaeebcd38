"""python -m memlayers: scripts/train.py of an installed package."""

import sys

from memlayers.studies.cli import execute

sys.exit(execute(sys.argv[1:]))
