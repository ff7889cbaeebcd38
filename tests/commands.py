"""Command lines: what conf/ has to choose from, the jobs of a line, the one line of a refusal, and small runs."""

import copy
import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from memlayers.config import RunConfig
from memlayers.studies.cli import jobs_from, words_of
from memlayers.studies.compose import compose_one, composing
from memlayers.studies.files import CONF
from memlayers.studies.mistakes import TABLES

NOT_OURS = (*TABLES, "hydra")  # whose groups lie one deeper
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name not in NOT_OURS)
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
ARMS = sorted({*CHOICES["arm"], *CHOICES["ffn"]})
DENSE_ARMS = [arm for arm in ARMS if arm.startswith("dense")]
STUDY = "experiment=frontier"
GATED = "ffn=memory model.ffn.gate=true model.ffn.pool=shared"  # the paper's Memory+


@cache
def composed(*words: str) -> tuple[RunConfig, ...]:
    """The jobs of a command line; not to be changed."""
    jobs = jobs_from(list(words))
    assert jobs is not None
    return tuple(jobs)


def one(*words: str) -> RunConfig:
    (job,) = composed(*words)
    return job


@cache
def unasked(*words: str) -> RunConfig:
    """The same, without asking of each word whether it has an effect, which composes twice more for each."""
    with composing():
        return compose_one(words_of(list(words)))


def refusal(*words: str) -> str:
    """The one line."""
    with pytest.raises(ValueError) as caught:
        jobs_from(list(words))
    message = str(caught.value)
    assert "\n" not in message and message.strip() == message and message
    assert not GlobalHydra.instance().is_initialized()
    return message


# --------------------------------------------------------------------------- small runs

SMALL = ["world.num_subjects=300", "training.batch_tokens=128", "training.steps=24", "training.probes=3"]
SMALL += ["logger=none", "progress=none", "model.d_model=16", "model.hidden=24"]


def small(results: Path, *words: str) -> RunConfig:
    """A run of a second, whose records go to this folder."""
    return dataclasses.replace(copy.deepcopy(unasked(*SMALL, *words)), results=str(results))


def digits(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what may differ between two runs of one experiment: when, where and how fast."""
    return {key: value for key, value in record.items() if key not in ("timing", "machine", "code", "checksum")}


def called(script: str, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A script of the project, as one calls it."""
    path = Path(__file__).parent.parent / "scripts" / script
    return subprocess.run([sys.executable, path, *words], capture_output=True, text=True, **settings)
