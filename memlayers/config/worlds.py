"""Settings of worlds."""

from dataclasses import dataclass, field

from memlayers.checks import at_least, one_of, within
from memlayers.config.text import ContextConfig, CorpusConfig, JunkConfig, ProseConfig

SPELLINGS = ("letters", "pairs", "bytes", "bpe")
DOCUMENTS = ("fact", "subject")
VIEWS = ("shifted", "noisy", "turned")


@dataclass
class WorldConfig:
    """Base of all worlds: which facts, how many subjects, how their text is written."""

    name: str = "?"
    seed: int = 0  # of the facts, which are the same for all arms and seeds of runs
    text: str = "terse"  # terse: subject, relation token, object; prose: sentences from templates
    document: str = "fact"  # fact: one fact a document; subject: all of a subject, which may explain each other
    sentences: int | None = None  # sentences of a document with document=subject; null: one for each fact
    prose: ProseConfig = field(default_factory=ProseConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    context: ContextConfig = field(default_factory=ContextConfig)

    def validate(self) -> None:
        one_of("world.text", self.text, ("terse", "prose"))
        one_of("world.document", self.document, DOCUMENTS)
        self.prose.validate(self.text, self.document)
        self.corpus.validate(self.prose.pieces)
        self.context.validate(self.text, self.document)
        if self.sentences is not None:
            at_least("world.sentences", self.sentences, 1)
            if self.document == "fact":
                raise ValueError(
                    f"world.sentences={self.sentences} has no effect; accepted: with world.document=subject"
                )


@dataclass
class AtlasConfig(WorldConfig):
    """Real facts that come with pinned packages."""

    source: str = "readings"  # readings: Han character -> syllable and tone; airports: IATA code -> seven relations
    num_subjects: int | None = None  # a seeded subset; null takes all
    spelling: str = "bytes"
    num_bpe_tokens: int = 1000  # vocabulary of spelling=bpe
    relations: list[str] | None = None  # null takes all

    def validate(self) -> None:
        super().validate()
        one_of("world.source", self.source, ("readings", "airports"))
        one_of("world.spelling", self.spelling, SPELLINGS)
        if self.source == "readings":
            one_of("world.spelling", self.spelling, ("bytes",))
        at_least("world.num_bpe_tokens", self.num_bpe_tokens, 300)
        if self.spelling != "bpe" and self.num_bpe_tokens != AtlasConfig.num_bpe_tokens:
            raise ValueError(
                f"world.num_bpe_tokens={self.num_bpe_tokens} has no effect; accepted: with world.spelling=bpe"
            )
        if self.num_subjects is not None:
            at_least("world.num_subjects", self.num_subjects, 2)


@dataclass
class BiographiesConfig(WorldConfig):
    """Synthetic people after bioS (Allen-Zhu & Li, 2404.05405): names of several parts, independent attributes."""

    num_people: int = 10_000
    name_parts: list[int] = field(default_factory=lambda: [100, 100, 100])
    cardinalities: list[int] = field(default_factory=lambda: [256] * 6)
    zipf: float = 0.0  # frequency of the person of rank i is (i + 1) ** -zipf; 0 is uniform
    two_hop: float = 0.0  # share of people of whom facts of their friend are told; others are asked; 0: no friends
    junk: JunkConfig = field(default_factory=JunkConfig)

    def validate(self) -> None:
        super().validate()
        within("world.num_people", self.num_people, 2, 1_000_000)
        if not self.name_parts or min(self.name_parts) < 1:
            raise ValueError(f"world.name_parts={self.name_parts} is empty or not positive; accepted: sizes above 0")
        check_cardinalities(self.cardinalities)
        within("world.zipf", self.zipf, 0.0, 4.0)
        self.junk.validate()
        within("world.two_hop", self.two_hop, 0.0, 0.99)
        if self.two_hop > 0 and (self.text != "terse" or self.junk.share > 0):
            raise ValueError(
                f"world.two_hop={self.two_hop}: friends have no sentences, and junk no friends; accepted: with "
                "world.text=terse and world.junk.share=0"
            )
        if self.junk.pairs > 0 and self.text != "terse":
            raise ValueError(f"world.junk.pairs={self.junk.pairs}: pairs have no sentences; accepted: world.text=terse")
        if self.junk.share > 0 and self.context.source != "none":
            raise ValueError(
                f"world.context.source={self.context.source} with world.junk.share={self.junk.share}: junk has no "
                "document to put in front; accepted: none"
            )
        if self.junk.share > 0 and self.prose.pieces is not None:
            raise ValueError(
                f"world.prose.pieces={self.prose.pieces} with world.junk.share={self.junk.share}: names of junk are "
                "not cut into pieces; accepted: null"
            )
        product = 1
        for size in self.name_parts:
            product *= size
        if self.num_people > product:
            raise ValueError(
                f"world.num_people={self.num_people} is more than world.name_parts={self.name_parts} can name; "
                f"accepted: 2 to {product}"
            )


@dataclass
class PicturesConfig(WorldConfig):
    """Pictures of handwritten digits with independent attributes, told in tokens of patches."""

    num_pictures: int = 300  # of 1,797; all others are unknown subjects
    cardinalities: list[int] = field(default_factory=lambda: [256] * 6)
    views: int = 16  # views of a picture, one of which is shown at a time; 1: only the picture itself
    held_out: str = "noisy"  # the kind of view that training never shows

    def validate(self) -> None:
        super().validate()
        if self.text != "terse":
            raise ValueError(f"world.text={self.text}: pictures have no sentences; accepted: terse")
        within("world.num_pictures", self.num_pictures, 2, 1796)
        check_cardinalities(self.cardinalities)
        within("world.views", self.views, 1, 256)
        one_of("world.held_out", self.held_out, VIEWS)


def check_cardinalities(cardinalities: list[int]) -> None:
    """Raises ValueError unless every attribute has from 2 to 65,536 values."""
    if not cardinalities:
        raise ValueError("world.cardinalities=[] is empty; accepted: one size of 2 or more for each attribute")
    for size in cardinalities:
        within("world.cardinalities", size, 2, 65_536)


@dataclass
class TriplesConfig(WorldConfig):
    """The user's facts, from a file of triples."""

    path: str = "???"
    encoding: str = "utf-8"  # of text without a byte order mark: any that Python knows, such as latin-1
    templates: str | None = None  # JSON file: {"relation": ["{subject} was born in {object}", ...]}
    spelling: str = "words"  # words or letters of the subject
    num_subjects: int | None = None

    def validate(self) -> None:
        super().validate()
        one_of("world.spelling", self.spelling, ("words", "letters"))
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            known = "utf-8, latin-1, cp1252, gb18030 and others that Python knows"
            raise ValueError(f"world.encoding={self.encoding} is unknown; accepted: {known}") from None
        if self.num_subjects is not None:
            at_least("world.num_subjects", self.num_subjects, 2)
