"""Train one run, a sweep (-m) or a study (experiment=...); every run ends in a record, and finished runs are skipped.

python scripts/train.py world=biographies arm=memory seed=1
python scripts/train.py -m arm=dense,memory 'seed=range(3)'
python scripts/train.py experiment=frontier
"""

import sys

from memlayers.studies.cli import execute, verb

if __name__ == "__main__":
    verb(lambda: execute(sys.argv[1:]))
