"""Records: whole or not at all, strict JSON, found again under their name, of this schema only."""

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stubs import tiny

from memlayers.config.digest import digest
from memlayers.training import run as run_module
from memlayers.training.record import SCHEMA, finished, read_record, record_path, with_checksum, write_json

OK = {"schema": SCHEMA, "status": "ok"}


def one_line(caught: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# --------------------------------------------------------------------------- writing

numbers = st.floats(allow_nan=False, allow_infinity=False)
contents = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(content=st.dictionaries(st.text(), contents, max_size=4))
def test_what_is_written_is_read_back_digit_for_digit(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("records") / "new" / "folder" / "record.json"
    record = with_checksum(content | OK)
    write_json(path, record)
    assert read_record(path) == record
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 and path.read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["new", "over an old one"])
def test_a_number_that_is_none_is_refused_and_leaves_everything_as_it_was(tmp_path, value, where):
    path = tmp_path / "record.json"
    if where != "new":
        write_json(path, OK)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError) as caught:
        write_json(path, OK | {"recall": {"exact": [0.5, value]}})
    one_line(caught)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
@pytest.mark.parametrize("when", ["write", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, error, when):
    path = tmp_path / "record.json"
    write_json(path, with_checksum(OK | {"number": 1}))

    def crash(*arguments):
        raise error

    if when == "replace":
        monkeypatch.setattr(os, "replace", crash)
    else:
        monkeypatch.setattr(
            Path, "write_text", lambda path, text, encoding: path.write_bytes(text[:9].encode()) and crash()
        )
    with pytest.raises(ValueError if isinstance(error, OSError) else type(error)) as caught:
        write_json(path, OK | {"number": 2})
    if isinstance(error, OSError):
        assert one_line(caught) == (
            f"results={tmp_path}: cannot be written (No space left on device); accepted: a writable folder"
        )
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
    assert read_record(path) == with_checksum(OK | {"number": 1})


def test_a_reader_sees_the_old_record_or_the_new_one_and_nothing_between(tmp_path):
    path = tmp_path / "record.json"
    whole = [with_checksum(OK | {"letters": letter * 300_000}) for letter in "ab"]
    write_json(path, whole[0])
    over = threading.Event()

    def keep_writing() -> None:
        for index in range(60):
            write_json(path, whole[index % 2])
        over.set()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        seen = 0
        while not over.is_set() or not seen:
            assert read_record(path) in whole
            seen += 1
    finally:
        writer.join()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, depth):
    """A file stands where the folder should be: nobody, root included, writes into that."""
    (tmp_path / "file").write_text("mine")
    folder = (tmp_path / "file").joinpath(*["x"] * depth)
    with pytest.raises(ValueError) as caught:
        write_json(folder / "record.json", OK)
    message = one_line(caught)
    assert message.startswith(f"results={folder}: cannot be written (")
    assert message.endswith("; accepted: a writable folder")
    assert (tmp_path / "file").read_text() == "mine"


# --------------------------------------------------------------------------- names


def test_the_path_says_study_world_arm_seed_and_digest(tmp_path):
    config = tiny(tmp_path, study="my_study", arm="dense_2x", seed=12)
    assert record_path(config) == tmp_path / "my_study" / "bio" / f"dense_2x-s12-{digest(config)}.json"
    other = tiny(tmp_path, study="my_study", arm="dense_2x", seed=13)
    assert record_path(other) == tmp_path / "my_study" / "bio" / f"dense_2x-s13-{digest(config)}.json"
    longer = tiny(tmp_path, study="my_study", arm="dense_2x", seed=12, threads=2)
    assert record_path(longer).name != record_path(config).name


# --------------------------------------------------------------------------- reading


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path / "none.json") is None and finished(tiny(tmp_path)) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b'"status"', b"null", b"\xff\xfe\x00", b'{"a": 1}'])
def test_a_file_that_is_no_record_is_one_line(tmp_path, content):
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_record(path)
    message = one_line(caught)
    assert message.startswith(f"{path}: not a record (") and message.endswith("); delete it to run again")


def test_only_a_run_that_ended_well_is_finished(tmp_path):
    config = tiny(tmp_path)
    for status, is_finished in (("failed", False), ("ok", True), ("running", False)):
        record = with_checksum(OK | {"status": status, "seed": 0})
        write_json(record_path(config), record)
        assert finished(config) == (record if is_finished else None)
    assert finished(tiny(tmp_path, seed=1)) is None


@pytest.mark.parametrize("schema", [None, 1, SCHEMA + 1, str(SCHEMA)])
@pytest.mark.parametrize("status", ["ok", "failed"])
def test_a_record_of_another_schema_is_refused_and_nothing_is_run_over_it(tmp_path, monkeypatch, schema, status):
    """What a default of the configuration means may have changed, and with it what the record is of."""
    config = tiny(tmp_path)
    old = {"status": status, "code": {"commit": "0123456789ab"}} | ({} if schema is None else {"schema": schema})
    write_json(record_path(config), old)
    before = record_path(config).read_bytes()
    monkeypatch.setattr(run_module, "train", lambda *arguments: pytest.fail("it trained"))
    for ask in (lambda: read_record(record_path(config)), lambda: finished(config), lambda: run_module.run(config)):
        with pytest.raises(ValueError) as caught:
            ask()
        assert one_line(caught) == (
            f"{record_path(config)}: a record of schema {schema or 1}; accepted: {SCHEMA}; read it with the code of "
            "its commit (0123456789ab), or delete it to run again"
        )
    assert record_path(config).read_bytes() == before


def test_a_results_folder_that_cannot_be_written_stops_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run_module, "train", lambda *arguments: pytest.fail("it trained"))
    with pytest.raises(ValueError, match="cannot be written") as caught:
        run_module.run(tiny(tmp_path / "file"))
    one_line(caught)
