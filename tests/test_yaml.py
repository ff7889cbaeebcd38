"""Every YAML in conf/ composes and runs one step."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from memlayers.config import RunConfig
from memlayers.config.model import PLACES
from memlayers.studies.cli import jobs_from
from memlayers.studies.files import CONF
from memlayers.training.run import run

TINY = ["training.steps=1", "training.batch_tokens=64", "training.probes=1", "training.max_probed_facts=8"]
TINY += ["progress=none", "model.d_model=8"]
WORLD = ["world.num_subjects=50"]
CHOICES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
NEEDS = {"logger/tensorboard": "tensorboard", "logger/wandb": "wandb", "logger/mlflow": "mlflow"}


def words_for(group: str, choice: str, folder: Path) -> list[str]:
    """A command line with this choice and as little to do as there can be."""
    words = [*TINY, f"results={folder}"]
    if group == "extra":
        words += [f"extra@model.{place}={choice}" for place in PLACES]
    else:
        words += [f"{group}={choice}"]
    if (group, choice) == ("world", "triples"):
        facts = folder / "facts.csv"
        rows = [f"s{index},{relation},{index % 3}" for index in range(9) for relation in ("a", "b")]
        facts.write_text("\n".join(["subject,relation,object", *rows]))
        words += [f"world.path={facts}"]
    elif group == "world":
        words += [f"world.{'num_people' if choice == 'biographies' else 'num_subjects'}=50"]
    else:
        words += WORLD
    if (group, choice) == ("model", "small"):
        words.remove("model.d_model=8")
    return words


@pytest.mark.parametrize("name", [name for name in CHOICES if not name.startswith("experiment/")])
def test_yaml_runs_one_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is an extra and not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    (config,) = jobs_from(words_for(*name.split("/"), tmp_path))
    if name == "trainer/gpu":
        assert config.trainer["accelerator"] == "gpu"
        return
    record = run(config)
    assert record["status"] == "ok" and record["training"]["steps"] == 1


@cache
def jobs_of_experiment(name: str) -> list[RunConfig]:
    return jobs_from([f"experiment={name}"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs_one_step(name: str, tmp_path: Path) -> None:
    first = jobs_of_experiment(name)[0]
    words = [*TINY, *WORLD, "logger=none", f"results={tmp_path}", f"experiment={name}", f"arm={first.arm}", "seed=0"]
    record = run(jobs_from(words)[0])
    assert record["status"] == "ok" and record["training"]["steps"] == 1 and record["study"] == name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_its_question_its_command_and_what_to_expect(name: str) -> None:
    jobs = jobs_of_experiment(name)
    assert len(jobs) > 1 and {job.study for job in jobs} == {name}
    assert "?" in jobs[0].report.question
    comment = [line for line in (CONF / "experiment" / f"{name}.yaml").read_text().splitlines() if line[0] == "#"]
    assert any(re.match(rf"# Run: +python scripts/train.py experiment={name}\b", line) for line in comment)
    (expected,) = (re.match(r"# Expect: +(\d+) runs\b", line) for line in comment if line.startswith("# Expect:"))
    assert int(expected[1]) == len(jobs)
