"""The user's own facts: what is resolved is said, and sentences are theirs."""

import pytest
import torch
from oracles import small_model
from triples_files import FACTS, HEADER, build, facts, keep_the_contract, names, said, told, wrong

from memlayers.config.text import ProseConfig
from memlayers.facts.world import PAD, Templates, known_facts
from memlayers.layers import Memory
from memlayers.recall.ask import prior_bits
from memlayers.recall.measure import measure
from memlayers.text import Text

# --------------------------------------------------------------------------- what is resolved, and said


def test_text_spelt_in_two_ways_is_one_subject(tmp_path):
    world = build(tmp_path, "\ufeff" + HEADER + "Zoë,r,x\r\n Zoe\u0308 ,s,x\r\nA  B,r,y\r\nA\u00a0B,s,y\r\n")
    assert names(world, world.subjects) == ["Zoë", "A B"] and world.num_facts == 4


def test_quoted_fields_hold_commas_quotes_and_line_breaks(tmp_path):
    world = build(tmp_path, HEADER + '"King, Ada","says ""hi""","x\ny"\n\n"B","says ""hi""",z\n')
    assert facts(world) == {("King, Ada", 'says "hi"'): ("x y", 1.0), ("B", 'says "hi"'): ("z", 1.0)}


def test_repeated_rows_add_up(tmp_path):
    world = build(tmp_path, "subject,relation,object,weight\na,r,x,2\na,r,x,3\nb,r,y,0.5\na,r,x,1\n")
    assert facts(world) == {("a", "r"): ("x", 6.0), ("b", "r"): ("y", 0.5)}
    assert said(world, "merged") == "2 repeated rows merged, their weights added up"
    assert world.prior(0).tolist() == pytest.approx([6 / 6.5, 0.5 / 6.5])


def test_of_conflicting_objects_the_heavier_wins_and_at_a_tie_the_first(tmp_path):
    rows = "b,r,z,2\nb,r,y,2\na,r,x,2\na,r,y,1\na,r,y,1.5\na,r,w,1\n"
    world = build(tmp_path, "subject,relation,object,weight\n" + rows)
    assert facts(world) == {("a", "r"): ("y", 2.5), ("b", "r"): ("z", 2.0)}
    assert said(world, "several objects").startswith("2 of 2 facts had several objects, the heavier one kept")
    assert said(world, "several objects").endswith("e.g. 'b' 'r': 'z' kept, 'y' dropped")
    assert "w" not in world.vocabulary and len(world.objects[0]) == 2


def test_rows_with_an_empty_cell_are_dropped(tmp_path):
    rows = '"a\nb",r,x\nb,r,y\nc,r, \n,r,x\n,,\n'
    world = build(tmp_path, HEADER + rows)
    assert len(facts(world)) == 2
    assert said(world, "empty") == "3 rows with an empty cell dropped, the first at line 5"
    lines = ['{"subject": "a", "relation": "r", "object": 1}', '{"subject": "b", "relation": "r", "object": 2.50}']
    lines += ["", '{"subject": "c", "relation": "r", "object": null, "weight": null}']
    world = build(tmp_path, "\n".join(lines), "facts.jsonl")
    assert facts(world) == {("a", "r"): ("1", 1.0), ("b", "r"): ("2.50", 1.0)}
    assert said(world, "empty") == "1 rows with an empty cell dropped, the first at line 4"


def test_an_empty_weight_is_1(tmp_path):
    world = build(tmp_path, "subject,relation,object,weight\na,r,x,\nb,r,y,3\n")
    assert world.weights.flatten().tolist() == [1.0, 3.0]
    assert said(world, "weight") == "1 rows with an empty weight given weight 1, the first at line 2"


def test_extra_columns_are_ignored(tmp_path):
    world = build(tmp_path, "id,subject,relation,object,source\n1,a,r,x,web\n2,b,r,y,web\n")
    assert said(world, "ignored") == "2 extra columns ignored: 'id', 'source'"
    lines = [
        '{"subject": "a", "relation": "r", "object": "x", "id": [1]}',
        '{"subject": "b", "relation": "r", "object": "y"}',
    ]
    assert said(build(tmp_path, "\n".join(lines), "f.jsonl"), "ignored") == "1 extra columns ignored: 'id'"


def test_num_subjects_draws_nested_seeded_subsets(tmp_path):
    content = HEADER + "".join(f"a{i} b{i % 7},r,{i}\na{i} b{i % 7},s,{i % 3}\n" for i in range(50))
    whole = facts(build(tmp_path, content, num_subjects=50))
    worlds = {(n, seed): build(tmp_path, content, num_subjects=n, seed=seed) for n in (10, 20) for seed in (0, 1)}
    for (count, seed), world in worlds.items():
        keep_the_contract(world)
        assert len(world.subjects) == count and facts(world).items() <= whole.items()
        order = [int(name[1:].split()[0]) for name in names(world, world.subjects)]
        assert order == sorted(order)
        assert (
            said(world, "taken") == f"{count} of 50 subjects taken (world.num_subjects), drawn with world.seed={seed}"
        )
    assert facts(worlds[10, 0]).items() <= facts(worlds[20, 0]).items()
    assert facts(worlds[10, 0]) != facts(worlds[10, 1])
    again = build(tmp_path, content, num_subjects=10, seed=0)
    assert again.facts.equal(worlds[10, 0].facts) and again.unknown.equal(worlds[10, 0].unknown)


def test_a_word_is_one_token_in_subjects_and_objects_and_that_is_said(tmp_path):
    world = build(tmp_path, HEADER + "Paris Hilton,born in,New York\nNew Kid,born in,Paris\n")
    assert said(world, "objects too") == "2 words of subjects occur in objects too, as the same tokens"
    assert world.subjects[0, 0] == world.objects[0][1, 0]


def test_subjects_with_an_embedding_row_of_their_own_are_said(tmp_path):
    content = HEADER + "ab,r,x\nba,r,y\nabba,r,z\n"
    assert said(build(tmp_path, content), "row").startswith(
        "every subject is one word that no other has: its own embed"
    )
    assert "world.spelling=letters avoids it" in said(build(tmp_path, content), "row")
    letters = build(tmp_path, content, spelling="letters")
    assert not any("row" in note for note in letters.notes)
    assert names(letters, letters.subjects, "") == ["ab", "ba", "abba"] and letters.subjects.shape == (3, 4)
    content = HEADER + "a b,r,x\nb a,r,y\na Duran Duran,r,z\n"
    assert said(build(tmp_path, content), "row").startswith("1 of 3 subjects have a word that no other has")


# --------------------------------------------------------------------------- templates


def test_of_a_plain_list_the_last_subject_first_template_is_held_out(tmp_path):
    born = ["{subject} was born in {object}", "{subject} hails  from {object}.", "{object} bore {subject}"]
    died = ["{subject} died in {object}", "{object} buried {subject}"]
    world = told(tmp_path, {"born in": born, "died in": died, "x": []}, text="prose")
    first = Templates((born[0], born[2]), ("{subject} hails from {object} .",))
    assert world.templates == (first, Templates(tuple(died)))
    assert said(world, "hold out").endswith("the subject first: '{subject} hails from {object} .'")
    assert said(world, "no fact has them").startswith("1 relations of ") and "'x'" in said(world, "no fact")
    text = Text(world, "prose")
    question = text.probe(known_facts(world), "held_out", torch.Generator()).documents.tokens[1].tolist()
    words = [text.vocabulary[token] for token in question if token != PAD]
    assert words == ["Alan", "Turing", "hails", "from", "Paddington", "Green", "<end>", ".", "."]


def test_held_out_templates_can_be_named(tmp_path):
    named = {"train": ["{object} bore {subject}"], "held_out": ["{subject}'s home is {object}"]}
    world = told(tmp_path, {"born  in": named})
    assert world.templates[0] == Templates(("{object} bore {subject}",), ("{subject} 's home is {object}",))
    assert world.templates[1] == Templates(("{subject} died in {object}",))
    assert said(world, "told as") == "1 relations told as '{subject} <relation> {object}', nothing held out: 'died in'"
    assert not any("hold out" in note for note in world.notes)


def test_a_question_that_two_relations_ask_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"of relation 'died in' asks what one of 'born in' does; accepted: other words"
    ):
        told(tmp_path, {"born in": ["{subject} is of {object} ."], "died in": ["{subject} is of {object}"]})


def test_relations_that_training_tells_object_first_are_asked_in_held_out_sentences_alone(tmp_path):
    """Also of a model with a table, whose addresses are compared where both sentences can be asked."""
    reversed_ = {"train": ["{object} bore {subject}"], "held_out": ["{subject} hails from {object}"]}
    plain = {"train": ["{subject} died in {object}"], "held_out": ["{subject} 's death was in {object}"]}
    world = told(tmp_path, {"born in": reversed_, "died in": plain}, text="prose")
    assert said(world, "held-out sentences alone") == "1 relations asked in held-out sentences alone: 'born in'"
    text = Text(world, "prose")
    found = measure(small_model(text, 16, Memory(num_keys=16, heads=2, topk=4, d_key=8)), text, 100)
    assert (found["num_facts"], found["asked"]) == (4, 2) and found["addresses"] is not None
    assert found["world_bits"] == pytest.approx(2 * float(prior_bits(world, torch.tensor([[0, 1], [1, 1]])).sum()))
    world = told(tmp_path, {"born in": reversed_, "died in": {"train": ["{subject} died in {object}"]}}, text="prose")
    text = Text(world, "prose")
    found = measure(small_model(text, 16, Memory(num_keys=16, heads=2, topk=4, d_key=8)), text, 100)
    assert found["addresses"] is None


def test_a_relation_may_be_called_as_a_token_of_ours_is(tmp_path):
    world = build(tmp_path, HEADER + "a b,start,x\na b,end,y\nb a,start,y\nb a,end,x\n")
    assert world.relations == ("start", "end") and len(set(world.vocabulary)) == len(world.vocabulary)


def test_texts_with_colons_stay_whole_in_pieces(tmp_path):
    """Where the world's own objects are written without what stands before a colon."""
    rows = [f"p{index} q{index % 7},time,{value}" for index, value in enumerate(["time:1", "1", "time:2", "2"] * 5)]
    content = HEADER + "\n".join(rows) + "\n"
    world = build(tmp_path, content, text="prose", prose=ProseConfig(pieces=300))
    assert set(world.object_names(0)) == {"time:1", "1", "time:2", "2"} and len(world.objects[0].unique(dim=0)) == 4


def test_prose_without_a_file_of_templates(tmp_path):
    world = build(tmp_path, FACTS, text="prose")
    expected = (Templates(("{subject} born in {object}",)), Templates(("{subject} died in {object}",)))
    assert world.templates == expected and said(world, "2 relations told as")


BAD_TEMPLATES = {
    "not accepted; accepted: {subject} and {object} once each": [
        {"born in": ["{subject} is"]},
        {"born in": ["{subject} is {subject} of {object}"]},
        {"born in": ["{subject} is {object} in {year}"]},
        {"born in": ["{subject} is {object} }"]},
        {"born in": ["{subject} {object} <end>"]},
        {"born in": [7]},
    ],
    "accepted: a list of templates": [
        {"born in": "{subject} is {object}"},
        {"born in": None},
        {"born in": {"train": "{subject} is {object}"}},
        {"born in": {"train": ["{subject} is {object}"], "heldout": []}},
    ],
    "'{subject} is {object}' appears twice": [
        {"born in": ["{subject} is {object}", "{subject} is  {object}"]},
        {"born in": {"train": ["{subject} is {object}"], "held_out": ["{subject} is {object}"]}},
    ],
    "held-out template '{object} is {subject}' has the object first": [
        {"born in": {"train": ["{subject} is {object}"], "held_out": ["{object} is {subject}"]}},
    ],
    "one or more to train on": [
        {"born in": []},
        {"born in": {}},
        {"born in": ["{object} is {subject}"]},
        {"born in": {"held_out": ["{subject} is {object}"]}},
    ],
}


@pytest.mark.parametrize("message, templates", [(m, t) for m, group in BAD_TEMPLATES.items() for t in group])
def test_bad_templates_are_named(tmp_path, message, templates):
    error = wrong(lambda: told(tmp_path, templates))
    assert message in error and error.startswith(f"{tmp_path / 'templates.json'}: relation 'born in': ")


def test_bad_files_of_templates(tmp_path):
    file = tmp_path / "templates.json"
    assert wrong(lambda: told(tmp_path, "[]")).startswith(f"{file}: not a JSON object; accepted: {{")
    assert wrong(lambda: told(tmp_path, '{"a": [}')).startswith(f"{file}: malformed JSON: Expecting value: line 1")
    assert wrong(lambda: told(tmp_path, '{"a": [], "a ": []}')) == f"{file}: malformed JSON: key 'a' appears twice"
    assert wrong(lambda: told(tmp_path, "[" * 100_000)).startswith(f"{file}: malformed JSON: ")
    missing = wrong(lambda: build(tmp_path, FACTS, templates="gone.json"))
    assert (
        missing == "world.templates='gone.json' cannot be read: No such file or directory; accepted: an existing file"
    )
    braces = FACTS.replace("born in", "born {in}")
    assert "relation 'born {in}': template '{subject} born {in}" in wrong(lambda: build(tmp_path, braces, text="prose"))
