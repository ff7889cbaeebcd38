"""Each mistake in a command line is one line that names the word at fault and what would be accepted."""

import dataclasses
import difflib

import pytest
from commands import ARMS, CHOICES, GROUPS, one, refusal

from memlayers.config import ModelConfig, RunConfig
from memlayers.studies import compose
from memlayers.training.plan import plan


def nodes(tree: dict, prefix: str = "") -> set[str]:
    """Every key, of leaves and of what holds them."""
    found = {f"{prefix}{name}" for name in tree}
    return found.union(*(nodes(value, f"{prefix}{name}.") for name, value in tree.items() if isinstance(value, dict)))


# --------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("model.d_modl=64", "model.d_model"),
        ("modle.d_model=64", "model.d_model"),
        ("model.ffn.num_key=64", "model.ffn.num_keys"),
        ("sed=1", "seed"),
        ("wrld=biographies", "world"),
        ("optim.values.l=3", "optim.values.lr"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(line, nearest):
    assert nearest in nodes(dataclasses.asdict(one()))
    assert refusal(line) == f"{line}: unknown key {line.partition('=')[0]!r}; did you mean {nearest}?"


def test_arguments_of_others_are_answered_with_how_to_give_them():
    said = refusal("trainer.max_steps=3")
    assert said.startswith("trainer.max_steps=3: not set so far; accepted: +trainer.max_steps=3, if lightning.Trainer")
    assert one("+trainer.max_steps=3").trainer["max_steps"] == 3
    assert "submitit" in refusal("hydra/launcher=nowhere")


def test_a_key_like_no_other_gets_the_list_of_all_at_the_top():
    head, _, accepted = refusal("zzz=1").partition("accepted: ")
    assert head == "zzz=1: unknown key 'zzz'; "
    assert set(accepted.split(", ")) == {field.name for field in dataclasses.fields(RunConfig)} | set(GROUPS)


@pytest.mark.parametrize("line", ["+foo=1", "++model.ffn.foo=1", "+model.ffn.kind=Dense"])
def test_a_key_added_by_force_is_not_ignored_in_silence(line):
    assert refusal(line) == f"{line}: no such setting; accepted: those of the schema, as --cfg job shows them"


def test_a_key_of_what_is_not_there_is_one_line():
    assert refusal("match.reference=null", "match.reference.topk=3").startswith("match.reference.topk=3: unknown key")
    assert refusal("model.residual.n=3").startswith("model.residual.n=3: unknown key")


def test_of_several_words_the_wrong_one_is_named_and_not_those_that_depend_on_a_choice():
    lines = ["world.num_people=100", "world=biographies", "model.d_modl=3", "optim.lr=1e-3"]
    assert one(*lines[:2]).world.num_people == 100
    assert refusal(*lines) == "model.d_modl=3: unknown key 'model.d_modl'; did you mean model.d_model?"


# --------------------------------------------------------------------------- choices


@pytest.mark.parametrize("group", ["world", "arm", "experiment", "trainer", "values"])
def test_a_misspelt_choice_is_answered_with_the_choices(group):
    choices = ARMS if group == "arm" else CHOICES[group]
    wrong = choices[0] + "x"
    (nearest,) = difflib.get_close_matches(wrong, choices, n=1)
    accepted = f"accepted: {', '.join(choices)}"
    assert refusal(f"{group}={wrong}") == f"{group}={wrong}: no such choice; did you mean {nearest}? {accepted}"
    if group == "arm":
        assert refusal("arm=qqqq") == refusal("ffn=qqqq") == f"arm=qqqq: no such choice; {accepted}"


def test_folders_of_conf_that_are_no_groups_are_told_apart():
    said = "not a choice; accepted: rates.world=NAME of a file, or null"
    for word in ("rates=atlas_airports", "rates=3"):
        assert refusal(word) == f"{word}: {said}"
    assert one("rates={world:null,arm:null}").rates.world is None
    assert refusal("space=dense").startswith("space=dense: unknown key 'space'; accepted: arm, ")


@pytest.mark.parametrize(
    ("key", "group"),
    [("ffn@match.reference", "ffn"), ("extra@model.residual", "extra"), ("extra@model.before", "extra")],
)
def test_a_misspelt_layer_of_another_place_is_answered_with_the_choices(key, group):
    wrong = CHOICES[group][0] + "x"
    said = refusal(f"{key}={wrong}")
    assert said.startswith(f"{key}={wrong}: no such choice; ")
    assert said.endswith(f"accepted: {', '.join(CHOICES[group])}")


@pytest.mark.parametrize("line", ["arm=null", "ffn@match.reference=null"])
def test_no_choice_at_all_is_named(line):
    assert refusal(line).startswith(f"{line}: ")


def test_a_layer_where_a_choice_should_be_is_answered_with_how_to_choose():
    said = refusal("model.residual=ngram")
    assert said == "model.residual='ngram' is no layer; accepted: a choice such as extra@model.residual=ngram"
    assert one("extra@model.residual=ngram").model.residual is not None
    assert refusal("arm=[1,2]").startswith("arm=[1,2]: no such choice; accepted: ")
    assert refusal("model.ffn=0.5") == "model.ffn=0.5 is no layer; accepted: a choice such as arm=memory"
    assert refusal("optim.values=0.5") == "optim.values=0.5 is no rule; accepted: a choice such as values=sgd"


# --------------------------------------------------------------------------- values


@pytest.mark.parametrize(("line", "kind"), [("optim.betas=[a,b]", "Float"), ("optim.schedule=null", "Optional")])
def test_of_an_item_and_of_a_group_of_settings_the_wrong_kind_is_named(line, kind):
    said = refusal(line)
    assert said.startswith(f"{line}: ") and "optim." in said.removeprefix(line) and kind in said


WRONG_VALUES = [
    (["model.ffn.num_keys=4", "model.ffn.topk=5"], "model.ffn.topk=5 is out of range; accepted: 1 to 4"),
    (["model.ffn.d_key=15"], "model.ffn.d_key=15 is not even; accepted: an even number, as a key has two halves"),
    (["model.depth=2", "model.blocks=[0,2]"], "model.blocks=[0, 2]: block 2 is out of range; accepted: a list of indi"),
    (["world=triples"], "world.path is not set; accepted: world.path=VALUE on the command line"),
    (["world=biographies", "world.num_people=1"], "world.num_people=1 is out of range; accepted: 2 to 1000000"),
    (["seed=-1"], "seed=-1 is out of range; accepted: 0 to 2147483647"),
    (["training.exposures=inf"], "training.exposures=inf is not a number to work with; accepted: a finite one"),
    (["optim.eps=nan"], "optim.eps=nan is not a number to work with; accepted: a finite one"),
    (["optim.lr=inf"], "optim.lr=inf is not a number to work with; accepted: a finite one"),
    (["study=a/b"], "study=a/b cannot name a folder or file; accepted: a name without /"),
    (["world.name=a/b"], "world.name=a/b cannot name a folder or file; accepted: a name without /"),
]


@pytest.mark.parametrize(("words", "begins"), WRONG_VALUES, ids=[" ".join(words) for words, _ in WRONG_VALUES])
def test_an_impossible_value_is_named_with_what_is_accepted(words, begins):
    message = refusal(*words)
    assert message.startswith(begins) and "accepted: " in message


def test_a_word_that_sets_nothing_is_answered_with_how_to_set():
    for word in ("atlas_airports", "=1"):
        assert refusal("arm=dense", word).startswith(f"{word}: not understood; accepted: KEY=VALUE")


@pytest.mark.parametrize("word", ["training.exposures=[1", "arm=[dense", "study='a", "study=a=b"])
def test_a_word_that_cannot_be_read_is_named(word):
    assert refusal("arm=dense", word).startswith(f"{word}: cannot be read (")
    assert "accepted: KEY=VALUE, with brackets closed" in refusal(word)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("model.gated=maybe", "true or false"),
        ("model.depth=1.5", "a whole number"),
        ("seed=first", "a whole number"),
        ("training.steps=1e999", "a whole number, or null"),
        ("optim.lr=fast", "a number"),
        ("optim.muon_lr=fast", "a number, or null"),
        ("report.readouts=3", "a list, such as [a,b]"),
        ("study=null", "text"),
        ("seed=null", "a whole number"),
    ],
)
def test_a_value_of_another_kind_is_answered_with_the_kind(word, kind):
    assert refusal("arm=dense", word) == f"{word}: not of its kind; accepted: {kind}"


@pytest.mark.parametrize("word", ["+seed=1", "~seed=1", "~optim.lr", "report.reference.model.ffn.norm=batch"])
def test_what_fails_for_another_reason_than_its_kind_is_not_blamed_for_it(word):
    assert refusal("experiment=scores", word).startswith(f"{word}: ") and "kind" not in refusal(word)


@pytest.mark.parametrize("word", ["world={a:1}", "values=3", "arm=null", "world=[biographies]", "arm=dense,3"])
def test_what_names_no_choice_is_answered_with_the_choices(word):
    group = word.partition("=")[0]
    choices = ARMS if group == "arm" else CHOICES[group]
    assert refusal(word) == f"{word}: no such choice; accepted: {', '.join(choices)}"


@pytest.mark.parametrize("word", ["axes=3", "+axes=[seed]", "axes=a,b"])
def test_what_a_command_sweeps_is_not_for_the_user_to_say(word):
    assert refusal(word) == f"{word}: says what a command sweeps; accepted: without it"


@pytest.mark.parametrize("objects", [["x"], ["x", "x", "x"]])
def test_a_world_with_fewer_than_two_objects_is_refused_before_training(tmp_path, objects):
    path = tmp_path / "facts.csv"
    facts = [f"name {index},likes,{value}" for index, value in enumerate(objects)]
    path.write_text("\n".join(["subject,relation,object", *facts]) + "\n")
    with pytest.raises(ValueError) as caught:
        plan(one("world=triples", f"world.path={path}"))
    message = str(caught.value)
    assert "\n" not in message and "'likes' has fewer than two objects" in message


# --------------------------------------------------------------------------- whose fault


def test_an_assertion_of_omegaconf_about_a_null_node_is_a_mistake_of_the_user():
    assert refusal("logger=none", "logger.save_dir=x").startswith("logger.save_dir=x: unknown key")


@pytest.mark.parametrize(
    "words", [[], ["-m", "seed=1,2"], ["model.d_model=64"], ["experiment=heads_and_k"]], ids=" ".join
)
@pytest.mark.parametrize("where", ["to_run_config", "validate", "flatten"])
def test_an_assertion_of_ours_is_no_mistake_of_the_user(words, where, monkeypatch):
    """Also with words that would be blamed for it."""

    def fail(*arguments, **settings):
        raise AssertionError("a defect")

    monkeypatch.setattr(ModelConfig if where == "validate" else compose, where, fail)
    with pytest.raises(AssertionError, match="a defect"):
        compose.jobs_of([word for word in words if word != "-m"], "-m" in words)
