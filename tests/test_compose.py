"""From a command line to configurations: each mistake is one line, a sweep is what Hydra would run."""

import dataclasses
import difflib
import json
import sys
from functools import cache

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from memlayers.studies.compose import CONF, jobs_of, register
from memlayers.config import BiographiesConfig, FFNConfig, MemoryConfig, RunConfig, TriplesConfig
from memlayers.config.run import NOT_IN_DIGEST, decisive, digest, flatten
from memlayers.training.record import record_path
from memlayers.training.run import plan

STUDY = "experiment=memory_vs_dense"
GROUPS = ("world", "model", "ffn", "optim", "values", "trainer", "logger", "arm", "experiment")
CHOICES = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}


def refusal(*overrides: str, multirun: bool = False) -> str:
    """The one line."""
    with pytest.raises(ValueError) as caught:
        jobs_of(list(overrides), multirun)
    message = str(caught.value)
    assert "\n" not in message and message.strip() == message and message
    assert not GlobalHydra.instance().is_initialized()
    return message


@cache
def one(*overrides: str) -> RunConfig:
    (job,) = jobs_of(list(overrides), False)
    return job


@cache
def study() -> list[RunConfig]:
    return jobs_of([STUDY], False)


def nodes(tree: dict, prefix: str = "") -> set[str]:
    """Every key, of leaves and of what holds them."""
    found = {f"{prefix}{name}" for name in tree}
    return found.union(*(nodes(value, f"{prefix}{name}.") for name, value in tree.items() if isinstance(value, dict)))


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("model.d_modl=64", "model.d_model"),
        ("modle.d_model=64", "model.d_model"),
        ("model.ffn.num_key=64", "model.ffn.num_keys"),
        ("sed=1", "seed"),
        ("wrld=biographies", "world"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(line, nearest):
    assert nearest in nodes(dataclasses.asdict(one()))
    assert refusal(line) == f"{line}: unknown key {line.partition('=')[0]!r}; did you mean {nearest}?"


def test_arguments_of_others_are_answered_with_how_to_give_them():
    said = refusal("trainer.max_steps=3")
    assert said.startswith("trainer.max_steps=3: not set so far; accepted: +trainer.max_steps=3, if lightning.Trainer")
    assert "submitit" in refusal("hydra/launcher=nowhere") and "\n" not in refusal("hydra/launcher=nowhere")


def test_a_key_like_no_other_gets_the_list_of_all_at_the_top():
    message = refusal("zzz=1")
    head, _, accepted = message.partition("accepted: ")
    assert head == "zzz=1: unknown key 'zzz'; "
    names = set(accepted.split(", "))
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    assert groups == set(GROUPS)
    assert names == {field.name for field in dataclasses.fields(RunConfig)} | groups


@pytest.mark.parametrize("group", ["world", "ffn", "experiment"])
def test_a_misspelt_choice_is_answered_with_the_choices(group):
    choices = CHOICES[group]
    wrong = choices[0] + "x"
    (nearest,) = difflib.get_close_matches(wrong, choices, n=1)
    accepted = f"accepted: {', '.join(choices)}"
    assert refusal(f"{group}={wrong}") == f"{group}={wrong}: no such choice; did you mean {nearest}? {accepted}"
    if group == "ffn":
        assert refusal("ffn=qqqq") == f"ffn=qqqq: no such choice; {accepted}"


@pytest.mark.parametrize(
    "line",
    [
        "model.d_model=wide",
        "model.depth=1.5",
        "seed=first",
        "optim.lr=fast",
        "save_checkpoint=maybe",
        "optim.betas=[a,b]",
    ],
)
def test_a_value_of_the_wrong_type_is_named(line):
    assert refusal(line).startswith(f"{line}: ")


@pytest.mark.parametrize(
    ("line", "kind"), [("model.d_model=wide", "int"), ("optim.lr=fast", "float"), ("save_checkpoint=maybe", "bool")]
)
def test_a_value_of_the_wrong_type_is_answered_with_the_type(line, kind):
    assert kind in refusal(line).removeprefix(line).lower()


WRONG_VALUES = [
    (["model.ffn.num_keys=4", "model.ffn.topk=5"], "model.ffn.topk=5 is out of range; accepted: 1 to 4"),
    (["model.ffn.d_key=15"], "model.ffn.d_key=15 is not even; accepted: an even number, as a key has two halves"),
    (["model.depth=2", "model.blocks=[0,2]"], "model.blocks=[0, 2]: block 2 is out of range; accepted: a list of indi"),
    (["world=triples"], "world.path is not set; accepted: world.path=VALUE on the command line"),
    (["world=biographies", "world.num_people=1"], "world.num_people=1 is out of range; accepted: 2 to 1000000"),
    (["seed=-1"], "seed=-1 is out of range; accepted: 0 to 2147483647"),
]


@pytest.mark.parametrize(("overrides", "begins"), WRONG_VALUES, ids=[" ".join(lines) for lines, _ in WRONG_VALUES])
def test_an_impossible_value_is_named_with_what_is_accepted(overrides, begins):
    message = refusal(*overrides)
    assert message.startswith(begins) and "accepted: " in message


@pytest.mark.parametrize("line", ["ffn=dense,memory", "seed=range(3)", "seed=choice(1,2)"])
def test_several_values_need_a_sweep(line):
    assert refusal(line) == f"{line} names several values; accepted with -m (a sweep), or in an experiment of runs"
    assert len(jobs_of([line], True)) > 1


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.ffn.num_keys=64", "model.ffn.topk=4,999"], "model.ffn.topk=999 is out of range; accepted: 1 to 64"),
        (["ffn=dense,memry"], "ffn=memry: no such choice; did you mean memory? accepted: dense, memory, memory_plus"),
        (["seed=0,1", "modle=tiny"], "modle=tiny: unknown key 'modle'; did you mean model?"),
    ],
)
def test_a_mistake_in_one_job_of_a_sweep_stops_all(overrides, line):
    assert refusal(*overrides, multirun=True) == line


def test_a_sweep_over_nothing_is_refused():
    assert "seed=range(0): a sweep over no value" in refusal("seed=range(0)", multirun=True)


def test_a_word_that_sets_nothing_is_answered_with_how_to_set():
    assert refusal("arm=dense", "atlas_airports").startswith("atlas_airports: not understood; accepted: KEY=VALUE")


def test_of_several_overrides_the_wrong_one_is_named():
    lines = ["world=biographies", "model.d_modl=3", "optim.lr=1e-3"]
    assert refusal(*lines) == "model.d_modl=3: unknown key 'model.d_modl'; did you mean model.d_model?"


@pytest.mark.parametrize("objects", [["x"], ["x", "x", "x"]])
def test_a_world_with_fewer_than_two_objects_is_refused_before_training(tmp_path, objects):
    path = tmp_path / "facts.csv"
    facts = [f"name {index},likes,{value}" for index, value in enumerate(objects)]
    path.write_text("\n".join(["subject,relation,object", *facts]) + "\n")
    with pytest.raises(ValueError) as caught:
        plan(one("world=triples", f"world.path={path}"))
    message = str(caught.value)
    assert "\n" not in message and "'likes' has fewer than two objects" in message


# --------------------------------------------------------------------------- the harder mistakes


def test_every_seed_of_a_sweep_is_validated():
    message = refusal("seed=0,2147483648", multirun=True)
    assert message == "seed=2147483648 is out of range; accepted: 0 to 2147483647"


def test_settings_that_follow_the_seed_follow_it_in_every_job():
    jobs = jobs_of(["seed=3,4", "world.seed=${seed}"], True)
    assert [job.world.seed for job in jobs] == [3, 4]


@pytest.mark.parametrize("line", ["+foo=1", "++model.ffn.foo=1"])
def test_a_key_added_by_force_is_not_ignored_in_silence(line):
    assert refusal(line).startswith(line)


def test_a_setting_of_a_reference_that_is_not_there_is_one_line():
    assert refusal("match.reference.topk=3").startswith("match.reference.topk=3: ")


def test_a_key_of_a_group_chosen_later_is_not_blamed():
    lines = ["world.num_people=100", "world=biographies", "model.d_modl=3"]
    assert one(*lines[:2]).world.num_people == 100
    assert refusal(*lines) == "model.d_modl=3: unknown key 'model.d_modl'; did you mean model.d_model?"


@pytest.mark.parametrize("line", ["training.exposures=inf", "optim.eps=nan", "optim.lr=inf"])
def test_a_number_that_is_none_is_refused(line):
    assert refusal(line).startswith(line)


@pytest.mark.parametrize("line", ["study=a/b", "world.name=a/b"])
def test_a_name_that_would_be_two_folders_is_refused(line):
    assert "accepted" in refusal(line)


# --------------------------------------------------------------------------- what is accepted


@pytest.mark.parametrize("turn", range(max(map(len, CHOICES.values()))))
def test_every_file_of_conf_composes_and_is_valid(turn, tmp_path):
    """Each turn takes the next choice of every group; arms bring their own ffn."""
    lines = {group: choices[turn % len(choices)] for group, choices in CHOICES.items()}
    del lines["ffn"], lines["experiment"]
    lines |= {"world.path": f"{tmp_path}/facts.csv"} if lines["world"] == "triples" else {}
    job = one(*(f"{key}={value}" for key, value in lines.items()))
    json.dumps(decisive(job), allow_nan=False)
    assert (job.arm, job.world.name) == (lines["arm"], lines["world"])
    assert job.results == str(CONF.parent / "results" / "local")


@pytest.mark.parametrize("experiment", [name for name in CHOICES["experiment"] if f"experiment={name}" != STUDY])
def test_every_experiment_composes_and_is_valid(experiment):
    jobs = jobs_of([f"experiment={experiment}", "arm=memory"], False)
    assert jobs and len({record_path(job) for job in jobs}) == len(jobs)
    digests = {(record_path(job).parent, job.arm): digest(job) for job in jobs}
    for job in jobs:  # or its table would mix configurations
        assert digests[record_path(job).parent, job.arm] == digest(job)


def test_the_ffn_of_conf_are_those_of_the_arms():
    assert {job.model.ffn.name for job in study()} == set(CHOICES["ffn"])


def test_schemas_are_chosen_by_the_file_and_values_by_the_command_line():
    triples = one("world=triples", "world.path=x", "ffn=dense", "seed=7")
    people = one("world=biographies", "ffn=memory")
    assert isinstance(triples.world, TriplesConfig) and isinstance(people.world, BiographiesConfig)
    assert type(triples.model.ffn) is FFNConfig and type(people.model.ffn) is MemoryConfig
    assert (triples.arm, triples.seed, people.arm, people.seed) == ("dense", 7, "memory", 0)
    lines = ["model.ffn.topk=3", "optim.roles.vector.lr_mul=2", "optim.betas=[0.5,0.6]", "model.blocks=0.5"]
    job = one("ffn=memory_plus", *lines)
    assert (job.model.ffn.topk, job.optim.roles["vector"].lr_mul, job.optim.betas) == (3, 2.0, [0.5, 0.6])
    assert job.model.blocks == 0.5 and job.model.ffn.name == job.arm == "memory_plus"


# --------------------------------------------------------------------------- sweeps


def by_hydra(arguments: list[str], monkeypatch) -> list[dict]:
    """The resolved configuration of each job that Hydra's own command line runs, in order."""
    register()
    seen = []
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(
        lambda config: seen.append(OmegaConf.to_container(config, resolve=True))
    )()
    return seen


def broken(*arguments: str, reason: str):
    return pytest.param(list(arguments), marks=pytest.mark.xfail(strict=True, reason=f"{reason}: reported"))


SWEEPS = [
    ["seed=5"],
    ["-m", "seed=1,0", "ffn=memory_plus,dense"],
    ["-m", "world=biographies", "optim.betas=[0.5,0.6],[0.7,0.8]", "seed=choice(3,1)", "training.steps=7"],
    [STUDY, "arm=dense,memory", "seed=range(2)", "hydra.launcher.n_jobs=1"],
    [STUDY, "arm=memory", "seed=0,1", "hydra/launcher=basic"],
    broken("-m", "ffn=glob(mem*)", reason="no config loader, and so no glob"),
]


@pytest.mark.parametrize("arguments", SWEEPS, ids=lambda arguments: " ".join(arguments))
def test_a_sweep_is_expanded_as_hydra_expands_it(arguments, tmp_path, monkeypatch):
    overrides = [*(line for line in arguments if line != "-m"), f"results={tmp_path}"]
    jobs = jobs_of(overrides, "-m" in arguments)
    theirs = by_hydra([*(["-m"] if "-m" in arguments else []), *overrides], monkeypatch)
    assert [flatten(dataclasses.asdict(job)) for job in jobs] == [flatten(config) for config in theirs]
    assert len({record_path(job) for job in jobs}) == len(jobs)


def test_the_study_is_six_arms_of_five_seeds():
    jobs = study()
    arms = ["dense", "dense_2x", "dense_4x", "dense_params", "memory", "memory_plus"]
    assert [(job.arm, job.seed) for job in jobs] == [(arm, seed) for arm in arms for seed in range(5)]
    assert {job.study for job in jobs} == {"memory_vs_dense"}
    assert len({record_path(job) for job in jobs}) == 30 and len({digest(job) for job in jobs}) == 6


def test_arms_of_the_study_differ_in_the_feed_forward_the_match_and_rates_only():
    jobs = {job.arm: job for job in study() if job.seed == 0}
    reference = jobs["memory"]
    own = flatten(decisive(reference))
    for arm, job in jobs.items():
        flat = flatten(decisive(job))
        different = {key for key in own.keys() | flat.keys() if own.get(key, "none") != flat.get(key, "none")}
        assert all(
            key.startswith(("model.ffn.", "match.", "optim.values."))  # dense has neither memory nor values
            or (key.startswith("optim.") and key.rpartition(".")[2] in ("lr", "lr_mul", "muon_lr"))
            for key in different
        ), (arm, different)
        assert bool(different) == (arm != "memory")
        assert job.match.reference == reference.model.ffn, "all arms are matched to the same memory"
        for name in NOT_IN_DIGEST:
            assert name == "arm" or getattr(job, name) == getattr(reference, name)
    assert {arm: (job.match.by, job.match.times) for arm, job in jobs.items()} == {
        "dense": ("flops", 1.0),
        "dense_2x": ("flops", 2.0),
        "dense_4x": ("flops", 4.0),
        "dense_params": ("params", 1.0),
        "memory": ("flops", 1.0),
        "memory_plus": ("flops", 1.0),
    }


def test_a_world_may_have_a_setting_of_its_own():
    study = ["experiment=memory_vs_dense", "seed=0", "arm=dense_4x"]
    (people,) = jobs_of([*study, "world=biographies"], True)
    (readings,) = jobs_of([*study, "world=atlas_readings"], True)
    assert (people.optim.muon_lr, readings.optim.muon_lr) == (1e-2, 2e-2)
    assert (people.training.exposures, readings.training.exposures) == (8.0, 16.0)
    (given,) = jobs_of([*study, "world=biographies", "optim.lr=1e-3", "training.exposures=2"], True)
    assert (given.optim.lr, given.training.exposures) == (1e-3, 2.0)
