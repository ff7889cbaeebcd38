"""The user's own facts, in every kind of file that people have: the same world, and what was assumed is told."""

import gzip

import pandas
import pytest
from triples_files import FACTS, HEADER, build, facts, said, wrong

PLAIN = FACTS + "Zoë,born in,Köln\n"


def semicolons(text: str) -> str:
    return text.replace(",", ";")


KINDS = {  # file, content, what is told about it
    "semicolons": ("f.csv", semicolons(PLAIN), "columns are parted by semicolons, as the header is"),
    "tabs": ("f.csv", PLAIN.replace(",", "\t"), "columns are parted by tabs, as the header is"),
    "commas in tsv": ("f.tsv", PLAIN, "columns are parted by commas, as the header is"),
    "text": ("f.txt", PLAIN.replace(",", "\t"), None),
    "quoted header": ("f.csv", semicolons(PLAIN).replace("subject;relation", '"subject";"relation"'), "semicolons"),
    "sep=": ("f.csv", "sep=;\n" + semicolons(PLAIN), "columns are parted by ';', as the line before the header says"),
    "SEP=": ("f.csv", '\ufeff"SEP=|"\r\n' + PLAIN.replace(",", "|"), "columns are parted by '|', as the line before"),
    "capitals": ("f.csv", PLAIN.replace("subject", "SUBJECT", 1), "columns 'SUBJECT' taken for 'subject'"),
    "returns": ("f.csv", PLAIN.replace("\n", "\r"), None),
    "utf-16": ("f.csv", PLAIN.encode("utf-16"), "read as UTF-16, by its byte order mark"),
    "big end": ("f.txt", "\ufeff".encode("utf-16-be") + PLAIN.replace(",", "\t").encode("utf-16-be"), "UTF-16"),
    "utf-32": ("f.csv", PLAIN.encode("utf-32"), "read as UTF-32, by its byte order mark"),
    "gzip": ("f.csv.gz", gzip.compress(PLAIN.encode()), None),
    "gzip in capitals": ("f.CSV.GZ", gzip.compress(PLAIN.encode()), None),
    "gzip unsaid": ("f.csv", gzip.compress(PLAIN.encode()), None),
    "invisible": ("f.csv", PLAIN.replace("Ada", "A\u200bd\x00a\u202e", 1), "1 rows had invisible characters"),
}


@pytest.mark.parametrize("name, content, told", KINDS.values(), ids=KINDS)
def test_every_kind_of_text_gives_the_same_facts(tmp_path, name, content, told):
    plain, world = build(tmp_path, PLAIN), build(tmp_path, content, name)
    assert facts(world) == facts(plain) and world.vocabulary == plain.vocabulary
    assert len(world.notes) == len(plain.notes) + (told is not None) and (told is None or said(world, told))


def test_line_numbers_count_what_stands_before_the_header(tmp_path):
    error = wrong(lambda: build(tmp_path, "\n\nsep=;\nsubject;relation;object\na;r;x\nb;r\n"))
    assert error.endswith("facts.csv, line 6: 2 fields; accepted: 3 as in the header")


def test_other_encodings_are_a_setting(tmp_path):
    content = PLAIN.encode("latin-1")
    assert "world.encoding=latin-1 reads another encoding" in wrong(lambda: build(tmp_path, content))
    assert facts(build(tmp_path, content, encoding="latin-1")) == facts(build(tmp_path, PLAIN))
    both = build(tmp_path, PLAIN.encode("utf-16"), encoding="latin-1")
    assert facts(both) == facts(build(tmp_path, PLAIN)) and said(both, "UTF-16")


@pytest.mark.parametrize("extension", ["parquet", "xlsx"])
def test_tables_give_what_a_text_file_gives(tmp_path, extension):
    rows = {
        "Object": ["London", 1912, None, "x y", 2.5],
        "subject": ["Ada", "Alan", "Alan", "Bo", "Cy"],
        "relation": ["r"] * 5,
        "weight": [2, 1, 1, 3, None],
        "source": ["web"] * 5,
    }
    frame, path = pandas.DataFrame(rows).astype({"weight": "Int64"}), tmp_path / f"t.{extension}"
    if extension == "parquet":
        frame = frame.astype({"Object": "string"})
        frame.to_parquet(path)
    else:
        with pandas.ExcelWriter(path) as book:
            frame.to_excel(book, index=False)
            frame.to_excel(book, sheet_name="more")
    world = build(tmp_path, path.read_bytes(), path.name)
    text = build(tmp_path, frame.to_csv(index=False))
    assert facts(world) == facts(text) and facts(world)["Alan", "r"] == ("1912", 1.0)
    assert facts(world)["Cy", "r"] == ("2.5", 1.0)
    sheets = [note for note in world.notes if note == "sheet 'Sheet1' is read, of 2"]
    assert len(sheets) == (extension == "xlsx")
    assert [note for note in world.notes if note not in sheets] == list(text.notes)


def test_dates_of_a_workbook_are_text_and_lists_of_parquet_are_refused(tmp_path):
    path = tmp_path / "t.xlsx"
    day = pandas.to_datetime(["1912-06-23", "1815-12-10"])
    pandas.DataFrame({"subject": ["Alan", "Ada"], "relation": "born on", "object": day}).to_excel(path, index=False)
    assert facts(build(tmp_path, path.read_bytes(), path.name))["Ada", "born on"] == ("1815-12-10", 1.0)
    path = tmp_path / "t.parquet"
    pandas.DataFrame({"subject": ["a", "b"], "relation": "r", "object": [["x"], ["y"]]}).to_parquet(path)
    assert ", row 2: a value is neither text nor a number: " in wrong(
        lambda: build(tmp_path, path.read_bytes(), path.name)
    )


def test_an_unknown_header_is_shown_as_it_is(tmp_path):
    error = wrong(lambda: build(tmp_path, HEADER.replace("subject", "Person")))
    assert "line 1: no columns 'subject'; columns found: 'Person', 'relation', 'object'; accepted: " in error
