"""study.yaml beside the records of a study: its question, the commands that ran it, and how its table is laid out.

Once the records are in, a verdict of a sentence is written there by hand; it stays when more are taken in.
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
    """Beside the records to come. A command is added to those that are there."""
    for folder, job in {Path(job.results) / job.study: job for job in jobs}.items():
        layout = read_layout(folder)
        command = f"python scripts/train.py {shlex.join(words)}"
        commands = [*layout["commands"], command] if command not in layout["commands"] else layout["commands"]
        OmegaConf.save({"verdict": layout["verdict"], **asdict(job.report), "commands": commands}, folder / FILE)


def read_layout(folder: Path) -> dict[str, Any]:
    """The layout in a folder, with defaults for what is not there. Raises ValueError for a file that is not YAML."""
    layout: dict[str, Any] = {"verdict": "", **asdict(ReportConfig()), "commands": []}
    path = folder / FILE
    if path.is_file():
        try:
            layout |= dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
        except Exception as error:  # of YAML, of OmegaConf, or of a list where a mapping should be
            raise ValueError(f"{path}: not the layout of a study ({str(error).splitlines()[0]})") from None
    return layout
