"""Templates of sentences from the user's file, a JSON object: relation -> ["{subject} ... {object}", ...]."""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

from memlayers.config import TriplesConfig
from memlayers.facts.rows import listed, read_text
from memlayers.facts.triples_file import clean
from memlayers.facts.world import KINDS, SPECIAL_TOKENS, Templates

SUBJECT, OBJECT = "{subject}", "{object}"


def read_templates(config: TriplesConfig, relations: Sequence[str]) -> tuple[tuple[Templates, ...], list[str]]:
    """Templates of each relation, and notes; the default template is "{subject} <relation> {object}"."""
    path, given, notes = config.templates, dict[str, Any](), list[str]()
    if path is None and config.text == "terse":
        return (), []
    if path is not None:
        text = read_text("world.templates", path, config.encoding, notes)
        try:
            given = json.loads(text, object_pairs_hook=without_repetition)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: malformed JSON: {error}") from None
        if not isinstance(given, dict):
            raise ValueError(f'{path}: not a JSON object; accepted: {{"relation": ["{SUBJECT} ... {OBJECT}"]}}')
    file = path or config.path
    templates = [parsed(given.get(r, [f"{SUBJECT} {r} {OBJECT}"]), f"{file}: relation {r!r}") for r in relations]
    if strangers := sorted(given.keys() - set(relations)):
        notes.append(f"{len(strangers)} relations of {path} ignored, no fact has them: {listed(strangers)}")
    if bare := [name for name in relations if name not in given]:
        notes.append(f"{len(bare)} relations told as '{SUBJECT} <relation> {OBJECT}', nothing held out: {listed(bare)}")
    plain = (t for r, t in zip(relations, templates, strict=True) if isinstance(given.get(r), list))
    if reversed_ := [r for r, t in zip(relations, templates, strict=True) if not any(map(is_forward, t.train))]:
        notes.append(f"{len(reversed_)} relations asked in held-out sentences alone: {listed(reversed_)}")
    if last := [t.held_out[0] for t in plain if t.held_out]:
        notes.append(f"{len(last)} relations hold out the last template with the subject first: {listed(last)}")
    refuse_shared_questions(file, relations, templates)
    return tuple(templates), notes


def refuse_shared_questions(file: str, relations: Sequence[str], templates: Sequence[Templates]) -> None:
    """Raises ValueError if templates of two relations ask the same, as such a question has two right answers."""
    asked: dict[str, str] = {}
    for relation, entry in zip(relations, templates, strict=True):
        for template in filter(is_forward, chain.from_iterable(getattr(entry, kind) for kind in KINDS)):
            other = asked.setdefault(template.partition(OBJECT)[0], relation)
            if other != relation:
                raise ValueError(
                    f"{file}: template {template!r} of relation {relation!r} asks what one of {other!r} does; "
                    f"accepted: other words before {OBJECT}"
                )


def is_forward(template: str) -> bool:
    """Whether the subject comes first, so that the template can be asked."""
    return template.index(SUBJECT) < template.index(OBJECT)


def parsed(value: Any, where: str) -> Templates:
    """The templates of one relation, from lists by kind, or from one list, whose last one is held out if it can be."""
    lists = value if isinstance(value, dict) else {"train": value}
    if not lists.keys() <= set(KINDS) or not all(isinstance(items, list) for items in lists.values()):
        raise ValueError(f'{where}: accepted: a list of templates, or {{"train": [...], "held_out": [...]}}')
    given = {kind: [sentence(item, where) for item in lists.get(kind, ())] for kind in KINDS}
    train, held_out = given["train"], given["held_out"]
    if twice := [item for item, times in Counter(chain.from_iterable(given.values())).items() if times > 1]:
        raise ValueError(f"{where}: template {twice[0]!r} appears twice; accepted: all different")
    forward = [item for item in train if is_forward(item)]
    if isinstance(value, list) and len(forward) > 1:
        train.remove(forward[-1])
        held_out.append(forward[-1])
    for kind in KINDS[1:]:
        if backward := [item for item in given[kind] if not is_forward(item)]:
            name = kind.replace("_", "-", 1)
            raise ValueError(f"{where}: {name} template {backward[0]!r} has the object first; accepted: subject first")
    if not train or not forward + held_out:
        raise ValueError(f"{where}: templates {train}; accepted: one or more to train on, one with the subject first")
    return Templates(**{kind: tuple(items) for kind, items in given.items()})


def sentence(template: Any, where: str) -> str:
    """A template, checked, with its words and {subject} and {object} separated by single spaces."""
    text = template if isinstance(template, str) else ""
    rest = text.replace(SUBJECT, "", 1).replace(OBJECT, "", 1)
    if SUBJECT not in text or OBJECT not in text or not {*"{}", *SPECIAL_TOKENS}.isdisjoint([*rest, *rest.split()]):
        wanted = f"{SUBJECT} and {OBJECT} once each, no other braces, no {listed(SPECIAL_TOKENS)}"
        raise ValueError(f"{where}: template {template!r:.120} is not accepted; accepted: {wanted}")
    return clean(text.replace(SUBJECT, f" {SUBJECT} ").replace(OBJECT, f" {OBJECT} "))


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these JSON pairs, with cleaned keys. Raises ValueError for a key that appears twice."""
    keys = Counter(clean(key) for key, _ in pairs)
    if twice := [key for key, times in keys.items() if times > 1]:
        raise ValueError(f"key {twice[0]!r} appears twice")
    return dict(zip(keys, (value for _, value in pairs), strict=True))
