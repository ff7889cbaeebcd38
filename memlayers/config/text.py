"""Settings of the text of a world: how facts are told, and what stands beside them and in front."""

from dataclasses import dataclass, field
from pathlib import Path

from memlayers.checks import at_least, one_of, within


@dataclass
class ProseConfig:
    """How facts are told in sentences in training. Questions always name the subject in full."""

    num_templates: int | None = None  # training templates of a relation; null: all of the world's
    celebrities: float = 1.0  # share of subjects whose facts are told in all templates; others: each in one
    questions: float = 0.0  # share of subjects with questions in training, which are then half of their sentences
    pieces: int | None = None  # size of a byte-pair vocabulary of all text; null: a token a word
    pronoun: bool = False  # only the first sentence of a document names its subject

    def validate(self, text: str, document: str) -> None:
        for key, value in vars(self).items():
            if text != "prose" and value != getattr(ProseConfig, key):
                raise ValueError(f"world.prose.{key}={value} has no effect; accepted: with world.text=prose")
        if self.num_templates is not None:
            at_least("world.prose.num_templates", self.num_templates, 1)
        if self.pieces is not None:
            at_least("world.prose.pieces", self.pieces, 300)
        within("world.prose.celebrities", self.celebrities, 0.0, 1.0)
        within("world.prose.questions", self.questions, 0.0, 1.0)
        if self.pronoun and document == "fact":
            raise ValueError("world.prose.pronoun=true has no effect; accepted: with world.document=subject")


@dataclass
class CorpusConfig:
    """Running text besides the facts: rows of it are mixed at random into every batch."""

    share: float = 0.0  # share of running text among all tokens in training
    sources: list[str] = field(default_factory=lambda: ["code", "docs"])  # as in running_text.py, or folders of text
    length: int = 128  # tokens of a row

    def validate(self, pieces: int | None) -> None:
        within("world.corpus.share", self.share, 0.0, 0.99)
        at_least("world.corpus.length", self.length, 2)
        if self.share == 0 and self != CorpusConfig():
            raise ValueError("world.corpus has no effect; accepted: with world.corpus.share above 0")
        if self.share > 0 and pieces is None:
            raise ValueError(
                f"world.corpus.share={self.share} needs one vocabulary for all; accepted: with world.prose.pieces=2000"
            )
        names = {Path(source).name for source in self.sources}  # as in a record
        if self.share > 0 and (not self.sources or len(names) < len(self.sources)):
            raise ValueError(
                f"world.corpus.sources={self.sources} is empty or repeats; accepted: code, docs, kjv, PATH"
            )


@dataclass
class JunkConfig:
    """Documents about people nobody will ask about, in the place of those about subjects."""

    share: float = 0.0  # of the documents of training
    tag: bool = False  # a token in front of documents about subjects, and of questions, tells them from junk
    pairs: int = 0  # facts in such a document, each asked again in it, so that answers are copied; 0: none is asked

    def validate(self) -> None:
        within("world.junk.share", self.share, 0.0, 0.99)
        within("world.junk.pairs", self.pairs, 0, 100)
        if self.share == 0 and self.tag:
            raise ValueError("world.junk.tag=true has no effect; accepted: with world.junk.share above 0")
        if self.share == 0 and self.pairs > 0:
            raise ValueError(f"world.junk.pairs={self.pairs} has no effect; accepted: with world.junk.share above 0")


@dataclass
class ContextConfig:
    """Documents to find a fact in, instead of in the weights."""

    source: str = "none"  # given: one of the subject, in fresh words; retrieved: what BM25 finds among one of each
    documents: int = 1  # that are retrieved

    def validate(self, text: str, document: str) -> None:
        one_of("world.context.source", self.source, ("none", "given", "retrieved"))
        if self.source != "none" and text == "prose" and document != "subject":
            raise ValueError(
                f"world.context.source={self.source}: a document tells all facts of its subject; accepted: "
                "in prose with world.document=subject"
            )
        at_least("world.context.documents", self.documents, 1)
        if self.documents > 1 and self.source != "retrieved":
            raise ValueError(
                f"world.context.documents={self.documents} has no effect; accepted: with world.context.source=retrieved"
            )
