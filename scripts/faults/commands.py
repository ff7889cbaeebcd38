"""A small sweep to kill and compare: its command, and its records without times."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
SMALL = ["world.num_subjects=400", "training.probes=4", "progress=none", "logger=none", "threads=1"]
SWEEP = ["-m", "arm=dense,memory", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *SMALL]
ALONE = ["arm=memory", *SMALL]


def begin(words: list[str], results: Path, **settings: Any) -> subprocess.Popen[str]:
    """Start a training command in its own process group."""
    command = [sys.executable, str(TRAIN), *words, f"results={results}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes)


def digits(results: Path) -> dict[str, dict[str, Any]]:
    """All records of successful runs, by file name, without times, machine and code version."""
    found = {}
    for path in sorted(results.rglob("*-s*.json")):
        record = json.loads(path.read_text())
        if record["status"] == "ok":
            found[path.name] = {k: v for k, v in record.items() if k not in ("timing", "machine", "code", "checksum")}
    return found
