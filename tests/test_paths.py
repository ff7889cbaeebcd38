"""File names on a command line mean themselves, whatever Hydra's grammar makes of their signs."""

import sys
from pathlib import Path

import hydra
import pytest
from commands import called, refusal
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from stubs import changed

from memlayers.config.digest import digest
from memlayers.studies.cli import execute, jobs_from, words_of
from memlayers.studies.files import CONF, quote_paths
from memlayers.studies.schemas import register
from memlayers.training.plan import plan
from memlayers.training.record import read_record, record_path

NAMES = ["epoch=9.csv", "facts (1).csv", "no#1.csv", "q'uote.csv", "tilde~.csv", "{x}.csv", "ümläut.csv", "plain.csv"]
NAMES += [
    "two  spaces.csv",
    "[1].csv",
    "back\\slash.csv",
    "b\\'oth.csv",
    'double".csv',
    "$HOME.csv",
    "null.csv",
    "1e3.csv",
]
TINY = ["world=triples", "training.steps=1", "training.batch_tokens=16", "training.probes=1", "model.d_model=8"]
TINY += ["logger=none", "progress=none"]


def facts_in(path: Path) -> Path:
    rows = [f"s{index},{relation},{index % 3}" for index in range(9) for relation in ("a", "b")]
    path.write_text("\n".join(["subject,relation,object", *rows]))
    return path


def by_hydra(arguments: list[str], monkeypatch) -> list[dict]:
    """The resolved configuration of each job that Hydra's own command line runs."""
    register()
    seen = []
    monkeypatch.setattr(sys, "argv", ["train.py", *words_of(arguments)])
    hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(
        lambda config: seen.append(OmegaConf.to_container(config, resolve=True))
    )()
    return seen


@pytest.mark.parametrize(("name", "absolute"), [(name, False) for name in NAMES] + [(name, True) for name in NAMES[:3]])
def test_facts_are_read_from_a_file_of_any_name(name, absolute, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = facts_in((tmp_path if absolute else Path()) / name)
    (job,) = jobs_from(["world=triples", f"world.path={path}"])
    assert job.world.path == str(path) and plan(job).text.world.num_facts == 18
    other = changed(job, "world.path", str(facts_in(tmp_path / "other.csv")))
    assert digest(job) == digest(other), "by what it says, not by its name"


@pytest.mark.parametrize("name", NAMES[::3])
def test_other_files_and_folders_are_named_as_freely(name):
    words = ["world=triples", "world.path=facts.csv", "world.text=prose", f"world.templates=a folder/{name}"]
    (job,) = jobs_from([*words, f"results=a folder/{name}"])
    assert job.world.templates == job.results == f"a folder/{name}"


@pytest.mark.parametrize("name", NAMES[:7])
def test_a_sweep_over_seeds_reads_it_in_every_run(name, tmp_path, monkeypatch):
    path, results = facts_in(tmp_path / name), tmp_path / f"of {name}"
    words = ["-m", "world=triples", f"world.path={path}", f"results={results}", "seed=0,1"]
    wanted = [(str(path), str(results), seed) for seed in (0, 1)]
    assert [(job.world.path, job.results, job.seed) for job in jobs_from(words)] == wanted
    theirs = by_hydra(words, monkeypatch)
    assert [(job["world"]["path"], job["results"], job["seed"]) for job in theirs] == wanted


def test_a_sweep_is_run_and_recorded_with_such_names(tmp_path, monkeypatch, capfd):
    """In this process, by Hydra's own launcher, which passes words on once more."""
    monkeypatch.setenv("PYTHONWARNINGS", "")
    path, results = facts_in(tmp_path / "it's {no}#1 (=9).csv"), tmp_path / "it's {no}#1 (=9)"
    words = [*TINY, f"world.path={path}", f"results={results}"]
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert execute([*words, "-m", "seed=0,1"]) == 0
    for job in jobs_from([*words, "-m", "seed=0,1"]):
        assert record_path(job).is_relative_to(results) and read_record(record_path(job))["axes"] == {"seed": job.seed}
    assert f"2 of 2 runs are finished: {results}" in capfd.readouterr().out


@pytest.mark.slow
def test_a_script_is_called_with_such_names(tmp_path):
    facts_in(tmp_path / "epoch=9 (1).csv")
    done = called("train.py", *TINY, "world.path=epoch=9 (1).csv", "results=~runs {1}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "~runs {1}").rglob("memory-s0-*.json"))) == 1


# --------------------------------------------------------------------------- what still has a meaning


@pytest.mark.parametrize("line", ["world.path=a,b.csv", "results=choice(a,b)"])
def test_a_comma_names_several_and_needs_a_sweep(line, tmp_path):
    said = refusal("world=triples", *(["world.path=x"] if "results" in line else []), line)
    assert said == f"{line} names several values; accepted with -m (a sweep), or in a study"


def test_a_comma_in_a_sweep_is_a_sweep_and_in_quotes_a_sign():
    jobs = jobs_from(["world=triples", "-m", "world.path=a.csv,b.csv"])
    assert [job.world.path for job in jobs] == ["a.csv", "b.csv"] == [job.axes["world.path"] for job in jobs]
    for quoted in ("'a,b.csv'", '"a,b.csv"'):
        assert jobs_from(["world=triples", f"world.path={quoted}"])[0].world.path == "a,b.csv"


def test_null_and_interpolations_keep_their_meaning():
    words = ["world.path=x", "world.templates=null", "results=${study}/here", "study=mine"]
    (job,) = jobs_from(["world=triples", *words])
    assert job.world.templates is None and job.results == "mine/here"
    assert quote_paths(["arm=a=b", "world.path=", "seed=1"]) == ["arm=a=b", "world.path=", "seed=1"]


signs = st.sampled_from(list("a1\\'\"=({[#~ $}])!@:;.-+?*&|<>%^`ü\t"))
names = st.text(signs | st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(name=names, key=st.sampled_from(["world.path", "+world.templates", "results"]))
def test_any_name_comes_back_from_the_parser_also_by_way_of_a_sweep(name, key):
    assume("," not in name and "${" not in name and name != "null" and name[0] not in "'\"")
    parser = OverridesParser.create()
    (word,) = quote_paths([f"{key}={name}"])
    assert parser.parse_override(word).value() == name
    ((jobs, other),) = BasicSweeper.split_arguments(parser.parse_overrides([word, "seed=0,1"]), None)
    for job in (jobs, other):
        assert parser.parse_override(job[0]).value() == name
