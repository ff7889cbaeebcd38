"""study.yaml beside the records of a study: its question, the commands that ran it, and the layout of its table.

The verdict, a sentence, is written there by hand once the records are there; it is kept when more records are added.
"""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from memlayers.config import RunConfig
from memlayers.config.run import ReportConfig

FILE = "study.yaml"


def write_layout(jobs: list[RunConfig], words: list[str]) -> None:
    """Write study.yaml of each job's study, with this command added to those that are there."""
    for folder, job in {Path(job.results) / job.study: job for job in jobs}.items():
        layout = read_layout(folder)
        command = f"python scripts/train.py {shlex.join(words)}"
        commands = [*layout["commands"], command] if command not in layout["commands"] else layout["commands"]
        OmegaConf.save({"verdict": layout["verdict"], **asdict(job.report), "commands": commands}, folder / FILE)


def read_layout(folder: Path) -> dict[str, Any]:
    """The layout in a folder, with defaults for missing keys. Raises ValueError for a file that is no YAML mapping."""
    layout: dict[str, Any] = {"verdict": "", **asdict(ReportConfig()), "commands": []}
    path = folder / FILE
    if path.is_file():
        try:
            layout |= dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
        except Exception as error:  # from YAML or OmegaConf, or for a list instead of a mapping
            raise ValueError(f"{path}: not the layout of a study ({str(error).splitlines()[0]})") from None
    return layout | {"verdict": " ".join(str(layout["verdict"] or "").split())}
