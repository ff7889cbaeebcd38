"""Documents in front of what is told or asked: a fact is found in the context instead of in the weights.

given        a document of the subject itself, all its facts in fresh sentences or order: the open book, and so a bound
retrieved    those that BM25 finds in a store with one document of each subject

    the hobby of Ada Ek Fu is chess . Ada Ek Fu was born in Rome .   where was Ada Ek Fu born ? Rome .
    |------------------ context: given, not learnt --------------|   |----- learnt, or asked -----|

What stands before the first answer is what is looked for. A subject that the world knows nothing of has no document:
`given` puts another subject's in front, as a retriever would.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from memlayers.config.text import ContextConfig
from memlayers.documents import Documents, after_context
from memlayers.facts.world import PAD

Write = Callable[[Tensor, torch.Generator], Documents]  # subjects (b,) -> a document of each


class Context:
    """The documents in front of others, by the settings of a world of n subjects, whose documents `write` writes.

    Raises ValueError, in one line, where bm25s is missing or more documents are asked for than there are.
    """

    def __init__(self, config: ContextConfig, write: Write, num_subjects: int, seed: int):
        self.config, self.write, self.num_subjects = config, write, num_subjects
        if config.documents > num_subjects:
            raise ValueError(
                f"world.context.documents={config.documents}: there is one of each subject; "
                f"accepted: 1 to {num_subjects}"
            )
        everyone = torch.arange(num_subjects)
        self.store = Store(write(everyone, torch.Generator().manual_seed(seed)).tokens) if self.is_retrieved else None

    @property
    def is_retrieved(self) -> bool:
        return self.config.source == "retrieved"

    def subjects_for(self, documents: Documents, subject: Tensor) -> Tensor:
        """Whose documents (b, k) stand, or will stand, in front of documents about `subject` (b,), the best first."""
        if self.store is None:
            return (subject % self.num_subjects)[:, None]  # unknown subjects come after the known ones
        tokens, answers, context = documents
        asked = (tokens != PAD) & ~context & (answers.cumsum(dim=1) == 0)
        found = torch.zeros(len(tokens), self.config.documents, dtype=torch.long)
        for row, (question, mask) in enumerate(zip(tokens, asked, strict=True)):
            found[row] = self.store.find(question[mask].tolist(), self.config.documents)
        return found

    def put_before(self, documents: Documents, subject: Tensor, generator: torch.Generator) -> Documents:
        """Documents about `subject` (b,), after their context."""
        found = self.subjects_for(documents, subject)
        front = self.write(found[:, 0], generator).tokens if self.store is None else self.store.tokens[found].flatten(1)
        return after_context(front, documents)


class Store:
    """Documents (n, s) that BM25 looks up (Robertson et al. 1995), with Lucene's weights, k1 = 1.5 and b = 0.75."""

    def __init__(self, tokens: Tensor):
        try:
            from bm25s import BM25
        except ModuleNotFoundError as error:
            install = 'accepted: pip install -e ".[grounding]" -c constraints.txt'
            raise ValueError(f"world.context.source=retrieved needs the package bm25s; {install}") from error
        self.tokens = tokens
        self.index = BM25(method="lucene", k1=1.5, b=0.75, backend="numpy")
        self.index.index([words(row) for row in tokens.tolist()], show_progress=False)

    def find(self, question: list[int], k: int) -> Tensor:
        """The k documents (k,) with the highest scores for the tokens of a question; of equal ones the first."""
        scores = torch.from_numpy(self.index.get_scores(words(question)))
        return scores.argsort(descending=True, stable=True)[:k]

    @property
    def bytes(self) -> int:
        """Of the documents, in two bytes a token, and of the index, as it is held in memory."""
        index = sum(self.index.scores[part].nbytes for part in ("data", "indices", "indptr"))
        return 2 * int((self.tokens != PAD).sum()) + index


def words(tokens: list[int]) -> list[str]:
    """Tokens as BM25 counts them."""
    return [str(token) for token in tokens if token != PAD]
