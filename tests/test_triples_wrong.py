"""The user's own facts: what is wrong is one line."""

import gzip

import pytest
from triples_files import FACTS, HEADER, build, wrong

from memlayers.config import TriplesConfig
from memlayers.facts import build_world

# --------------------------------------------------------------------------- what is wrong


WEIGHTED = "subject,relation,object,weight\na,r,x,1\n"
OBJECT = '{"subject": "a", "relation": "r", "object": "x"}\n'
MISTAKES = {
    "no column": ("facts.csv", "\nsubject,rel,object\n", "line 2: no columns 'relation'; columns found: 'subject', 'r"),
    "bars in csv": ("facts.csv", "subject|relation|object\n", "line 1: no columns 'subject'; columns found: 'subj"),
    "column twice": ("facts.csv", "subject,relation,object,object\n", "line 1: 2 columns 'object'; columns found: "),
    "key missing": ("facts.jsonl", OBJECT + '{"subject": "b", "object": "y"}', "line 2: no columns 'relation'; column"),
    "byte": ("facts.csv", (HEADER + "a,r,x\nb,r,").encode() + b"\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
    "half a character": ("facts.tsv", HEADER.encode("utf-16") + b"x", "line 2: byte 0x78 is not UTF-16"),
    "cut short": ("facts.jsonl", b'{"\xc3', "line 1: byte 0xc3 is not UTF-8"),
    "too few": ("facts.csv", HEADER + '"a\na",r,x\nb,r\n', "line 4: 2 fields; accepted: 3 as in the header"),
    "too many": ("facts.csv", HEADER + "a,r,x,1\n", "line 2: 4 fields; accepted: 3 as in the header"),
    "open quote": ("facts.csv", HEADER + 'a,r,x\nb,r,"y\nc,r,z\n', "line 3: malformed row: unexpected end of data"),
    "stray quote": ("facts.tsv", 'subject\trelation\tobject\n"Al" Y\tr\tx\n', "line 2: malformed row: "),
    "cut gzip": ("facts.csv.gz", gzip.compress(HEADER.encode())[:-9], "not a whole gzip file"),
    "no workbook": ("facts.xlsx", HEADER, "not a readable .xlsx file: "),
    "no parquet": ("facts.parquet", HEADER, "not a readable .parquet file: "),
    "capitals twice": ("facts.csv", "Subject,relation,object,subject\n", "line 1: 2 columns 'subject'; "),
    "list": ("facts.jsonl", OBJECT + '["a", "r", "x"]\n', "line 2: not a JSON object: '[\"a\", \"r\", \"x\"]'"),
    "malformed": ("facts.jsonl", OBJECT + "\n{'subject'}\n", "line 3: not a JSON object: \"{'subject'}\""),
    "deep": ("facts.jsonl", "[" * 100_000, "line 1: not a JSON object: '[["),
    "nested": ("facts.jsonl", OBJECT.replace('"x"', '["x"]'), "line 1: a value is neither text nor a number: "),
    "true": ("facts.jsonl", OBJECT.replace('"x"', "true"), "line 1: a value is neither text nor a number: "),
    "false weight": ("facts.jsonl", OBJECT.replace("}", ', "weight": false}'), "line 1: a value is neither text nor"),
    "surrogate": ("facts.jsonl", OBJECT.replace('"x"', '"\\ud800"'), "line 1: a value is neither text nor a number: "),
    "json nan": ("facts.jsonl", OBJECT.replace("}", ', "weight": NaN}'), "line 1: weight 'NaN' is not accepted"),
    "empty": ("facts.csv", "", "no facts"),
    "only a header": ("facts.csv", HEADER, "no facts"),
    "only blanks": ("facts.jsonl", "\n \n", "no facts"),
    "all dropped": ("facts.csv", HEADER + "a,,x\n", "no facts; 1 rows with an empty cell dropped, the first at line 2"),
    "huge weights": ("facts.csv", WEIGHTED + "b,r,y,1e308\nc,r,y,1e308\n", "the weights add up to infinity"),
    "reserved word": ("facts.csv", HEADER + "a,r,the <end>\nb,r,x\n", "'the <end>' has a word of our own; reserved: "),
    "relation's token": ("facts.csv", HEADER + "[r] a,r,x\nb,r,y\n", "'[r] a' has a word of our own; reserved: "),
}  # fmt: skip


@pytest.mark.parametrize("name, content, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_with_file_and_line(tmp_path, name, content, message):
    error = wrong(lambda: build(tmp_path, content, name))
    file, rest = error[: len(str(tmp_path / name))], error[len(str(tmp_path / name)) :]
    assert file == str(tmp_path / name) and rest.startswith((f", {message}", f": {message}"))


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e999", "heavy", "1;5"])
def test_bad_weights(tmp_path, weight):
    error = wrong(lambda: build(tmp_path, WEIGHTED + f"b,r,y,{weight}\n"))
    assert error == f"{tmp_path / 'facts.csv'}, line 3: weight {weight!r} is not accepted; accepted: a positive number"


def test_mistakes_in_the_configuration(tmp_path):
    unread = wrong(lambda: build_world(TriplesConfig(path="gone.csv")))
    assert unread == "world.path='gone.csv' cannot be read: No such file or directory; accepted: an existing file"
    unread = wrong(lambda: build_world(TriplesConfig(path="gone.xlsx")))
    assert unread == "world.path='gone.xlsx' cannot be read: No such file or directory; accepted: an existing file"
    unknown = wrong(lambda: build(tmp_path, FACTS, "facts.ods"))
    assert unknown.startswith("world.path='") and "facts.ods' is of unknown type; accepted: a file that" in unknown
    assert wrong(lambda: build(tmp_path, FACTS, encoding="klingon")).startswith("world.encoding=klingon is unknown; ")
    many = wrong(lambda: build(tmp_path, FACTS, num_subjects=3))
    assert many.startswith("world.num_subjects=3 is too large; accepted: 2 to 2, ")
    assert "fewer than two objects" in wrong(lambda: build(tmp_path, HEADER + "a,r,x\nb,r,x\n"))
    said = wrong(lambda: build(tmp_path, HEADER + "a,r,x\na\u200b,r,x\n"))
    assert "fewer than two objects" in said and "invisible characters" in said and "\n" not in said
    content = HEADER + "".join(f"s{i},r,{i}\n" for i in range(40)) + "t,rare,1\nu,rare,2\n"
    assert "relation 'rare' has fewer than two" in wrong(lambda: build(tmp_path, content, num_subjects=2))


def test_a_table_too_large_for_memory_is_refused(tmp_path):
    content = HEADER + "".join(f"s{i},relation {i},{i}\n" for i in range(20_000))
    assert "20000 x 20000 relations is too large" in wrong(lambda: build(tmp_path, content))
