"""Every YAML in conf/ composes and runs one step."""

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from commands import unasked

from memlayers.config import RunConfig, WorldConfig
from memlayers.config.model import PLACES
from memlayers.studies.cli import jobs_from
from memlayers.studies.compose import axes_override, compose_one, composing, split_sweep
from memlayers.studies.files import CONF
from memlayers.text import Text, text_of
from memlayers.training.plan import plan
from memlayers.training.run import run

TINY = ["training.steps=1", "training.batch_tokens=64", "training.probes=1", "training.max_probed_facts=8"]
TINY += ["progress=none", "model.d_model=8"]
CHOICES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
READ_BY_OTHER_MEANS = ("experiment", "rates", "space")  # and tested below, in test_rates.py and in test_tune.py
NEEDS = {"logger/tensorboard": "tensorboard", "logger/wandb": "wandb", "logger/mlflow": "mlflow"}
NEEDS |= {"world/pictures": "sklearn", "experiment/beyond_multimodality": "sklearn"}


def few_subjects(world: str) -> str:
    """The setting that makes a world small."""
    names = {"biographies": "num_people", "biographies_prose": "num_people", "pictures": "num_pictures"}
    return f"world.{names.get(world, 'num_subjects')}=50"


def skip_without_extra(name: str) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is an extra and not installed")


def words_for(group: str, choice: str, folder: Path) -> list[str]:
    """A command line with this choice and as little to do as there can be."""
    words = [f"results={folder}"]
    if group == "extra":
        words += [f"extra@model.{place}={choice}" for place in PLACES]
        words += ["match.times=6"]  # as all four cost more than one memory
    else:
        words += [f"{group}={choice}"]
    if (group, choice) == ("world", "triples"):
        facts = folder / "facts.csv"
        rows = [f"s{index},{relation},{index % 3}" for index in range(9) for relation in ("a", "b")]
        facts.write_text("\n".join(["subject,relation,object", *rows]))
        words += [f"world.path={facts}"]
    elif group == "world":
        words += [few_subjects(choice)]
    else:
        words += [few_subjects("atlas_airports")]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHOICES if name.partition("/")[0] not in READ_BY_OTHER_MEANS])
def test_yaml_runs_one_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_extra(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    words = words_for(*name.split("/"), tmp_path)
    (asked,) = jobs_from(words)
    assert asked.results == str(tmp_path)
    config = unasked(*(word for word in TINY if (name, word) != ("model/small", "model.d_model=8")), *words)
    if name == "trainer/gpu":
        assert config.trainer["accelerator"] == "gpu"
        return
    if name == "trainer/ddp":  # runs in test_ranks.py
        with pytest.raises(ValueError, match="torchrun"):
            run(config)
        return
    record = run(config)
    assert record["status"] == "ok" and record["training"]["steps"] == 1


@pytest.fixture(scope="module", params=EXPERIMENTS)
def experiment(request: pytest.FixtureRequest) -> str:
    """A name. The tests of one experiment run one after another, so that it is composed once."""
    return request.param


@cache
def jobs_of_command(*words: str) -> list[RunConfig]:
    return jobs_from(list(words))


def jobs_of_experiment(name: str) -> list[RunConfig]:
    return jobs_of_command(f"experiment={name}")


@pytest.mark.slow
def test_experiment_runs_one_step(experiment: str, tmp_path: Path) -> None:
    skip_without_extra(f"experiment/{experiment}")
    first = jobs_of_experiment(experiment)[0]
    words = [*TINY, few_subjects(first.world.name), "logger=none", f"results={tmp_path}", f"experiment={experiment}"]
    words += [f"arm={first.arm}", "seed=0", "federated.rounds=1"]  # of one step there is one round
    with composing():  # without asking whether each of these words has an effect
        batches, swept = split_sweep(words, multirun=False)
        config = compose_one([*batches[0], *([axes_override(swept)] if swept else [])])
    record = run(config)
    assert record["status"] == "ok" and record["training"]["steps"] == 1 and record["study"] == experiment


def commands_of(name: str) -> list[list[str]]:
    """Words of each command that the file's comment names, without the remark behind it."""
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    comment = "\n".join(line[1:] for line in lines if line.startswith("#")).replace("\\\n", " ")
    found = re.findall(r"python scripts/train.py (.+)", comment)
    return [shlex.split(re.sub(r"\s{2,}\(.*", "", one)) for one in found]


@pytest.mark.slow
def test_every_experiment_says_its_question_its_commands_and_how_many_runs_they_are(experiment: str) -> None:
    """`about` so many are of all commands together; so many `each`, or as many numbers as commands, are of each."""
    jobs = jobs_of_experiment(experiment)
    assert len(jobs) > 1 and {job.study for job in jobs} == {experiment} and "?" in jobs[0].report.question
    commands = commands_of(experiment)
    assert commands and all(words[0] == f"experiment={experiment}" for words in commands)
    counts = [len(jobs_of_command(*words)) for words in commands]
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    (said,) = re.findall(r"^# Expect: +(.+? runs( each)?\b)", text, re.M)
    numbers = [int(number) for number in re.findall(r"\d+", said[0])]
    if "about" in said[0]:
        assert sum(counts) == pytest.approx(numbers[0], rel=0.25)
    else:
        assert counts == (numbers * len(counts) if said[1] else numbers)


@pytest.mark.slow
def test_every_model_of_an_experiment_can_be_matched(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that costs more than its reference at the smallest width is refused only when it runs."""
    texts: dict[str, Text] = {}

    def once(world: WorldConfig) -> Text:
        if repr(world) not in texts:
            texts[repr(world)] = text_of(world)
        return texts[repr(world)]

    monkeypatch.setattr("memlayers.training.plan.text_of", once)
    for job in jobs_of_experiment(experiment):
        if job.seed == 0:
            plan(job)
