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
from memlayers.training.process import locked
from memlayers.training.record import write_text

FILE = "study.yaml"


def write_layout(jobs: list[RunConfig], words: list[str]) -> None:
    """Write study.yaml of each job's study, with this command added to those that are there."""
    for folder, job in {Path(job.results) / job.study: job for job in jobs}.items():
        add_command(folder, job.report, f"python scripts/train.py {shlex.join(words)}")


def add_command(folder: Path, report: ReportConfig, command: str) -> None:
    """Write study.yaml of a study, with this command added to those that are there."""
    with locked(folder / FILE):
        layout = read_layout(folder)
        if report != ReportConfig():  # a run that declares nothing leaves the layout as it is
            layout |= asdict(report)
        save_layout(folder, layout | {"commands": list(dict.fromkeys([*layout["commands"], command]))})


def save_layout(folder: Path, layout: dict[str, Any]) -> None:
    """Write study.yaml; readers see the old file or the new one."""
    write_text(folder / FILE, OmegaConf.to_yaml(OmegaConf.create(layout)))


def read_layout(folder: Path) -> dict[str, Any]:
    """The layout in a folder, with defaults for missing keys. Raises ValueError for a file that is no YAML mapping, and
    for keys or types that no layout has.
    """
    layout: dict[str, Any] = {"verdict": "", **asdict(ReportConfig()), "commands": []}
    path = folder / FILE
    if path.is_file():
        try:
            found = dict(OmegaConf.to_container(OmegaConf.load(path)))  # type: ignore[arg-type]
        except Exception as error:  # from YAML or OmegaConf, or for a list instead of a mapping
            raise ValueError(f"{path}: not the layout of a study ({str(error).splitlines()[0]})") from None
        for key, value in found.items():
            kind = type(layout.get(key, {}))
            if key not in layout or (kind in (list, dict) and not isinstance(value, kind)):
                raise ValueError(f"{path}: {key}={value} is no part of a layout; accepted: {', '.join(layout)}")
        layout |= found
        try:
            ReportConfig(**{name: layout[name] for name in asdict(ReportConfig())}).validate()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return layout | {"verdict": " ".join(str(layout["verdict"] or "").split())}
