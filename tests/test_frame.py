"""Records -> DataFrame: every run is a row, and axes follow from the records."""

import json
import math

import pytest
from records import record, write

import memlayers
from memlayers.studies.frame import RECORDS, axes_of, framed
from memlayers.training.record import with_checksum


def test_a_row_has_readouts_axes_and_all_else_under_dotted_names(tmp_path):
    write(tmp_path, record(recall=0.25, axes={"model.ffn.topk": 8, "seed": 0}), record(seed=1, error="ValueError: no"))
    frame = memlayers.records(tmp_path)
    ok, failed = frame.iloc[0], frame.iloc[1]
    assert (ok["recall"], ok["params"], ok["seconds"], ok["axes.model.ffn.topk"]) == (0.25, 50_000, 10.0, 8)
    assert ok["config.model.ffn.kind"] == "memory" and ok["training.curve"][1]["recall"] == 0.25
    assert math.isnan(failed["recall"]) and failed["status"] == "failed" and failed["error"] == "ValueError: no"


def test_committed_records_are_those_of_their_runs(tmp_path):
    runs = [record(seed=seed, recall=seed / 10) for seed in range(3)]
    write(tmp_path / "local", *runs)
    (tmp_path / "committed").mkdir()
    (tmp_path / "committed" / RECORDS).write_text("".join(json.dumps(with_checksum(run)) + "\n" for run in runs))
    local, committed = memlayers.records(tmp_path / "local"), memlayers.records(tmp_path / "committed")
    assert local.to_json() == committed.to_json()


def test_a_folder_without_records_and_records_of_another_schema_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^\S+: no record of a run; accepted: a folder such as results/local/single$"):
        memlayers.records(tmp_path)
    write(tmp_path, record(schema=1))
    with pytest.raises(ValueError, match=r"memory-s0-\d+\.json: a record of schema 1; accepted: 2"):
        memlayers.records(tmp_path)
    (tmp_path / RECORDS).write_text(json.dumps(record() | {"schema": 3}))
    (tmp_path / "w").rename(tmp_path.parent / "elsewhere")
    with pytest.raises(ValueError, match=rf"{RECORDS}, line 1: a record of schema 3"):
        memlayers.records(tmp_path)


@pytest.mark.parametrize("line", [b'{"status": "ok",', b"[]", b"3", b"{}", b"", b'"\xff"'])
def test_a_damaged_line_is_named(line, tmp_path):
    (tmp_path / RECORDS).write_bytes(json.dumps(with_checksum(record())).encode() + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=rf"^{tmp_path / RECORDS}, line 2: not a record \([^\n]*\); delete it [^\n]*$"):
        memlayers.records(tmp_path)


def test_axes_are_the_swept_settings_with_several_values():
    runs = [
        record(seed=s, axes={"arm": "memory", "model.ffn.topk": k, "model.depth": 2, "seed": s}, digest=f"{k}")
        for k in (4, 8)
        for s in (0, 1)
    ]
    assert axes_of(framed(runs)) == ["arm", "axes.model.ffn.topk"]
    assert axes_of(framed(runs[:2])) == ["arm"]


def test_undeclared_axes_are_settings_in_which_digests_differ_and_no_more_of_them_than_needed():
    """d_model and hidden move together: one of them tells the runs apart; topk moves on its own."""
    runs = [
        record(axes={}, digest=f"{d}-{k}", config={"d_model": d, "hidden": 2 * d, "topk": k, "betas": [0.9, 0.95]})
        for d in (32, 64)
        for k in (4, 8)
    ]
    assert axes_of(framed(runs)) == ["arm", "config.d_model", "config.topk"]


def test_digests_that_no_setting_explains_are_refused():
    with pytest.raises(ValueError, match=r"^s: runs of one arm and seed have several digests, and no setting"):
        axes_of(framed([record(digest="a"), record(digest="b")]))
