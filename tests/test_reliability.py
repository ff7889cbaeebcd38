"""The script that kills, damages and fuzzes finds nothing lost, and writes what it counted."""

import json

import pytest
from commands import called


@pytest.mark.slow
def test_a_small_turn_loses_nothing_and_is_written_down(tmp_path):
    words = ["--minutes", "0", "--steps", "150", "--cases", "20", "--out", str(tmp_path)]
    done = called("reliability.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "results" / "reliability.json").read_text())
    assert {tuple(sorted(one)) for one in found} == {("lost", "name", "survived", "tried")}
    assert all(one["survived"] == one["tried"] and not one["lost"] for one in found)
    assert sum(one["tried"] for one in found) >= 8 * 20
    page = (tmp_path / "RELIABILITY.md").read_text()
    assert all(one["name"] in page for one in found)
