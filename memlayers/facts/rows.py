"""Reads rows from the user's files of facts. Assumptions are noted; a mistake raises ValueError with one line.

    .csv .tsv .txt    columns subject, relation, object and perhaps weight in any order, parted by commas, tabs or
                      semicolons; quotes as in RFC 4180
    .jsonl            {"subject": "Ada Lovelace", "relation": "born in", "object": "London", "weight": 2}
    .parquet .xlsx    the same columns; of a workbook the first sheet

Text is in world.encoding unless the file begins with a byte order mark. Text files may end in .gz, too.
"""

import codecs
import csv
import datetime
import gzip
import io
import json
import numbers
import re
import zlib
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

COLUMNS = ("subject", "relation", "object")
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
USUAL = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
STORED = (".parquet", ".xlsx")
MARKS = {  # UTF-32's before UTF-16's, which is a prefix of it
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
Row = tuple[int, tuple[str, ...], str | None]  # line, cells in the order of COLUMNS, weight


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names as text, at most `most` of them: 'a', 'b' and 7 more."""
    names = list(names)
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_rows(path: str, encoding: str, notes: list[str], ignored: set[str]) -> Iterator[Row]:
    """Rows of a file. Adds assumptions to `notes`, and the names of other columns to `ignored`."""
    kinds = [suffix.lower() for suffix in Path(path).suffixes]
    kind = kinds[-2] if kinds[-1:] == [".gz"] and len(kinds) > 1 else "".join(kinds[-1:])
    if kind in STORED and kinds[-1] != ".gz":
        return stored_rows(path, kind, notes, ignored)
    if kind not in (*USUAL, ".jsonl"):
        accepted = "a file that ends in .csv, .tsv, .txt or .jsonl, also with .gz, or in .parquet or .xlsx"
        raise ValueError(f"world.path={path!r} is of unknown type; accepted: {accepted}")
    lines = io.StringIO(read_text("world.path", path, encoding, notes), newline=None)  # any line end becomes \n
    if kind == ".jsonl":
        return json_rows(path, lines, ignored)
    return separated_rows(path, list(lines), USUAL[kind], notes, ignored)


def read_text(key: str, path: str, encoding: str, notes: list[str]) -> str:
    """The text of a file, perhaps gzipped; `key` is the setting that names it, for errors."""
    try:
        data = gzip.decompress(raw) if (raw := Path(path).read_bytes())[:2] == b"\x1f\x8b" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ValueError(f"{path}: not a whole gzip file; accepted: one that gunzip reads") from None
    except (OSError, ValueError) as error:  # ValueError for a NUL in a path
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{key}={path!r} cannot be read: {why}; accepted: an existing file") from None
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    if marked and marked != "utf-8-sig":
        notes.append(f"read as {marked.upper()}, by its byte order mark")
    try:
        return data.decode(marked or encoding)
    except UnicodeDecodeError as error:
        line, byte = 1 + error.object.count(b"\n", 0, error.start), error.object[error.start]
        name = (marked or encoding).upper().removesuffix("-SIG")
        accepted = f"{name} text; world.encoding=latin-1 reads another encoding"
        raise ValueError(f"{path}, line {line}: byte 0x{byte:02x} is not {name}; accepted: {accepted}") from None


def separated_rows(path: str, lines: list[str], separator: str, notes: list[str], ignored: set[str]) -> Iterator[Row]:
    """Rows of separated columns; blank lines are skipped."""
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    declared = re.match(r'"?sep=(.)', lines[first], re.IGNORECASE) if lines else None  # a line of spreadsheets
    if declared:
        separator, first = declared[1], first + 1
        notes.append(f"columns are parted by {separator!r}, as the line before the header says")
    elif lines:
        names = re.sub(r'[\s"]*([,;\t])[\s"]*', r"\1", lines[first].strip(' "\n')).casefold()
        fitting = [mark for mark in (separator, *SEPARATORS) if set(COLUMNS) <= set(names.split(mark))]
        if fitting and fitting[0] != separator:
            separator = fitting[0]
            notes.append(f"columns are parted by {SEPARATORS[separator]}, as the header is")
    reader = csv.reader(lines[first:], delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}, line {(line := first + reader.line_num + 1)}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{where}: malformed row: {str(error).partition(' - ')[0]}") from None
        if row is None:
            return
        if len(row) < 2 and not "".join(row).strip():
            continue
        if not header:
            header = columns_of(row, where, notes, ignored)
            cells_of = itemgetter(*map(header.index, COLUMNS))
            weight_at = header.index("weight") if "weight" in header else None
        elif len(row) != len(header):
            raise ValueError(f"{where}: {len(row)} fields; accepted: {len(header)} as in the header")
        else:
            yield line, cells_of(row), None if weight_at is None else row[weight_at]


def columns_of(row: Iterable[Any], where: str, notes: list[str], ignored: set[str]) -> list[str]:
    """The column names of a header, checked; those of ours in lower case, however they are written."""
    given = [str(name).strip() for name in row]
    header = [name.casefold() if name.casefold() in (*COLUMNS, "weight") else name for name in given]
    check_columns(header, where)
    if other := [name for name in given if name not in header]:
        notes.append(f"columns {listed(other)} taken for {listed(name.casefold() for name in other)}")
    ignored.update(set(header).difference(COLUMNS, ["weight"]))
    return header


def check_columns(columns: list[str], where: str) -> None:
    """Raises ValueError unless each of COLUMNS occurs once, and weight at most once."""
    for name in (*COLUMNS, "weight"):
        if (times := columns.count(name)) > 1 or (not times and name in COLUMNS):
            problem = f"{times or 'no'} columns {name!r}; columns found: {listed(columns, most=20)}"
            raise ValueError(
                f"{where}: {problem}; accepted: subject, relation and object once each, and perhaps weight"
            )


def json_rows(path: str, lines: Iterable[str], ignored: set[str]) -> Iterator[Row]:
    """Rows of JSON lines. Numbers keep their text, null is an empty cell."""
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
    for line, text in enumerate(lines, start=1):
        if text.isspace():
            continue
        where = f"{path}, line {line}"
        try:
            record = decoder.decode(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise ValueError(f"{where}: not a JSON object: {text.strip()!r:.60}")
        check_columns(list(record), where)
        ignored.update(record.keys() - {*COLUMNS, "weight"})
        cells = tuple("" if record[name] is None else record[name] for name in COLUMNS)
        weight = record.get("weight")
        try:
            "".join((*cells, "" if weight is None else weight)).encode()
        except (TypeError, UnicodeEncodeError):  # a list or true; half of a surrogate pair
            raise ValueError(f"{where}: a value is neither text nor a number: {text.strip()!r:.60}") from None
        yield line, cells, weight


def stored_rows(path: str, kind: str, notes: list[str], ignored: set[str]) -> Iterator[Row]:
    """Rows of a Parquet or Excel file, by pandas. Numbers become text, a missing value is an empty cell."""
    import pandas

    try:
        if kind == ".parquet":
            frame = pandas.read_parquet(path, dtype_backend="pyarrow")  # keeps integers in columns with missing values
        else:
            with pandas.ExcelFile(path) as book:
                frame = pandas.read_excel(book, dtype=object, na_filter=False)
                if (sheets := len(book.sheet_names)) > 1:
                    notes.append(f"sheet {book.sheet_names[0]!r} is read, of {sheets}")
    except FileNotFoundError as error:
        raise ValueError(f"world.path={path!r} cannot be read: {error.strerror}; accepted: an existing file") from None
    except Exception as error:  # pandas, pyarrow, openpyxl and zipfile raise many kinds
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: not a readable {kind} file: {why:.120}") from None
    header = columns_of(frame.columns, path, notes, ignored)
    ours = [*COLUMNS, *[name for name in header if name == "weight"]]
    table = frame.set_axis(header, axis=1)[ours].astype(object)
    for line, row in enumerate(table.where(table.notna(), "").itertuples(index=False, name=None), start=2):
        if strange := [cell for cell in row if not isinstance(cell, str | numbers.Number | datetime.date)]:
            raise ValueError(f"{path}, row {line}: a value is neither text nor a number: {strange[0]!r:.60}")
        cells = tuple(str(cell).removesuffix(" 00:00:00") for cell in row)  # of a date
        yield line, cells[:3], cells[3] if len(ours) > 3 else None
