"""Facts -> documents -> token ids. A document is about one subject and is one row, so rows never attend to each other.

terse    S Y D [country] AU                                                  one fact a document
         S Y D [country] AU [time_zone] Australia/Sydney                     all of a subject, relations in random order
prose    S Y D lies in AU . the clocks of S Y D follow Australia/Sydney .    a random training template each

Each fact stands at most once in a document and a document has one subject, so nothing can be copied, unless a context
(context.py) stands in front, or in rows made for copying (associative.py). But several facts of a document may explain
each other, as a country does a time zone, and then little is learnt from the subject, which is what will be asked.
"""

from functools import partial

import torch
from torch import Tensor

from memlayers.associative import associative_rows
from memlayers.checks import one_of
from memlayers.config.text import ContextConfig, CorpusConfig, ProseConfig
from memlayers.config.worlds import WorldConfig
from memlayers.context import Context
from memlayers.documents import Documents, Probe, mixed, squeezed, tagged, widened, without_answers
from memlayers.facts import build_world
from memlayers.facts.corpora import draw_windows, share_of_rows
from memlayers.facts.world import PAD, World, pad
from memlayers.frequency import frequency_of
from memlayers.phrasing import OBJECT, OF_TRAINING, SUBJECT, Telling, layouts_of, pronoun_of

TAG = "<subject>"  # in front of documents about subjects, where a world tells them from junk


def text_of(config: WorldConfig) -> "Text":
    """A world and its writing; raises ValueError with one line for a user's mistake."""
    world = build_world(config)
    rest = config.prose, config.corpus, config.seed, config.context
    return Text(world, config.text, config.document, config.sentences, *rest)


class Text:
    """The writing of a world: style `terse` or `prose`, a document for each `fact` or for all facts of a `subject`, or
    as many `sentences` of them. The vocabulary extends the world's by relations and words.
    """

    def __init__(
        self,
        world: World,
        style: str,
        document: str = "fact",
        sentences: int | None = None,
        prose: ProseConfig | None = None,
        corpus: CorpusConfig | None = None,
        seed: int = 0,
        context: ContextConfig | None = None,
    ):
        self.world, self.style, self.document, self.sentences = world, style, document, sentences
        ids = {token: index for index, token in enumerate(world.vocabulary)}
        prose = prose or ProseConfig()
        self.layouts = layouts_of(world, style, prose, ids)
        self.telling = Telling(self.layouts, len(world.facts), prose, seed)
        pronoun = pronoun_of(world, prose, ids)
        self.junk, self.other_rate = world.junk, 0.0  # junk documents; share of rows of another kind
        self.tag = ids.setdefault(TAG, len(ids)) if self.junk and self.junk.tag else PAD
        self.associative: partial[Documents] | None = None
        if self.junk and self.junk.pairs:
            self.associative = partial(associative_rows, self.junk, self.layouts["training"].codes, self.write)
            self.other_rate, self.junk = self.junk.share, None  # rows of their own, and no document is junk
        self.vocabulary = tuple(ids)

        self.width = max(len(pronoun), world.subjects.shape[1], *(table.shape[1] for table in world.objects))
        named = torch.cat([world.subjects, widened(world.unknown, world.subjects.shape[1])])
        self.subjects = torch.cat([widened(table, self.width) for table in (named, pad([pronoun]))])  # pronoun: at -1
        self.objects = torch.cat([widened(table, self.width) for table in world.objects])
        self.first_object = torch.tensor([0, *(len(table) for table in world.objects[:-1])]).cumsum(0)

        self.facts, self.cumulative, self.include, told = frequency_of(world, document, sentences)
        has_context = context is not None and context.source != "none"
        self.context = Context(context, self.stated, len(world.facts), seed) if context and has_context else None
        self.corpus = corpus or CorpusConfig()
        if self.corpus.share > 0:
            length = (self.sample(1024, torch.Generator().manual_seed(0)).tokens != PAD).sum().item() / 1024
            self.other_rate = share_of_rows(self.corpus, length)
        told *= (1 - self.other_rate) * (1 - self.junk.share if self.junk else 1.0)
        self.exposures_per_document = told  # (n, r) expected exposures of each fact in one row
        self.mean_exposures = float(self.exposures_per_document[world.is_told].mean())  # of a fact, in one row

    def sample(self, num_documents: int, generator: torch.Generator) -> Documents:
        """Rows to train on: documents about facts, and in the place of some running text, or associative recall."""
        if self.other_rate == 0:
            return self.told(num_documents, generator)
        is_other = torch.rand(num_documents, generator=generator) < self.other_rate
        facts, count = self.told(int((~is_other).sum()), generator), int(is_other.sum())
        if self.associative is not None:
            return mixed(facts, is_other, self.associative(count, generator))
        windows = draw_windows(self.world.corpora, count, self.corpus.length, generator)
        return mixed(facts, is_other, without_answers(windows))

    def told(self, num_documents: int, generator: torch.Generator) -> Documents:
        """Documents about facts, or subjects, drawn by frequency, with replacement; and junk in the place of some."""
        draw = torch.rand(num_documents, generator=generator, dtype=torch.float64) * self.cumulative[-1]
        drawn = torch.searchsorted(self.cumulative, draw, right=True).clamp(max=len(self.cumulative) - 1)
        if self.document == "fact":
            subject, relation = self.facts[drawn, 0], self.facts[drawn, 1:]
            include = torch.ones_like(relation, dtype=torch.bool)
        else:
            subject, count = drawn, len(self.world.relations)
            order = torch.rand(num_documents, count, generator=generator)
            shown = torch.rand(num_documents, count, generator=generator, dtype=torch.float64)
            if self.sentences is not None:
                order += self.include[subject] == 0  # facts that are there come first
            relation = order.argsort(dim=1)[:, : self.sentences]
            include = shown[:, : self.sentences] < self.include[subject[:, None], relation]
        template = self.telling.choose(subject, relation, generator)
        fact, name = self.world.facts[subject[:, None], relation], self.spelt(subject, "training", generator)
        tags = torch.full_like(subject, self.tag)
        if (junk := self.junk) is not None:
            is_junk = torch.rand(num_documents, generator=generator) < junk.share
            names, facts = junk.draw(num_documents, generator)
            name = torch.where(is_junk[:, None], widened(names, self.width), name)
            fact = torch.where(is_junk[:, None], facts.gather(1, relation), fact)
            tags = tags.masked_fill(is_junk, PAD)
        code = self.layouts["told"].codes[relation, template]
        return self._after(tags, self.write(name, relation, fact, include, code), subject, generator)

    def stated(self, subject: Tensor, generator: torch.Generator, known: Tensor | None = None) -> Documents:
        """A document of each subject (b,): all its facts, or those in `known` (n, r), stated in random order."""
        relation = torch.rand(len(subject), len(self.world.relations), generator=generator).argsort(dim=1)
        code = self.layouts["statements"].codes[relation, self.telling.state(subject, relation, generator)]
        fact = (self.world.facts if known is None else known)[subject[:, None], relation]
        return self.write(self.spelt(subject, "training", generator), relation, fact, fact >= 0, code)

    def probe(
        self,
        facts: Tensor,
        phrasing: str,
        generator: torch.Generator,
        answers: Tensor | None = None,
        pick: Tensor | None = None,
        names: Tensor | None = None,
    ) -> Probe:
        """Ask for `facts` (b, 2: subject, relation) in a phrasing: training, held_out, questions, held_out_questions,
        or a kind of view. A relation without a template in that phrasing is left out. Templates with the object first
        are never asked. `answers` (n, r) replaces the world's facts, as in the shuffled control, and `names` (b, s) the
        subjects'; numbers `pick` (b,) in [0, 1) say which templates. Raises ValueError for another phrasing.
        """
        one_of("phrasing", phrasing, tuple(kind for kind in self.layouts if kind not in OF_TRAINING))
        layouts = self.layouts[phrasing]
        has_template = layouts.count[facts[:, 1]] > 0
        facts = facts[has_template]
        subject, relation = facts[:, 0], facts[:, 1:]
        drawn = torch.rand(relation.shape, generator=generator) if pick is None else pick[has_template, None]
        code = layouts.codes[relation, layouts.choose(relation, drawn)]
        known = self.world.facts if answers is None else answers
        fact = known[subject.clamp(max=len(known) - 1)[:, None], relation]
        name = self.spelt(subject, phrasing, generator) if names is None else names[has_template]
        documents = self.write(name, relation, fact, torch.ones_like(relation, dtype=torch.bool), code)
        documents = self._after(torch.full_like(subject, self.tag), documents, subject, generator)
        return Probe(documents, subject, relation[:, 0], name)

    def spelt(self, subject: Tensor, phrasing: str, generator: torch.Generator) -> Tensor:
        """Tokens (b, width) of subjects (b,), in one of the views of a phrasing where the world has any."""
        if (views := self.world.views.get(phrasing)) is None:
            return self.subjects[subject]
        return widened(views[subject, torch.randint(views.shape[1], subject.shape, generator=generator)], self.width)

    def questions(self) -> Tensor | None:
        """What stands before the object of each fact, as padded tokens (f, q), in the order of `facts`; None where
        that is not one text a fact: in prose, in documents of several facts, in several views, after a context."""
        if self.style != "terse" or self.document != "fact" or "training" in self.world.views or self.context:
            return None
        documents = self.probe(self.facts, "training", torch.Generator().manual_seed(0)).documents
        tokens = documents.tokens.masked_fill(documents.answers.cumsum(dim=1) > 0, PAD)
        return tokens[:, : int((tokens != PAD).sum(dim=1).max())]

    def write(self, name: Tensor, relation: Tensor, fact: Tensor, include: Tensor, code: Tensor) -> Documents:
        """Sentences (b, r) in templates `code` (b, r, l) about `name` (b, s), in order, those of `include` only.

        Every part of every sentence gets a block of `width` cells; then the empty cells are squeezed out.
        """
        is_later = include.cumsum(dim=1) > include.long()  # than the first sentence
        is_told = (code == SUBJECT) & is_later[..., None] & (self.style == "terse")
        code = code.masked_fill(is_told | ~include[..., None], PAD)
        objects = self.objects[self.first_object[relation] + fact.clamp(min=0)]
        cells = code.new_zeros(*code.shape, self.width)
        cells[..., 0] = code.clamp(min=PAD)
        called = torch.where(
            (is_later & self.telling.has_pronoun)[..., None], self.subjects[-1], widened(name, self.width)[:, None]
        )
        cells = torch.where((code == SUBJECT)[..., None], called[:, :, None], cells)
        cells = torch.where((code == OBJECT)[..., None], objects[:, :, None], cells)
        seen = ((code == SUBJECT).cumsum(dim=-1) > 0) | (self.style == "terse")
        answer = ((code == OBJECT) & seen)[..., None].expand(cells.shape)

        cells, answer = cells.flatten(1), answer.flatten(1)
        return squeezed(Documents(cells, answer, torch.zeros_like(answer)))

    def _after(self, tags: Tensor, documents: Documents, subject: Tensor, generator: torch.Generator) -> Documents:
        """Documents with what the world puts in front of them."""
        if self.context is not None:
            documents = self.context.put_before(documents, subject, generator)
        return documents if self.tag == PAD else tagged(documents, tags)
