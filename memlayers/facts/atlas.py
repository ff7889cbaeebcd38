"""Real facts from installed packages, pinned by a digest of the facts.

    readings   pypinyin      "中"   reading: zhong 1                                          20,924 subjects
    airports   airportsdata  "SYD"  country: AU, time zone: Australia/Sydney, icao: Y S S Y …  7,884 subjects

Nothing in "中" or "SYD" gives the answer away, so recall here is memory. Two exceptions: 1,803 airports have as ICAO
code one letter and their IATA code; an airport's name (spelling=bpe) often holds words of its country's language.
"""

import hashlib
import unicodedata
from functools import cache
from importlib.metadata import version
from itertools import islice, pairwise, product

import torch
from torch import Tensor

from memlayers.checks import one_of
from memlayers.config import AtlasConfig
from memlayers.facts.sentences import templates
from memlayers.facts.spelling import make_speller, spell
from memlayers.facts.world import Vocabulary, World, num_unshared, pad, spell_objects

Object = tuple[str, ...]  # its tokens
Facts = dict[str, dict[str, Object]]  # subject -> relation -> object

PINNED = {  # source -> package, its version, sha256 of its triples
    "readings": ("pypinyin", "0.55.0", "4cc8e7d7691060a1a1a50d99c4d0e4b728b2f3e4248cf36c5138075a6d1660db"),
    "airports": ("airportsdata", "20260905", "89babeffb2d1860745e18ffe0ed9bfbe5db02812692965b1126f6b06e59ad049"),
}
RELATIONS = {
    "readings": ("reading",),
    "airports": ("country", "time_zone", "subdivision", "latitude", "longitude", "elevation", "icao"),
}
TONE_MARKS = {"\u0304": "1", "\u0301": "2", "\u030c": "3", "\u0300": "4"}  # combining macron, acute, caron, grave
NEUTRAL_TONE = "5"
MAX_UNKNOWN = 2_000


def build_atlas(config: AtlasConfig) -> World:
    """A seeded subset of a source; with one seed, a smaller subset is contained in a larger one.

    Subjects without a fact in the chosen relations are left out. Unknown subjects are the rest of the source, or
    invented if all of it is taken; only those are used whose tokens and lengths occur in known subjects.
    """
    facts = load_facts(config.source)
    relations = chosen_relations(config)
    notes: list[str] = []
    if config.spelling == "bpe":
        by_code, facts = facts, by_airport_name(facts)
        notes.append(f"{len(by_code) - len(facts)} airports dropped: an earlier IATA code has the same name")
    available = sorted(name for name, objects in facts.items() if not objects.keys().isdisjoint(relations))
    if len(available) < len(facts):
        notes.append(f"{len(facts) - len(available)} subjects left out: no fact in {', '.join(relations)}")
    num_subjects = len(available) if config.num_subjects is None else config.num_subjects
    if num_subjects > len(available):
        raise ValueError(f"world.num_subjects={num_subjects} is too large; accepted: 2 to {len(available)}")

    generator = torch.Generator().manual_seed(config.seed)
    shuffled = shuffle(available, generator)
    known, rest = shuffled[:num_subjects], shuffled[num_subjects:]
    vocabulary = Vocabulary()
    speller = make_speller(config.spelling, known, config.num_bpe_tokens)
    spellings = spell(known, speller, vocabulary)
    tokens, longest = set(vocabulary.tokens()), max(map(len, spellings))
    if unshared := num_unshared(spellings):
        notes.append(f"{unshared} of {num_subjects} subjects have a token that no other has, where a fact can hide")
    candidates = rest or shuffle(sorted(invented_names(config, known) - set(facts)), generator)
    spelled = ((name, speller(name)) for name in candidates)
    strangers = (name for name, row in spelled if tokens.issuperset(row) and len(row) <= longest)
    others = list(islice(strangers, MAX_UNKNOWN))
    table = pad([*spellings, *spell(others, speller, vocabulary)])

    columns = [tabulate([facts[name].get(relation) for name in known], vocabulary) for relation in relations]
    rows = torch.stack([column for _, column in columns], dim=1)
    return World(
        name=config.name,
        vocabulary=vocabulary.tokens(),
        subjects=table[:num_subjects],
        relations=relations,
        objects=tuple(objects for objects, _ in columns),
        facts=rows,
        weights=(rows >= 0).float(),
        unknown=table[num_subjects:],
        templates=tuple(templates(relation, turn) for turn, relation in enumerate(relations)),
        written_subjects=(*known, *others),
        notes=tuple(notes),
    )


@cache
def load_facts(source: str) -> Facts:
    """All facts of a source, read once a process and not to be changed.

    Raises ValueError if the package is missing or holds other facts than the pinned ones.
    """
    package, expected, digest = PINNED[source]
    install = f"accepted: pip install {package}=={expected}"
    try:
        facts = load_readings() if source == "readings" else load_airports()
    except ModuleNotFoundError as error:
        raise ValueError(f"world.source={source!r} needs the package {package}; {install}") from error
    if digest_of(facts) != digest:
        raise ValueError(f"world.source={source!r}: {package} {version(package)} holds other facts; {install}")
    return facts


def load_readings() -> Facts:
    """The first reading of each character from U+4E00 to U+9FFF: {"中": {"reading": ("zhong", "1")}}."""
    from pypinyin.pinyin_dict import pinyin_dict

    first = {chr(code): pinyin_dict[code].split(",")[0] for code in range(0x4E00, 0xA000) if code in pinyin_dict}
    return {character: {"reading": split_tone(reading)} for character, reading in first.items()}


def split_tone(reading: str) -> tuple[str, str]:
    """Syllable and tone: "hǎo" -> ("hao", "3"), "lǜ" -> ("lü", "4"), "ma" -> ("ma", "5")."""
    decomposed = unicodedata.normalize("NFD", reading)
    tones = [TONE_MARKS[char] for char in decomposed if char in TONE_MARKS]
    syllable = "".join(char for char in decomposed if char not in TONE_MARKS)
    return unicodedata.normalize("NFC", syllable), tones[0] if tones else NEUTRAL_TONE


def load_airports() -> Facts:
    """Airports by IATA code, "name" among the facts; latitude, longitude and elevation in bands of 5 degrees, 10
    degrees and 200 ft.
    """
    import airportsdata

    facts: Facts = {}
    for code, airport in airportsdata.load("IATA").items():
        values = {
            "name": " ".join(airport["name"].split()).removesuffix(" Airport"),
            "country": airport["country"],
            "time_zone": airport["tz"],
            "subdivision": airport["subd"],
            "latitude": str(int(airport["lat"] // 5) * 5),
            "longitude": str(int(airport["lon"] // 10) * 10),
            "elevation": str(int(min(airport["elevation"], 8000) // 200) * 200),
        }
        facts[code] = {relation: (f"{relation}:{value}",) for relation, value in values.items() if value}
        if not airport["icao"].startswith("_"):  # "_" before the IATA code: the airport has no ICAO code
            facts[code]["icao"] = tuple(f"icao:{letter}" for letter in airport["icao"])
    return facts


def digest_of(facts: Facts) -> str:
    """SHA-256 of all (subject, relation, object) triples, independent of their order."""
    lines = sorted(f"{s}\t{r}\t{' '.join(o)}\n" for s, objects in facts.items() for r, o in objects.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def chosen_relations(config: AtlasConfig) -> tuple[str, ...]:
    """The relations of the configuration, in its order, or all of the source."""
    accepted = RELATIONS[config.source]
    relations = accepted if config.relations is None else tuple(config.relations)
    for relation in relations:
        one_of("world.relations", relation, accepted)
    if not relations or len(set(relations)) < len(relations):
        raise ValueError(f"world.relations={list(relations)} is empty or repeats; accepted: {', '.join(accepted)}")
    return relations


def by_airport_name(facts: Facts) -> Facts:
    """The airports keyed by name instead of IATA code; of several with one name, the one with the first code."""
    named: Facts = {}
    for code in sorted(facts):
        named.setdefault(facts[code]["name"][0].removeprefix("name:"), facts[code])
    return named


def invented_names(config: AtlasConfig, known: list[str]) -> set[str]:
    """New names that recombine the bytes, letters or words of known ones. Where known ones are half of all such names,
    as all airports are, frequent letters are rarer in the others.
    """
    if config.source == "readings":
        high, low = {ord(name) >> 8 for name in known}, {ord(name) & 0xFF for name in known}
        return {chr(first << 8 | second) for first, second in product(high, low)}
    if config.spelling == "bpe":
        words = [name.partition(" ") for name in known]
        return {" ".join((first, rest)) for (first, _, _), (_, _, rest) in pairwise(words) if rest}
    return {"".join(letters) for letters in product(*map(set, zip(*known, strict=True)))}


def shuffle(names: list[str], generator: torch.Generator) -> list[str]:
    """The names in a random order."""
    return [names[index] for index in torch.randperm(len(names), generator=generator).tolist()]


def tabulate(values: list[Object | None], vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """The distinct objects as a token table (m, o), and the row of each value in it (n,), -1 for None."""
    objects = sorted({value for value in values if value is not None})
    row_of = {value: row for row, value in enumerate(objects)}
    column = torch.tensor([-1 if value is None else row_of[value] for value in values])
    return spell_objects([[vocabulary[token] for token in tokens] for tokens in objects]), column
