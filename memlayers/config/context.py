"""Settings of what stands in front of a document or question."""

from dataclasses import dataclass

from memlayers.checks import at_least, one_of


@dataclass
class ContextConfig:
    """Documents to find a fact in, instead of in the weights."""

    source: str = "none"  # given: one of the subject, in fresh words; retrieved: what BM25 finds among one of each
    documents: int = 1  # that are retrieved

    def validate(self, text: str, document: str) -> None:
        one_of("world.context.source", self.source, ("none", "given", "retrieved"))
        if self.source != "none" and (text != "prose" or document != "subject"):
            raise ValueError(
                f"world.context.source={self.source} has no effect; accepted: with world.text=prose and "
                "world.document=subject"
            )
        at_least("world.context.documents", self.documents, 1)
        if self.documents > 1 and self.source != "retrieved":
            raise ValueError(
                f"world.context.documents={self.documents} has no effect; accepted: with world.context.source=retrieved"
            )
