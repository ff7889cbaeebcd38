"""Turns rows of the user's file into facts: one spelling of each name, one object for each subject and relation.

Text is normalised: NFC; white space of any kind (also a line break in quotes) becomes one space; invisible characters
(zero width, NUL, marks of direction) are removed. Notes say what was dropped or merged.
"""

import math
import unicodedata
from array import array
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from memlayers.facts.rows import listed, read_rows


@dataclass(frozen=True)
class Triples:
    """Facts in the order of the file; an id is an index into a list of names, which are in order of first use."""

    subjects: list[str]
    relations: list[str]
    objects: list[str]
    rows: Tensor  # (n, 3) ids of subject, relation and object
    weights: Tensor  # (n,) float64, positive
    notes: tuple[str, ...] = ()


def clean(text: str) -> str:
    """The normalised spelling of a text."""
    return " ".join(unicodedata.normalize("NFC", visible(text)).split())


def visible(text: str) -> str:
    """The text without control and format characters, but with white space."""
    if text.isprintable():  # fast path for most texts
        return text
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))


def read_triples(path: str, encoding: str = "utf-8") -> Triples:
    """Read the facts of a file, one for each subject and relation. Raises ValueError with file and line."""
    ignored, notes = set[str](), list[str]()
    source = read_rows(path, encoding, notes, ignored)
    names: tuple[dict[str, int], ...] = ({}, {}, {})  # id of each subject, relation and object
    ids, weights = array("q"), array("d")
    incomplete, unweighted, unseen = array("q"), array("q"), array("q")  # lines
    for line, cells, weight in source:
        texts = [clean(cell) for cell in cells]
        if any(visible(cell) != cell for cell in cells):
            unseen.append(line)
        if not all(texts):
            incomplete.append(line)
            continue
        if weight is not None and not weight.strip():
            unweighted.append(line)
            weight = None
        weights.append(1.0 if weight is None else positive(weight, f"{path}, line {line}"))
        for known, text in zip(names, texts, strict=True):
            ids.append(known.setdefault(text, len(known)))

    if ignored:
        notes.append(f"{len(ignored)} extra columns ignored: {listed(sorted(ignored))}")
    if incomplete:
        notes.append(f"{len(incomplete)} rows with an empty cell dropped, the first at line {incomplete[0]}")
    if unweighted:
        notes.append(f"{len(unweighted)} rows with an empty weight given weight 1, the first at line {unweighted[0]}")
    if unseen:
        notes.append(f"{len(unseen)} rows had invisible characters, which are left out, the first at line {unseen[0]}")
    if not weights:
        raise ValueError(f"{path}: no facts" + "".join(f"; {note}" for note in notes))
    rows = torch.frombuffer(ids, dtype=torch.long).reshape(len(weights), 3)
    mass = torch.frombuffer(weights, dtype=torch.float64)
    if not math.isfinite(mass.sum()):
        raise ValueError(f"{path}: the weights add up to infinity; accepted: a finite sum")
    subjects, relations, objects = map(list, names)
    return merge(Triples(subjects, relations, objects, rows, mass, tuple(notes)))


def merge(triples: Triples) -> Triples:
    """Reduce to one object for each subject and relation: sum the weights of repeated triples, then keep the heaviest
    object; at a tie, the first.
    """
    subject, relation, value = triples.rows.T
    num_rows, num_objects = len(triples.rows), len(triples.objects)
    _, pair = (subject * len(triples.relations) + relation).unique(return_inverse=True)
    distinct, triple = (pair * num_objects + value).unique(return_inverse=True)
    weight = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, triple, triples.weights)
    first = torch.full((len(distinct),), num_rows).scatter_reduce_(0, triple, torch.arange(num_rows), "amin")
    pair = distinct // num_objects

    order = first.argsort()
    order = order[weight[order].argsort(descending=True, stable=True)]
    order = order[pair[order].argsort(stable=True)]
    wins = torch.ones(len(order), dtype=torch.bool)
    wins[1:] = pair[order].diff() > 0
    winners, losers = order[wins], order[~wins]  # winners[p] is the object of pair p
    notes = list(triples.notes)
    if num_rows > len(distinct):
        notes.append(f"{num_rows - len(distinct)} repeated rows merged, their weights added up")
    if len(losers):
        loser = losers[first[losers].argmin()]
        lost, won = first[loser], first[winners[pair[loser]]]
        example = f"{triples.subjects[subject[lost]]!r} {triples.relations[relation[lost]]!r}"
        notes.append(
            f"{len(pair[losers].unique())} of {len(winners)} facts had several objects, the heavier one kept, at a tie "
            f"the first; e.g. {example}: {triples.objects[value[won]]!r} kept, {triples.objects[value[lost]]!r} dropped"
        )
    return replace(triples, rows=triples.rows[first[winners]], weights=weight[winners], notes=tuple(notes))


def positive(text: str, where: str) -> float:
    """The number of a weight. Raises ValueError unless it is positive and finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{where}: weight {text!r:.60} is not accepted; accepted: a positive number")
    return value
