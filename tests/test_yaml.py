"""Every YAML in conf/ composes and runs one step."""

import importlib.util
from pathlib import Path

import pytest

from memlayers.studies.compose import CONF, jobs_of
from memlayers.training.run import run

TINY = ["training.steps=1", "training.batch_tokens=64", "training.probes=1", "training.max_probed_facts=8"]
TINY += ["progress=none", "model.d_model=8"]
WORLD = ["world.num_subjects=50"]
GROUPS = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
NEEDS = {"logger/tensorboard": "tensorboard", "logger/wandb": "wandb", "logger/mlflow": "mlflow"}


@pytest.mark.parametrize("name", GROUPS)
def test_yaml_runs_one_step(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, choice = name.split("/")
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is an extra and not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    overrides = [*TINY, f"results={tmp_path}", f"{group}={choice}"]
    if name == "world/triples":
        facts = tmp_path / "facts.csv"
        rows = [f"s{index},{relation},{index % 3}" for index in range(9) for relation in ("a", "b")]
        facts.write_text("\n".join(["subject,relation,object", *rows]))
        overrides += [f"world.path={facts}"]
    elif group == "world":
        size = "num_people" if choice == "biographies" else "num_subjects"
        overrides += [f"world.{size}=50"]
    else:
        overrides += WORLD
    if group == "arm":
        overrides += ["+ffn@match.reference=memory"]
    if name == "model/small":
        overrides.remove("model.d_model=8")
    if name == "trainer/gpu":
        assert jobs_of(overrides, False)[0].trainer["accelerator"] == "gpu"
        return
    if group == "experiment":
        overrides += ["logger=none"]
        jobs = jobs_of(overrides, False)
        arms = [path.stem for path in (CONF / "arm").glob("*.yaml")]
        overrides += ["seed=0", f"arm={jobs[0].arm if jobs[0].arm in arms else 'memory'}"]
        assert len(jobs) > 1
    config = jobs_of(overrides, False)[0]
    record = run(config)
    assert record["status"] == "ok" and record["training"]["steps"] == 1


def test_every_experiment_says_its_question_its_command_and_what_to_expect() -> None:
    for path in (CONF / "experiment").glob("*.yaml"):
        comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any("?" in line for line in comment), path
        assert any(f"experiment={path.stem}" in line for line in comment), path
        assert any(line.startswith("# Expect:") for line in comment), path
