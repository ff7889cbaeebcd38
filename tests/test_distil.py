"""Learning from a trained model: the loss, what moves and what does not, which teachers are taken, what is recorded."""

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits
from records import layout
from stubs import changed, seeded, tiny
from test_resume import stop_at
from torch import Tensor
from torch.nn import functional as F

import memlayers
from memlayers.config import BiographiesConfig, DistilConfig, ModelConfig, OptimConfig, RunConfig, TrainingConfig
from memlayers.config.digest import decisive, digest
from memlayers.documents import Documents
from memlayers.facts.world import known_facts
from memlayers.layers import Dense, Memory
from memlayers.model import Transformer, build_model
from memlayers.optim import RowwiseAdagrad
from memlayers.recall.agreement import agreement
from memlayers.recall.ask import ask
from memlayers.studies.frame import framed
from memlayers.studies.table import table
from memlayers.text import text_of
from memlayers.training.checkpoint import Interrupted
from memlayers.training.checkpoint_files import checkpoint_path
from memlayers.training.learner import FactLearner, answer_loss
from memlayers.training.plan import plan
from memlayers.training.record import finished, model_path, record_path
from memlayers.training.run import run
from memlayers.training.teacher import Teacher, distilled

TEXT = text_of(BiographiesConfig(name="bio", num_people=20, name_parts=[5, 5], cardinalities=[4, 4]))  # of `tiny`
SHAPE = ModelConfig(ffn=Memory(num_keys=5, heads=2, topk=3, d_key=4), d_model=8, hidden=12)
STEPS = 60  # of the teacher: half of the facts are left for it to get wrong


def small(seed: int) -> Transformer:
    return build_model(SHAPE, len(TEXT.vocabulary), seeded(seed))


def teacher(model: Transformer, **settings: Any) -> Teacher:
    return Teacher(model.eval().requires_grad_(False), DistilConfig("s/a", **settings), {})


def of(folder: Path, steps: int = 12, **changes: Any) -> RunConfig:
    """A memory that trains for a tenth of a second."""
    optim = OptimConfig(lr=1e-2, values=RowwiseAdagrad(lr=2.0))
    training = TrainingConfig(steps=steps, batch_tokens=64, probes=2)
    return tiny(folder, **{"model": SHAPE, "optim": optim, "training": training} | changes)


def taught(folder: Path, weight: float = 0.5, **changes: Any) -> RunConfig:
    """A dense student of it."""
    model = ModelConfig(ffn=Dense(), d_model=8, hidden=12)
    return of(folder, **{"model": model, "arm": "dense", "distil": DistilConfig("single/memory", weight)} | changes)


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A folder with a trained teacher."""
    folder = tmp_path_factory.mktemp("school")
    run(of(folder, STEPS, save_model=True))
    return folder


@pytest.fixture
def kept(school, tmp_path):
    """A copy of it."""
    shutil.copytree(school, tmp_path / "results")
    return tmp_path / "results"


# --------------------------------------------------------------------------- the loss


def naive(logits: Tensor, theirs: Tensor, target: Tensor, weight: Tensor, temperature: float) -> list[float]:
    """Sums over the vocabulary, in double precision."""

    def probabilities(row: list[float], by: float) -> list[float]:
        each = [math.exp(one / by) for one in row]
        return [one / sum(each) for one in each]

    found = []
    for own, their, right, share in zip(*(one.tolist() for one in (logits, theirs, target, weight)), strict=True):
        p, q = probabilities(their, temperature), probabilities(own, temperature)
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        text = -math.log(probabilities(own, 1.0)[right])
        found.append((1 - share) * text + share * temperature**2 * divergence)
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_the_text_s_and_the_divergence_from_the_teacher_as_weighted(temperature):
    logits, theirs = torch.randn(2, 6, 9, generator=seeded()) * 2
    target, weight = torch.randint(9, (6,), generator=seeded()), torch.tensor([0, 0.25, 0.5, 0.5, 0.9, 1])
    found = distilled(logits, theirs, target, weight, temperature)
    assert found.tolist() == pytest.approx(naive(logits, theirs, target, weight, temperature), rel=1e-5)
    assert torch.allclose(found[0], F.cross_entropy(logits[:1], target[:1]))
    assert distilled(theirs, theirs, target, torch.ones(6), temperature).abs().max() < 1e-6


def test_at_high_temperatures_a_student_matches_the_teacher_s_logits():
    """Hinton et al. 2015, section 2.1: the gradient is 1 / (vocabulary) of the difference of centred logits."""
    logits, theirs = torch.randn(2, 5, 9, generator=seeded(), dtype=torch.float64)
    logits.requires_grad_()
    distilled(logits, theirs, torch.zeros(5, dtype=torch.long), torch.ones(5), 1e4).sum().backward()
    centred = [one - one.mean(dim=1, keepdim=True) for one in (logits.detach(), theirs)]
    assert torch.allclose(logits.grad, (centred[0] - centred[1]) / 9, atol=1e-4)


@pytest.mark.parametrize("tokens", ["all", "answers", "others"])
def test_a_teacher_teaches_at_the_tokens_that_are_named(tokens):
    """Document by document, position by position."""
    student, model = small(0), small(1)
    documents = TEXT.sample(6, seeded())
    found = answer_loss(student, documents, "all", teacher(model, weight=0.75, tokens=tokens, temperature=2.0))
    each = []
    for row, marks, _ in zip(*documents, strict=True):
        logits, theirs = student(row[None, :-1]).logits, model(row[None, :-1]).logits
        for place in range(len(row) - 1):
            if row[place + 1] != 0:
                is_taught = tokens == "all" or bool(marks[place + 1]) == (tokens == "answers")
                weight = torch.tensor([0.75 if is_taught else 0.0])
                own = slice(place, place + 1)
                each += naive(logits[own], theirs[own], row[place + 1 : place + 2], weight, 2.0)
    assert found.item() == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_a_batch_without_answers_teaches_nothing():
    tokens, answers, context = TEXT.sample(2, seeded())
    loss = answer_loss(small(0), Documents(tokens, answers & False, context), "answers", teacher(small(1)))
    assert loss.item() == 0


# --------------------------------------------------------------------------- what moves


def test_no_gradient_reaches_the_teacher_and_no_state_or_count_of_the_student_has_it():
    model = small(1)
    before = copy.deepcopy(model.state_dict())
    learner = FactLearner(small(0), OptimConfig(), "all", 1, teacher=teacher(model))
    alone = FactLearner(small(0), OptimConfig(), "all", 1)
    answer_loss(learner.model, TEXT.sample(8, seeded()), "all", learner.teacher).backward()
    assert all(one.grad is None for one in model.parameters())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(one.grad is not None for one in learner.parameters())
    assert learner.state_dict().keys() == alone.state_dict().keys()
    assert len(list(learner.parameters())) == len(list(alone.parameters()))


def divergence(student: Transformer, model: Transformer) -> float:
    """Mean over the answers of all facts."""
    tokens, answers, _ = TEXT.probe(known_facts(TEXT.world), "training", seeded()).documents
    where = answers[:, 1:]
    with torch.no_grad():
        own, theirs = (one(tokens[:, :-1], where).logits for one in (student.eval(), model))
    return float(distilled(own, theirs, tokens[:, 1:][where], torch.ones(len(own)), 1.0).mean())


def test_a_student_that_sees_nothing_but_its_teacher_comes_nearer_to_it_than_one_that_reads(kept):
    model = memlayers.load(model_path(of(kept, STEPS))).model
    found = {}
    for weight in (0.0, 1.0):
        config = of(kept, 120, distil=DistilConfig("single/memory", weight), study="other", save_model=True)
        record = run(config)
        found[weight] = divergence(memlayers.load(model_path(config)).model, model), record["recall"]["teacher"]
    assert found[1.0][0] < 0.2 * found[0.0][0]
    assert found[1.0][0] < 0.1 * divergence(small(0), model)
    assert found[1.0][1]["agrees_when_wrong"] > found[0.0][1]["agrees_when_wrong"] + 0.3


# --------------------------------------------------------------------------- runs


def test_with_no_weight_a_run_is_the_one_without_a_teacher_digit_for_digit(kept):
    alone, compared = run(taught(kept, distil=DistilConfig())), run(taught(kept, 0.0))
    assert alone["digest"] != compared["digest"] and "teacher" not in alone
    recall = {key: value for key, value in compared["recall"].items() if key != "teacher"}
    assert (recall, compared["training"]) == (alone["recall"], alone["training"])
    assert compared["cost"] == alone["cost"] | {"training_flops_with_teacher": alone["cost"]["training_flops"]}


def test_the_record_says_who_taught_and_at_what_cost_and_so_does_the_table(kept):
    by, config = of(kept, STEPS), taught(kept)
    first, record = finished(by), run(config)
    assert first is not None
    chosen, of_teacher = plan(config), plan(by).matched.cost
    head = 2 * 8 * len(TEXT.vocabulary)  # FLOPs of a scored position; the teacher's own documents are as long
    assert plan(by).work.sequence == chosen.work.sequence and head > 0
    forward = of_teacher.forward * chosen.tokens
    wanted = {"study": "single", "arm": "memory", "seed": 0, "digest": digest(by), "forward_flops": forward}
    assert record["teacher"] == wanted | {"training_flops": first["cost"]["training_flops"]}
    own = chosen.matched.cost.flops * chosen.tokens
    total = own + forward + of_teacher.flops * plan(by).tokens
    assert record["cost"]["training_flops"] == pytest.approx(own)
    assert record["cost"]["training_flops_with_teacher"] == pytest.approx(total)
    assert record["cost"]["params"] == chosen.matched.cost.params
    readouts = ["training_flops", "training_flops_with_teacher", "agrees_when_wrong"]
    rows = table(framed([first, record]), layout(rows=["arm", "distil.teacher"], readouts=readouts))
    assert dict(zip(rows["distil.teacher"], rows["training_flops_with_teacher"], strict=True)) == pytest.approx(
        {"-": first["cost"]["training_flops"], "single/memory": total}
    )
    assert rows["agrees_when_wrong"].notna().sum() == 1


def test_a_student_that_teaches_costs_what_its_own_teacher_did_too(kept):
    first = run(taught(kept, save_model=True))
    second = run(taught(kept, arm="third", distil=DistilConfig("single/dense")))
    assert second["teacher"]["training_flops"] == first["cost"]["training_flops_with_teacher"]


@pytest.mark.parametrize("arm", ["dense", "memory"])
def test_a_student_that_was_stopped_goes_on_to_the_same_digits_without_its_teacher_in_the_checkpoint(
    arm, kept, monkeypatch
):
    """A memory's rows move in backward."""
    changes = {"model": SHAPE, "arm": arm, "study": "stopped"} if arm == "memory" else {}
    whole = run(taught(kept, **changes))
    record_path(taught(kept, **changes)).unlink()
    config = taught(kept, **changes)
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(Interrupted):
            run(config)
    saved = torch.load(checkpoint_path(config), weights_only=True)["state_dict"]
    assert saved.keys() == {f"model.{name}" for name in build_model(config.model, 9).state_dict()}
    assert digits(run(config)) == digits(whole)


# --------------------------------------------------------------------------- which teacher


def test_the_digest_has_the_teacher_s_digest_and_neither_its_place_nor_its_seed(kept, tmp_path):
    by, config = of(kept, STEPS), taught(kept)
    assert decisive(config)["distil"] == {"teacher": digest(by)}
    shutil.copytree(kept, tmp_path / "elsewhere")
    assert digest(taught(tmp_path / "elsewhere")) == digest(config)
    path, other = model_path(by), model_path(changed(by, "seed", 3))
    shutil.copy(path, other)
    assert digest(taught(kept, seed=3)) == digest(config)
    path.rename(path.with_name(f"memory-s0-{'0' * 12}.safetensors"))
    assert digest(taught(kept)) != digest(taught(kept, seed=3)) != digest(taught(kept, distil=DistilConfig(), seed=3))


def refused(config: RunConfig) -> str:
    with pytest.raises(ValueError) as caught:
        run(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_teacher_that_is_not_there_or_not_finished_or_not_one_is_refused_before_there_is_a_record(kept):
    path = model_path(of(kept, STEPS))
    begins = (
        "distil.teacher=single/memory: finished runs with save_model=true of seed {0} in bio below {1}: {2}; accepted: "
        "one, as study=single arm=memory seed={0} save_model=true leaves it"
    )
    assert refused(taught(kept, seed=1)) == begins.format(1, kept, "none")
    other = path.with_name(f"memory-s0-{'0' * 12}.safetensors")
    shutil.copy(path, other)
    assert refused(taught(kept)) == begins.format(0, kept, f"{other.stem}, {path.stem}")
    other.unlink()
    path.with_suffix(".json").unlink()
    assert refused(taught(kept)) == begins.format(0, kept, path.stem)
    assert [one.suffix for one in path.parent.iterdir() if one.is_file()] == [".safetensors"]


@pytest.mark.parametrize(
    ("settings", "said", "accepted"),
    [
        ({"world.seed": 1}, "world.seed=0", "world.seed=1"),
        (
            {"world.num_people": 21, "world.text": "prose"},
            "world.text=terse, world.num_people=20",
            "world.text=prose, w",
        ),
    ],
    ids=str,
)
def test_a_teacher_that_learnt_another_text_is_refused_by_the_settings_that_differ(settings, said, accepted, kept):
    config = taught(kept)
    for key, value in settings.items():
        config = changed(config, key, value)
    begins = f"distil.teacher=single/memory: learnt {said}; accepted: a teacher of {accepted}"
    assert refused(config).startswith(begins)


def test_a_teacher_of_the_same_words_in_other_documents_is_taken(kept):
    """As where a student is told less often, or several facts at once."""
    assert run(changed(taught(kept), "world.document", "subject"))["teacher"]["arm"] == "memory"


# --------------------------------------------------------------------------- what it says


def test_agreement_is_that_of_answers_decoded_one_by_one(kept):
    """Objects are of one token here."""
    model, student = memlayers.load(model_path(of(kept, STEPS))).model, small(3).eval()
    found: dict[str, list[bool]] = {"right_when_right": [], "right_when_wrong": [], "agrees_when_wrong": []}
    known = []
    for subject, relation in known_facts(TEXT.world).tolist():
        tokens, answers, _ = TEXT.probe(torch.tensor([[subject, relation]]), "training", seeded()).documents
        at = int(answers[0].long().argmax())
        assert int(answers.sum()) == 1
        own, theirs = (int(one(tokens[:, :at]).logits[-1].argmax()) for one in (student, model))
        truth = int(tokens[0, at])
        known.append(theirs == truth)
        found["right_when_right" if known[-1] else "right_when_wrong"].append(own == truth)
        if not known[-1]:
            found["agrees_when_wrong"].append(own == theirs)
    wanted = {key: sum(hits) / len(hits) for key, hits in found.items()}
    assert 0.1 < sum(known) / len(known) < 0.9
    assert agreement(student, model, TEXT) == pytest.approx(wanted | {"exact": sum(known) / 40, "asked": 40})
    exact = ask(model, TEXT, known_facts(TEXT.world), "training").exact
    assert agreement(model, model, TEXT) == pytest.approx(
        {"asked": 40, "exact": float(exact.float().mean()), "right_when_right": 1.0}
        | {"right_when_wrong": 0.0, "agrees_when_wrong": 1.0}
    )


def test_of_a_teacher_without_mistakes_none_can_be_repeated(monkeypatch):
    model, facts = small(0), known_facts(TEXT.world)[:4]
    monkeypatch.setattr("memlayers.recall.agreement.decode_answers", lambda *_: (TEXT.objects[:4], None, facts))
    monkeypatch.setattr("memlayers.recall.agreement.gold", lambda *_: TEXT.objects[:4])
    assert agreement(model, model, TEXT)["agrees_when_wrong"] is None
