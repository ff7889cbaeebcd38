"""From a command line to configurations: conf/ composes, a sweep is what Hydra would run."""

import dataclasses
import json
import sys

import hydra
import pytest
from commands import ARMS, CHOICES, STUDY, composed, one, refusal, unasked

from memlayers.config import BiographiesConfig, RunConfig, TriplesConfig
from memlayers.config.digest import decisive, digest
from memlayers.config.model import PLACES
from memlayers.layers import LAYERS, Dense, Memory
from memlayers.optim.rules import RULES, rule_name
from memlayers.studies import cli
from memlayers.studies.files import CONF
from memlayers.studies.schemas import register
from memlayers.training.record import record_path

# --------------------------------------------------------------------------- what is accepted


GROUPS = [group for group in CHOICES if group != "experiment"]  # of those a line has one each


@pytest.mark.parametrize("turn", range(max(len(CHOICES[group]) for group in GROUPS)))
def test_every_file_of_conf_composes_and_is_valid(turn, tmp_path):
    """Each turn takes the next choice of every group; arms bring their own ffn."""
    lines = {group: CHOICES[group][turn % len(CHOICES[group])] for group in GROUPS if group != "ffn"}
    lines["arm"], extra = ARMS[turn % len(ARMS)], lines.pop("extra")
    lines |= {f"extra@model.{place}": extra for place in PLACES}
    lines |= {"world.path": f"{tmp_path}/facts.csv"} if lines["world"] == "triples" else {}
    if lines["world"].endswith("_prose"):
        del lines["model"]  # these choose one, and their settings name its blocks
    run = unasked(*(f"{key}={value}" for key, value in lines.items()))  # a rule may have no table to update
    json.dumps(decisive(run), allow_nan=False)
    assert (run.arm, run.world.name) == (lines["arm"], lines["world"])
    assert run.results == str(CONF.parent / "results" / "local")


@pytest.mark.parametrize("experiment", CHOICES["experiment"])
def test_runs_of_an_experiment_have_records_of_their_own_and_differ_as_its_axes_say(experiment):
    jobs = composed(f"experiment={experiment}")
    assert len({record_path(job) for job in jobs}) == len(jobs) > 1
    points = {}  # values on the axes but the seed's -> digest
    for job in jobs:
        assert job.axes.get("seed", job.seed) == job.seed
        point = json.dumps({key: value for key, value in job.axes.items() if key != "seed"})
        assert points.setdefault(point, digest(job)) == digest(job)
    assert len(set(points.values())) == len(points)


def test_every_layer_and_every_rule_is_a_choice():
    as_ffn = {type(one(f"arm={name}").model.ffn) for name in CHOICES["ffn"]}
    beside = {type(one(f"extra@model.before={name}").model.before) for name in CHOICES["extra"]}
    assert as_ffn | beside == set(LAYERS)
    rules = {name: one(f"values={name}").optim.values for name in CHOICES["values"]}
    assert {type(rule) for rule in rules.values()} == set(RULES.values())
    assert all(rule_name(rule) == name for name, rule in rules.items())


def test_schemas_are_chosen_by_the_file_and_values_by_the_command_line():
    triples = one("world=triples", "world.path=x", "arm=dense", "seed=7")
    people = one("world=biographies", "arm=memory")
    assert isinstance(triples.world, TriplesConfig) and isinstance(people.world, BiographiesConfig)
    assert type(triples.model.ffn) is Dense and type(people.model.ffn) is Memory
    assert (triples.arm, triples.seed, people.arm, people.seed) == ("dense", 7, "memory", 0)
    lines = ["model.ffn.topk=3", "optim.roles.vector.lr_mul=2", "optim.betas=[0.5,0.6]", "model.blocks=0.5"]
    for arm in CHOICES["ffn"]:
        if isinstance(one(f"arm={arm}").model.ffn, Memory):
            job = one(f"arm={arm}", *lines)
            assert (job.model.ffn.topk, job.optim.roles["vector"].lr_mul, job.optim.betas) == (3, 2.0, [0.5, 0.6])
            assert job.model.blocks == 0.5 and job.arm == arm
            assert job.match.reference.topk == 8, "the reference keeps its own"


def test_settings_that_follow_the_seed_follow_it_in_every_job():
    jobs = composed("-m", "seed=3,4", "world.seed=${seed}")
    assert [job.world.seed for job in jobs] == [3, 4]


# --------------------------------------------------------------------------- sweeps


def by_hydra(arguments: list[str], monkeypatch) -> list[RunConfig]:
    """The configuration of each job that Hydra's own command line begins, in order."""
    register()
    seen: list[RunConfig] = []
    monkeypatch.setattr("memlayers.training.run.run", seen.append)
    monkeypatch.setattr(sys, "argv", ["train.py", *cli.words_of(arguments)])
    hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(cli.job)()
    return seen


SWEEPS = [
    ["seed=5"],
    ["-m", "seed=1,0", f"ffn={CHOICES['ffn'][-1]},dense"],
    ["-m", "world=biographies", "optim.betas=[0.5,0.6],[0.7,0.8]", "seed=choice(3,1)", "training.steps=7"],
    [STUDY, "arm=dense,memory", "training.exposures=4,32", "seed=range(2)", "hydra/launcher=basic"],
    [STUDY, "arm=memory", "training.exposures=4", "seed=0,1", "hydra/launcher=basic"],
    ["-m", "arm=glob(mem*)"],
]


@pytest.mark.parametrize("arguments", SWEEPS, ids=lambda arguments: " ".join(arguments))
def test_a_sweep_is_expanded_as_hydra_expands_it(arguments, tmp_path, monkeypatch):
    arguments = [*arguments, f"results={tmp_path}"]
    jobs = composed(*arguments)
    theirs = by_hydra(arguments, monkeypatch)
    assert [dataclasses.replace(job, axes={}) for job in jobs] == theirs  # Hydra knows nothing of axes
    assert len({record_path(job) for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["seed=5"], [{}]),
        (["-m", "seed=5"], [{}]),
        (["-m", "seed=1,0", "training.steps=3"], [{"seed": 1}, {"seed": 0}]),
        (["-m", "model.blocks=[0],[0,1]", "seed=4"], [{"model.blocks": [0]}, {"model.blocks": [0, 1]}]),
        (["-m", "values=sgd,adamw", "optim.lr=1e-3"], [{"values": "sgd"}, {"values": "adamw"}]),
        ([STUDY, "arm=memory", "training.exposures=4", "seed=0"], [{}]),
        ([STUDY, "arm=memory", "training.exposures=4", "seed=0,1"], [{"seed": 0}, {"seed": 1}]),
    ],
    ids=lambda words: " ".join(words) if isinstance(words[0], str) else None,
)
def test_axes_are_what_the_command_swept_with_the_value_of_each_run(arguments, wanted):
    assert [job.axes for job in composed(*arguments)] == wanted


def test_layers_in_several_places_are_several_axes():
    first, second = "extra@model.residual", "extra@model.before"
    jobs = composed("-m", f"{first}=ngram,short_conv", f"{second}=ngram,short_conv")
    choices = ("ngram", "short_conv")
    assert [job.axes for job in jobs] == [{first: one, second: other} for one in choices for other in choices]
    assert composed("-m", "ffn@match.reference=dense,memory")[0].axes == {"ffn@match.reference": "dense"}


@pytest.mark.parametrize("line", ["arm=dense,memory", "seed=range(3)", "seed=choice(1,2)"])
def test_several_values_need_a_sweep(line):
    assert refusal(line) == f"{line} names several values; accepted with -m (a sweep), or in a study"
    assert len(composed("-m", line)) > 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.ffn.num_keys=64", "model.ffn.topk=4,999"], "model.ffn.topk=999 is out of range; accepted: 1 to 64"),
        (["ffn=dense,memry"], f"arm=memry: no such choice; did you mean memory? accepted: {', '.join(ARMS)}"),
        (["seed=0,1", "modle=tiny"], "modle=tiny: unknown key 'modle'; did you mean model?"),
        (["seed=0,2147483648"], "seed=2147483648 is out of range; accepted: 0 to 2147483647"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_a_mistake_in_one_job_of_a_sweep_stops_all(words, line):
    assert refusal("-m", *words) == line


def test_a_sweep_over_nothing_is_refused():
    assert "seed=range(0): a sweep over no value" in refusal("-m", "seed=range(0)")
