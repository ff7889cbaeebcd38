"""Tables of a page: texts, and the numbers by which cells are sorted."""

import re
from typing import Any, NamedTuple

import pandas

NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(e[+-]?\d+)?")
NO_NUMBER = ("-", "reference")  # cells without a number in columns of numbers


class Cell(NamedTuple):
    """A cell such as 0.812 [0.800, 0.824], n = 3: its main text, the rest in small letters, and the number of the
    first.
    """

    text: str
    small: str
    number: float | None


class Table(NamedTuple):
    caption: str
    columns: list[tuple[str, bool]]  # name, and whether its cells are numbers
    rows: list[list[Cell]]


def table_of(caption: str, texts: pandas.DataFrame) -> Table:
    rows = [[cell(value) for value in row] for row in texts.itertuples(index=False)]
    columns = zip(*rows, strict=True)
    numeric = [all(cell_.number is not None or cell_.text in NO_NUMBER for cell_ in column) for column in columns]
    names = [str(name) for name in texts.columns]
    return Table(caption, list(zip(names, numeric or [False] * len(names), strict=True)), rows)


def cell(value: Any) -> Cell:
    text = str(value)
    place = min((place for place in (text.find(" ["), text.find(", n = ")) if place > 0), default=len(text))
    match = NUMBER.match(text[:place])
    number = float(match[0].replace(",", "")) if match and (match.end() == place or text[match.end()] in " x") else None
    return Cell(text[:place], text[place:].lstrip(", "), number)
