"""Command lines: what conf/ has to choose from, the jobs of a line, and the one line of a refusal."""

from functools import cache

import pytest
from hydra.core.global_hydra import GlobalHydra

from memlayers.config import RunConfig
from memlayers.studies.cli import jobs_from
from memlayers.studies.files import CONF

GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
ARMS = sorted({*CHOICES["arm"], *CHOICES["ffn"]})
DENSE_ARMS = [arm for arm in ARMS if arm.startswith("dense")]
STUDY = "experiment=memory_vs_dense"


@cache
def composed(*words: str) -> tuple[RunConfig, ...]:
    """The jobs of a command line; not to be changed."""
    jobs = jobs_from(list(words))
    assert jobs is not None
    return tuple(jobs)


def one(*words: str) -> RunConfig:
    (job,) = composed(*words)
    return job


def refusal(*words: str) -> str:
    """The one line."""
    with pytest.raises(ValueError) as caught:
        jobs_from(list(words))
    message = str(caught.value)
    assert "\n" not in message and message.strip() == message and message
    assert not GlobalHydra.instance().is_initialized()
    return message
