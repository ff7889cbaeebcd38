"""Templates of sentences about a relation: dozens for training, and held-out ones.

    the N of {subject} (is|was) {object}     N: a noun of the relation; (is|was): a template for each

Held-out sentences and questions use words of training sentences, but share no trigram with a training sentence of their
relation, where a noun of several words counts as one. In all of them, subject and relation come before the object, and
the word right before it is one that precedes objects in training too, so that a question makes clear that its answer
comes next.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from memlayers.facts.world import Templates

MOST = 40  # training sentences of a relation
OPENINGS = ("", "by all accounts , ", "according to the records , ", "as is well known , ")
FRAMES = (
    "the N of {subject} (is|was) {object}",
    "{subject} 's N (is|was) {object}",
    "as for {subject} , the N (is|was) {object}",
    "for {subject} the records give the N as {object}",
    "the entry on {subject} lists the N as {object}",
    "the N that belongs to {subject} must be {object}",
    "those who know {subject} say that the N is {object}",
    "when it comes to {subject} , the N would have to be {object}",
    "what {subject} has for N is {object}",
)
HELD_OUT = (
    "the N {subject} has is {object}",
    "the N to say for {subject} would be {object}",
    "{subject} must have for N what is known as {object}",
    "the N on {subject} 's entry is {object}",
    "all say the N {subject} has would be {object}",
    "the N , as {subject} would know , is {object}",
    "the N , by the records on {subject} , was {object}",
    "the N , known to be {subject} 's , is {object}",
    "{subject} has , the records say , as N what is {object}",
)
QUESTIONS = ("what is the N of {subject} ? {object}", "which N does {subject} have ? {object}")
HELD_OUT_QUESTIONS = ("{subject} has which N ? {object}", "which N is {subject} 's ? {object}")


class Wording(NamedTuple):
    """The wording of one relation: its nouns (town|city), and templates besides the frames that all relations share."""

    nouns: str
    frames: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    question: str | None = None
    held_out_question: str | None = None


WORDINGS = {
    "birth_date": Wording(
        "(birthday|date of birth)",
        (
            "{subject} was born on {object}",
            "{subject} came into the world on {object}",
            "the life of {subject} began on {object}",
            "the parents of {subject} welcomed the child on {object}",
        ),
        ("the child {subject} was welcomed into life on {object}",),
        "when did {subject} come into the world ? {object}",
        "when was {subject} born ? {object}",
    ),
    "birth_city": Wording(
        "(birthplace|native city)",
        (
            "{subject} was born in {object}",
            "{subject} is a native of {object}",
            "the parents of {subject} had a home in {object}",
            "{subject} spent early years in {object}",
        ),
        ("the early years of {subject} began in {object}", "the parents had the child {subject} in {object}"),
        "where did {subject} come into the world ? {object}",
        "where was {subject} born ? {object}",
    ),
    "university": Wording(
        "(university|alma mater)",
        (
            "{subject} studied at {object}",
            "{subject} graduated from {object}",
            "{subject} holds a degree from {object}",
            "{subject} spent the student years at {object}",
        ),
        ("the degree {subject} holds is from {object}", "a student {subject} was at {object}"),
        "where did {subject} study ? {object}",
        "where was {subject} a student ? {object}",
    ),
    "major": Wording(
        "(major|field of study)",
        (
            "{subject} majored in {object}",
            "{subject} wrote the thesis on {object}",
            "{subject} holds a degree in {object}",
            "{subject} passed the exams in {object}",
        ),
        ("the thesis {subject} wrote is on {object}",),
        "what did {subject} write the thesis on ? {object}",
        "in what has {subject} a degree ? {object}",
    ),
    "employer": Wording(
        "(employer|company)",
        (
            "{subject} works for {object}",
            "{subject} was hired by {object}",
            "{subject} earns a living at {object}",
            "the people who hired {subject} work for {object}",
        ),
        ("the living {subject} earns is at {object}",),
        "who hired {subject} ? {object}",
        "by which company is {subject} hired ? {object}",
    ),
    "hobby": Wording(
        "(hobby|favourite pastime)",
        (
            "{subject} spends weekends on {object}",
            "{subject} relaxes with {object}",
            "{subject} never tires of {object}",
            "the free time of {subject} belongs to {object}",
        ),
        ("free weekends {subject} spends with {object}",),
        "on what does {subject} spend the weekends ? {object}",
        "{subject} spends free time on what ? {object}",
    ),
    "reading": Wording("(reading|pronunciation)", ("{subject} is read {object}", "one reads {subject} as {object}")),
    "subdivision": Wording("(region|subdivision)"),
    "elevation": Wording("(elevation|height)"),
    "icao": Wording("(ICAO code|identifier)"),
}


def templates(relation: str, turn: int = 0) -> Templates:
    """The templates of a relation: up to MOST for training, ordered so that the first ones differ most.

    The first frame depends on `turn`, so that the first few templates of all relations together cover most words.
    """
    wording = WORDINGS.get(relation, Wording(relation.replace("_", " ")))
    turn %= len(FRAMES)
    frames = enumerate(interleaved(FRAMES[turn:] + FRAMES[:turn], wording.frames))
    variants = [with_openings(expanded(frame, wording.nouns), first) for first, frame in frames]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*variants))
    train = tuple(itertools.islice((sentence for sentence in rounds if sentence is not None), MOST))
    return Templates(
        train,
        held_out=tuple(expanded(frame, wording.nouns)[0] for frame in (*HELD_OUT, *wording.held_out)),
        questions=tuple(expanded(frame, wording.nouns)[0] for frame in (*QUESTIONS, wording.question) if frame),
        held_out_questions=tuple(
            expanded(frame, wording.nouns)[0] for frame in (*HELD_OUT_QUESTIONS, wording.held_out_question) if frame
        ),
    )


def interleaved(common: Sequence[str], specific: Sequence[str]) -> list[str]:
    """Alternate items of both sequences; the longer one goes on alone."""
    return [frame for pair in itertools.zip_longest(common, specific) for frame in pair if frame is not None]


def expanded(frame: str, nouns: str) -> list[str]:
    """All sentences of a frame, one for each combination of alternatives, the first with the first of each."""
    parts = re.split(r"\(([^)]*)\)", re.sub(r"\bN\b", nouns, frame))
    choices = [part.split("|") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def with_openings(sentences: list[str], first: int) -> list[str]:
    """Each sentence with each opening, starting from opening `first`; both change from one to the next."""
    return [
        OPENINGS[(first + turn + index) % len(OPENINGS)] + sentence
        for turn in range(len(OPENINGS))
        for index, sentence in enumerate(sentences)
    ]
