"""A world of the user's facts, from a file of triples and templates of sentences.

    Ada Lovelace,born in,London     spelling=words:    Ada|Lovelace       -> London
    Al-Biruni,born in,Kath          spelling=letters:  A|l|-|B|i|r|u|n|i  -> Kath

Objects are spelt in words, which subjects share. World.notes says what was dropped, merged or resolved.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from memlayers.config import TriplesConfig
from memlayers.facts.rows import listed
from memlayers.facts.triples_file import Triples, clean, read_triples
from memlayers.facts.triples_templates import OBJECT, SUBJECT, read_templates
from memlayers.facts.world import SPECIAL_TOKENS, Vocabulary, World, num_unshared, pad, spell_objects

MAX_CELLS = 200_000_000  # most cells of a table: 1.6 GB
MAX_UNKNOWN = 2_000
RESERVED = {*SPECIAL_TOKENS, SUBJECT, OBJECT}


def build_triples(config: TriplesConfig) -> World:
    """The world of the facts in config.path. Raises ValueError, in one line, for mistakes in the files."""
    triples = take_subjects(read_triples(config.path, config.encoding), config)
    names, notes, letters = triples.subjects, list(triples.notes), config.spelling == "letters"
    spell, unit, cure = (list, "letter", "") if letters else (str.split, "word", "; world.spelling=letters avoids it")
    reserved = RESERVED | {f"[{name}]" for name in triples.relations}
    for name in chain(() if letters else names, triples.objects, triples.relations):
        if not reserved.isdisjoint(name.split()):
            raise ValueError(f"{config.path}: {name!r:.80} has a word of our own; reserved: {listed(sorted(reserved))}")

    vocabulary = Vocabulary()
    spellings = [[vocabulary[token] for token in spell(name)] for name in names]
    width = max(map(len, spellings))
    num_subject_tokens = len(vocabulary.tokens())
    if unshared := num_unshared(spellings):
        which = f"every subject is one {unit}" if width == 1 else f"{unshared} of {len(names)} subjects have a {unit}"
        notes.append(f"{which} that no other has: its own embedding row, where a fact can hide{cure}")
    strangers = recombine(names, letters, config.seed)
    unknown = [[vocabulary[token] for token in spell(name)] for name in strangers]
    if not unknown:
        notes.append("no unknown subjects: the names of the known ones cannot be recombined")

    check_size(config.path, "tokens of the longest subject", len(names), width)
    check_size(config.path, "relations", len(names), len(triples.relations))
    facts = torch.full((len(names), len(triples.relations)), -1)
    weights = torch.zeros(facts.shape, dtype=torch.float64)
    facts[triples.rows[:, 0], triples.rows[:, 1]] = triples.rows[:, 2]
    weights[triples.rows[:, 0], triples.rows[:, 1]] = triples.weights
    objects, written, shared = list[Tensor](), list[tuple[str, ...]](), set[int]()
    for column in facts.T:  # a view; replaces ids of the file by rows in the relation's objects
        used, column[column >= 0] = column[column >= 0].unique(return_inverse=True)
        spelt_rows = [[vocabulary[token] for token in triples.objects[index].split()] for index in used.tolist()]
        written.append(tuple(triples.objects[index] for index in used.tolist()))
        longest = max(map(len, spelt_rows), default=0)
        check_size(config.path, "words of the longest object", len(spelt_rows), longest)
        objects.append(spell_objects(spelt_rows) if spelt_rows else torch.zeros(0, 1, dtype=torch.long))
        shared.update(token for token in chain.from_iterable(spelt_rows) if token < num_subject_tokens)
    if shared:
        notes.append(f"{len(shared)} {unit}s of subjects occur in objects too, as the same tokens")
    spelt = pad([*spellings, *unknown])
    templates, template_notes = read_templates(config, triples.relations)
    return World(
        name=config.name,
        vocabulary=vocabulary.tokens(),
        subjects=spelt[: len(spellings)],
        relations=tuple(triples.relations),
        objects=tuple(objects),
        facts=facts,
        weights=weights,
        unknown=spelt[len(spellings) :],
        templates=templates,
        written_subjects=(*names, *strangers),
        written_objects=tuple(written),
        notes=(*notes, *template_notes),
    )


def take_subjects(triples: Triples, config: TriplesConfig) -> Triples:
    """A seeded subset of subjects, in the order of the file; with one seed, a smaller one is contained in a larger."""
    count, available = config.num_subjects, len(triples.subjects)
    if count is None or count == available:
        return triples
    if count > available:
        raise ValueError(f"world.num_subjects={count} is too large; accepted: 2 to {available}, all of {config.path}")
    kept = torch.randperm(available, generator=torch.Generator().manual_seed(config.seed))[:count].sort().values
    place = torch.full((available,), -1)
    place[kept] = torch.arange(count)
    inside = place[triples.rows[:, 0]] >= 0
    rows = triples.rows[inside]
    rows[:, 0] = place[rows[:, 0]]
    note = f"{count} of {available} subjects taken (world.num_subjects), drawn with world.seed={config.seed}"
    names = [triples.subjects[index] for index in kept.tolist()]
    return replace(triples, subjects=names, rows=rows, weights=triples.weights[inside], notes=(*triples.notes, note))


def recombine(names: Sequence[str], letters: bool, seed: int) -> list[str]:
    """Up to MAX_UNKNOWN new names: each word from a known name of as many words, at the same position.

    Where subjects are spelt in letters, names of one word are cut in half, and new names have lengths that occur.
    """

    def parts(name: str) -> list[str]:
        return [name[: len(name) // 2], name[len(name) // 2 :]] if letters and " " not in name else name.split(" ")

    alike = defaultdict(list)
    for name in names:
        alike[name.count(" ")].append(name)
    generator, known, new_names = random.Random(seed), set(names), dict[str, None]()
    lengths = set(map(len, names))
    for _ in range(min(20 * MAX_UNKNOWN, 50 * len(names) ** 2)):
        shape = generator.choice(names)
        words = [parts(generator.choice(alike[shape.count(" ")]))[place] for place in range(len(parts(shape)))]
        name = (" " if " " in shape else "").join(words)
        fits = not letters or len(name) in lengths
        if fits and name not in known and clean(name) == name and len(new_names) < MAX_UNKNOWN:
            new_names[name] = None
    return list(new_names)


def check_size(path: str, what: str, num_rows: int, width: int) -> None:
    """Raises ValueError for a table of more than MAX_CELLS cells."""
    if num_rows * width > MAX_CELLS:
        raise ValueError(f"{path}: a table of {num_rows} x {width} {what} is too large; accepted: {MAX_CELLS} cells")
