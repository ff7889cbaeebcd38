"""A record that is written is what is read, or is not read at all; one that cannot be written is kept elsewhere."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memlayers.training.record import SCHEMA, keep_record, read_record

OK = {"schema": SCHEMA, "status": "ok"}


def test_a_record_that_cannot_be_written_any_more_is_kept_elsewhere(tmp_path, monkeypatch):
    """The disk filled up while the run went on: what was computed is not lost, and one line says where it is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "results").write_text("a file in the place of the folder")
    path = tmp_path / "results" / "memory-s0-0.json"
    with pytest.raises(ValueError) as caught:
        keep_record(path, dict(OK))
    (kept,) = (tmp_path / "temporary").rglob("memory-s0-0.json")
    assert str(caught.value).endswith(f"; the record of the run is kept: mv {kept} {path}")
    assert str(caught.value).startswith(f"results={path.parent}: cannot be written (")
    assert json.loads(kept.read_text()).items() >= OK.items()


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@example(place=5, bit=0)  # in the name of the checksum
def test_no_flipped_bit_changes_a_number_in_silence(place, bit):
    """It is another file that cannot be read, one whose checksum says so, or the same content."""
    record = {"schema": SCHEMA, "status": "ok", "recall": {"exact": 0.125, "by": [1, 2.5e-7]}, "axes": {"a": "b"}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory-s0-0.json"
        keep_record(path, record)
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= 1 << bit
        path.write_bytes(content)
        try:
            assert read_record(path) == record
        except ValueError as error:
            assert "\n" not in str(error)
