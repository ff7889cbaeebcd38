"""Every arm learns a world that is far below what it can hold: one that does not is broken, not worse."""

import pytest
from commands import ARMS, DENSE_ARMS, unasked

from memlayers.training.run import run

WORLD = ["world=biographies", "world.num_people=60", "world.name_parts=[12,12,12]"]
WORLD += ["world.cardinalities=[16,16,16]", "num_keys=24", "training.batch_tokens=128", "training.exposures=64"]
WORLD += ["training.probes=1", "checkpoint_minutes=null", "logger=none", "progress=none"]


@pytest.mark.slow
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm == "dense" or arm not in DENSE_ARMS])
def test_it_recalls_a_small_world(tmp_path, arm):
    record = run(unasked(*WORLD, f"arm={arm}", f"results={tmp_path}"))
    assert record["recall"]["num_facts"] == 180 and record["recall"]["exact"] >= 0.99
