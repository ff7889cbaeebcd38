"""The script that teaches a swapped Llama new facts, and what it says that each way of teaching forgets."""

import json

import pytest
from commands import called

pytest.importorskip("transformers")
pytest.importorskip("peft")


@pytest.mark.slow
def test_sparse_memory_finetuning_learns_as_much_and_forgets_less(tmp_path):
    """A quarter of the world of results/finetune.json, at its rates."""
    path = tmp_path / "finetune.json"
    done = called("finetune.py", "--people", "300", "--seeds", "1", "--out", str(path))
    assert done.returncode == 0, done.stderr
    runs = {one["arm"]: one for one in json.loads(path.read_text())["runs"]}
    assert all(one["before"] > 0.98 and one["new"] >= 0.9 for one in runs.values())
    forgotten = {arm: one["forgotten"] for arm, one in runs.items()}
    of_tables = max(forgotten[arm] for arm in ("table", "rows_500", "rows_2000"))
    assert of_tables < forgotten["full"] / 2 < forgotten["lora"] / 2
    assert done.stdout.split()[:5] == ["arm", "rate", "steps", "new", "forgotten"]


def test_a_mistake_is_one_line(tmp_path):
    done = called("finetune.py", "--people", "5")
    assert done.returncode == 2 and done.stderr == "memlayers: --people=5 --seeds=3; accepted: 100 and 1, or more\n"
