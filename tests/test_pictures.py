"""Pictures: views against loops and scipy, documents against the views they may show, and a run."""

import importlib
import math
import sys
from itertools import product

import pytest
import torch
from commands import refusal
from scipy import ndimage
from stubs import seeded

pytest.importorskip("sklearn")
from sklearn.datasets import load_digits

from memlayers.config import PicturesConfig
from memlayers.facts import build_world, pictures
from memlayers.facts.world import known_facts
from memlayers.studies.compose import compose_one, composing
from memlayers.text import Text, text_of
from memlayers.training.run import run
from memlayers.training.saved_model import fingerprint

PIXELS = torch.from_numpy(load_digits().images).float()
KINDS = ("shifted", "noisy", "turned")


def text_in(**settings) -> Text:
    return text_of(
        PicturesConfig(**{"num_pictures": 60, "cardinalities": [8] * 3, "views": 5, "held_out": "turned"} | settings)
    )


def rows(table: torch.Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, table.flatten(0, -2).tolist()))


def pixels_of(world) -> torch.Tensor:
    """The pictures of subjects and unknown ones, by their names."""
    return PIXELS[[int(name.removeprefix("picture_")) for name in world.names()]]


def spelt(picture: torch.Tensor) -> list[str]:
    """Its patches, in a loop over pixels: a sixteenth of grey is rounded to the nearest of four levels."""
    level = [[round(float(pixel) * 3 / 16) for pixel in row] for row in picture]
    corners = product(range(0, 8, 2), range(0, 8, 2))
    return [f"{level[y][x]}{level[y][x + 1]}{level[y + 1][x]}{level[y + 1][x + 1]}" for y, x in corners]


def test_subjects_are_the_packages_pictures_in_patches_and_so_are_unknown_ones():
    world = build_world(PicturesConfig(num_pictures=1500))
    everyone, shown = torch.cat([world.subjects, world.unknown]), pixels_of(world)
    assert len(world.subjects) == 1500 and len(rows(everyone)) == len(everyone) == len(set(world.names()))
    for row, picture in zip(everyone[::50].tolist(), shown[::50], strict=True):
        assert [world.vocabulary[token] for token in row] == spelt(picture)
    assert torch.isin(world.unknown, world.subjects).all()
    assert world.notes[0].startswith(f"{1797 - len(everyone)} pictures are not asked about as unknown")
    assert len({tuple(spelt(picture)) for picture in PIXELS}) == 1797
    again, other = (build_world(PicturesConfig(num_pictures=1500, seed=seed)) for seed in (0, 1))
    assert again.subjects.equal(world.subjects) and again.facts.equal(world.facts)
    assert all(table.equal(again.views[name]) for name, table in world.views.items())
    assert not other.subjects.equal(world.subjects)


def test_views_that_patches_do_not_tell_apart_are_counted():
    training = torch.tensor([[[1, 2], [3, 4], [3, 4]], [[3, 4], [5, 6], [7, 8]], [[5, 6], [9, 9], [1, 1]]])
    held_out = torch.tensor([[[1, 2], [0, 0]], [[1, 2], [0, 0]], [[1, 1], [9, 9]]])
    assert pictures.notes_of(training, held_out) == (
        "2 of 6 different training views are of several pictures, in patches",
        "50.0% of the views held out are in patches as training shows the same picture",
    )


def test_the_bits_are_those_of_the_closed_form():
    config = PicturesConfig(num_pictures=1700, cardinalities=[2, 4, 7])
    bits = sum(row.entropy for row in build_world(config).statistics())
    assert bits == pytest.approx(1 + 2 + math.log2(7), abs=0.02)


def test_a_shift_moves_by_one_pixel_and_all_eight_directions_occur():
    moved, found = pictures.shifted(PIXELS, seeded()), set()
    for picture, view in zip(PIXELS, moved, strict=True):
        fits = []
        for down, right in product((-1, 0, 1), repeat=2):
            wanted = torch.zeros(10, 10)
            wanted[1 + down : 9 + down, 1 + right : 9 + right] = picture
            if wanted[1:9, 1:9].equal(view):
                fits.append((down, right))
        assert fits
        if len(fits) == 1:
            found.update(fits)
    assert found == {one for one in product((-1, 0, 1), repeat=2) if one != (0, 0)}


def test_a_turn_is_that_of_scipy_and_of_10_to_15_degrees_to_both_sides(monkeypatch):
    angles = torch.tensor([10.0, -15.0, 12.5, 90.0, -45.0])
    for picture, angle, view in zip(PIXELS, angles, pictures.rotate(PIXELS[:5], angles), strict=False):
        wanted = ndimage.rotate(picture.double().numpy(), float(angle), reshape=False, order=1, mode="grid-constant")
        assert view.double().numpy() == pytest.approx(wanted, abs=1e-4)
    monkeypatch.setattr(pictures, "rotate", lambda pixels, degrees: degrees)
    drawn = pictures.turned(PIXELS, seeded())
    size = drawn.abs()
    assert size.min() >= 10 and size.max() <= 15 and size.max() - size.min() > 4.9
    assert 0.45 < (drawn > 0).float().mean() < 0.55


def test_noise_has_its_deviation_on_every_pixel_and_stays_within_black_and_white():
    noise = pictures.noisy(PIXELS, seeded()) - PIXELS
    grey = noise[(PIXELS >= 5) & (PIXELS <= 11)]
    assert float(grey.std()) == pytest.approx(pictures.NOISE, rel=0.02) and abs(float(grey.mean())) < 0.02
    assert (noise[PIXELS == 0] >= 0).all() and (noise[PIXELS == 16] <= 0).all()


@pytest.mark.parametrize("held_out", KINDS)
def test_training_shows_the_kinds_that_are_not_held_out_and_never_the_other(held_out, monkeypatch):
    """Each transformation leaves a mark of its own, so that every view can be told by its pixels."""
    marks = {"shifted": 5.0, "noisy": 10.0, "turned": 15.0}
    kinds = {name: lambda pixels, _, mark=mark: torch.full_like(pixels, mark) for name, mark in marks.items()}
    monkeypatch.setattr(pictures, "KINDS", kinds)
    shown = pictures.views_of(PIXELS, PicturesConfig(views=9, held_out=held_out))
    assert shown["training"].shape == (1797, 9, 8, 8) and shown["training"][:, 0].equal(PIXELS)
    own = {marks[kind] for kind in KINDS if kind != held_out}
    assert set(shown["training"][:, 1:].unique().tolist()) == own
    assert shown["held_out"].unique().tolist() == [marks[held_out]] and shown["as_is"][:, 0].equal(PIXELS)
    assert all(shown[kind].unique().tolist() == [mark] for kind, mark in marks.items())


def test_more_views_add_to_fewer_and_what_is_asked_stays():
    few, many = (text_in(views=count).world.views for count in (3, 7))
    assert many["training"][:, :3].equal(few["training"]) and "training" not in text_in(views=1).world.views
    assert all(few[name].equal(many[name]) for name in ("as_is", "held_out", *KINDS))
    assert few["held_out"].equal(few["turned"]) and few["as_is"].shape[1] == 1


def test_documents_show_any_training_view_of_their_subject_and_questions_those_of_their_phrasing():
    text = text_in()
    world, facts = text.world, known_facts(text.world)
    drawn = text.sample(4_000, seeded(5))
    again = text.sample(4_000, seeded(5))
    assert drawn.tokens.equal(again.tokens) and drawn.answers.equal(again.answers)
    own = rows(world.views["training"][: len(world.subjects)])
    assert rows(drawn.tokens[:, :16]) == own and not rows(drawn.tokens[:, :16]) & rows(world.views["held_out"])
    assert len(own) > 4 * len(world.subjects)
    for phrasing in ("training", *world.views):
        probe = text.probe(facts, phrasing, seeded())
        assert len(probe.subject) == len(facts) and probe.name.equal(probe.documents.tokens[:, :16])
        allowed = world.views[phrasing][probe.subject]
        assert (probe.name[:, None] == allowed).all(dim=2).any(dim=1).all()
        assert len({*map(tuple, probe.name[:200].tolist())}) > 1
    strangers = torch.stack([torch.arange(60, 70), torch.zeros(10, dtype=torch.long)], dim=1)
    asked = text.probe(strangers, "training", seeded()).name
    assert (asked[:, None] == world.views["training"][60:70]).all(dim=2).any(dim=1).all()


def test_one_view_is_the_picture_as_it_is_and_has_one_question_a_fact():
    text = text_in(views=1)
    assert rows(text.sample(2_000, seeded()).tokens[:, :16]) == rows(text.world.subjects)
    questions = text.questions()
    assert questions is not None and questions[:, :16].equal(text.world.subjects[text.facts[:, 0]])
    assert text_in(views=2).questions() is None


def test_a_document_of_all_facts_shows_one_view():
    text = text_in(document="subject")
    documents = text.sample(500, seeded())
    assert documents.tokens.shape == (500, 16 + 3 * 2) and rows(documents.tokens[:, :16]) <= rows(
        text.world.views["training"]
    )


def test_mistakes_are_one_line_each(monkeypatch):
    assert refusal("world=pictures", "world.views=0") == "world.views=0 is out of range; accepted: 1 to 256"
    mistakes = {
        "num_pictures=1797 is out of range; accepted: 2 to 1796": {"num_pictures": 1797},
        "held_out='mirrored' is not known; accepted: shifted, noisy, turned": {"held_out": "mirrored"},
        "text=prose: pictures have no sentences; accepted: terse": {"text": "prose"},
        "cardinalities=1 is out of range; accepted: 2 to 65536": {"cardinalities": [4, 1]},
    }
    for message, settings in mistakes.items():
        with pytest.raises(ValueError, match=rf"^world\.{message}$"):
            PicturesConfig(**settings).validate()
    monkeypatch.setattr(pictures, "DIGEST", "0")
    install = r'accepted: pip install -e "\.\[pictures\]" -c constraints\.txt$'
    with pytest.raises(ValueError, match=rf"^world=pictures: scikit-learn \S+ holds other pictures; {install}"):
        build_world(PicturesConfig())
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match=rf"^world=pictures needs the package scikit-learn; {install}"):
        build_world(PicturesConfig())


@pytest.mark.slow
def test_a_run_from_composing_to_its_record(tmp_path):
    words = ["world=pictures", "arm=memory", "world.num_pictures=20", "world.views=4", "world.cardinalities=[4,4]"]
    words += ["training.exposures=200", "training.batch_tokens=256", "num_keys=16", "logger=none", "progress=none"]
    with composing():
        record = run(compose_one([*words, f"results={tmp_path}", "checkpoint_minutes=null"]))
    recall = record["recall"]
    assert set(recall["by_view"]) == {"as_is", *KINDS} and recall["held_out"] == recall["by_view"]["noisy"]
    assert recall["exact"] > 0.9 and recall["by_view"]["as_is"] > 0.9 and recall["by_exposures"]
    (places,) = recall["addresses"].values()
    assert 0 < places["at_answer"]["held_out"]["weight"] < 1


def test_a_model_of_other_views_is_of_another_world():
    """The same facts and words; what training shows differs."""
    kept = {held_out: fingerprint(text_in(held_out=held_out)) for held_out in ("turned", "noisy")}
    assert len(set(kept.values())) == 2 and kept["noisy"] == fingerprint(text_in(held_out="noisy"))
