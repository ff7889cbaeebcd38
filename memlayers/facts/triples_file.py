"""Reads the user's two files: facts in CSV, TSV or JSONL, and sentences in JSON. Each mistake in them is one line.

    subject,relation,object,weight          UTF-8, one row a fact, columns in any order; weight may be missing
    Ada Lovelace,born in,London,2
    {"subject": "Ada Lovelace", "relation": "born in", "object": "London", "weight": 2}

Text is normalised: NFC, and white space of any kind (a line break in quotes too) becomes one space.
"""

import csv
import json
import math
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

COLUMNS = ("subject", "relation", "object")
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class Triples:
    """Rows in the order of the file; an id is a position in the names, which stand in order of first use."""

    subjects: list[str]
    relations: list[str]
    objects: list[str]
    rows: Tensor  # (n, 3) ids of subject, relation and object
    weights: Tensor  # (n,) float64, positive
    notes: tuple[str, ...] = ()


def clean(text: str) -> str:
    """The one spelling of a text that may be written in several ways."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def listed(names: Iterable[str], most: int = 5) -> str:
    """'a', 'b' and 7 more"""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_triples(path: str) -> Triples:
    """Facts of a file, one row for each subject and relation; ValueError names the file and the line."""
    ignored: set[str] = set()
    extension = Path(path).suffix.lower()
    if extension == ".jsonl":
        source = json_rows(path, ignored)
    elif extension in SEPARATORS:
        source = separated_rows(path, SEPARATORS[extension], ignored)
    else:
        raise ValueError(f"world.path={path!r} is of unknown type; accepted: a file that ends in .csv, .tsv or .jsonl")

    names: tuple[dict[str, int], ...] = ({}, {}, {})  # id of each subject, relation and object
    ids, weights = array("q"), array("d")
    incomplete, unweighted = array("q"), array("q")  # lines
    for line, cells, weight in source:
        texts = [clean(cell) for cell in cells]
        if not all(texts):
            incomplete.append(line)
            continue
        if weight is not None and not weight.strip():
            unweighted.append(line)
            weight = None
        weights.append(1.0 if weight is None else positive(weight, f"{path}, line {line}"))
        for known, text in zip(names, texts, strict=True):
            ids.append(known.setdefault(text, len(known)))

    notes = []
    if ignored:
        notes.append(f"{len(ignored)} extra columns ignored: {listed(sorted(ignored))}")
    if incomplete:
        notes.append(f"{len(incomplete)} rows with an empty cell dropped, the first at line {incomplete[0]}")
    if unweighted:
        notes.append(f"{len(unweighted)} rows with an empty weight given weight 1, the first at line {unweighted[0]}")
    if not weights:
        raise ValueError(f"{path}: no facts" + "".join(f"; {note}" for note in notes))
    rows = torch.frombuffer(ids, dtype=torch.long).reshape(len(weights), 3)
    mass = torch.frombuffer(weights, dtype=torch.float64)
    if not math.isfinite(mass.sum()):
        raise ValueError(f"{path}: the weights add up to infinity; accepted: a finite sum")
    subjects, relations, objects = map(list, names)
    return merge(Triples(subjects, relations, objects, rows, mass, tuple(notes)))


def merge(triples: Triples) -> Triples:
    """One row for each subject and relation: repeated triples add up, then the heaviest object wins, then the first."""
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


def separated_rows(path: str, separator: str, ignored: set[str]) -> Iterator[tuple[int, tuple[str, ...], str | None]]:
    """Line, cells and weight of each row; quoting as in RFC 4180, blank lines skipped."""
    reader = csv.reader(decoded_lines("world.path", path), delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}, line {(line := reader.line_num + 1)}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{where}: malformed row: {str(error).partition(' - ')[0]}") from None
        if row is None:
            return
        if len(row) < 2 and not "".join(row).strip():
            continue
        if not header:
            header = [name.strip() for name in row]
            check_columns(header, where)
            ignored.update(set(header).difference(COLUMNS, ["weight"]))
            cells_of = itemgetter(*map(header.index, COLUMNS))
            weight_at = header.index("weight") if "weight" in header else None
        elif len(row) != len(header):
            raise ValueError(f"{where}: {len(row)} fields; accepted: {len(header)} as in the header")
        else:
            yield line, cells_of(row), None if weight_at is None else row[weight_at]


def json_rows(path: str, ignored: set[str]) -> Iterator[tuple[int, tuple[str, ...], str | None]]:
    """The same of JSONL. A number is taken as it is written, null is an empty cell."""
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
    for line, text in enumerate(decoded_lines("world.path", path), start=1):
        if text.isspace():
            continue
        where = f"{path}, line {line}"
        try:
            record = decoder.decode(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"{where}: not a JSON object: {text.strip()!r:.60}")
        check_columns(list(record), where)
        ignored.update(record.keys() - {*COLUMNS, "weight"})
        cells = tuple("" if record[name] is None else record[name] for name in COLUMNS)
        weight = record.get("weight")
        try:
            "".join((*cells, "" if weight is None else weight)).encode()
        except (TypeError, UnicodeEncodeError):  # a list or true; half of a surrogate pair
            raise ValueError(f"{where}: a value is neither text nor a number: {text.strip()!r:.60}") from None
        yield line, cells, weight


def check_columns(found: list[str], where: str) -> None:
    for name in (*COLUMNS, "weight"):
        if (times := found.count(name)) > 1 or (not times and name in COLUMNS):
            said = f"{times or 'no'} columns {name!r}; columns found: {listed(found, most=20)}"
            raise ValueError(f"{where}: {said}; accepted: subject, relation and object once each, and perhaps weight")


def decoded_lines(key: str, path: str) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8; accepted: UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{key}={path!r} cannot be read: {error.strerror}; accepted: an existing file") from None


def positive(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{where}: weight {text!r:.60} is not accepted; accepted: a positive number")
    return value
