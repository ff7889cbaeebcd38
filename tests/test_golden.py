"""The first 30 losses of each arm, digit by digit against tests/golden/: a change of numerics does not go unseen.

Where a change is meant, write the curves anew and say so in the commit:  python tests/test_golden.py
"""

import json
from pathlib import Path

import pytest
import torch

from memlayers.config import (
    AtlasConfig,
    FFNConfig,
    MemoryConfig,
    ModelConfig,
    OptimConfig,
    RoleConfig,
    ScheduleConfig,
    ValuesConfig,
)
from memlayers.facts import build_world
from memlayers.training.learner import Batches, answer_loss
from memlayers.model import build_model, parameters_with_roles
from memlayers.optim.groups import build_optimizers, build_schedules, clip_gradients
from memlayers.text import Text

GOLDEN = Path(__file__).parent / "golden"
STEPS = 30
TOLERANCE = 1e-4  # relative: processors differ in the last digits, and 30 steps let the differences grow
ARMS: dict[str, FFNConfig] = {
    "dense": FFNConfig(),
    "memory": MemoryConfig(num_keys=32, heads=2, topk=4, d_key=16, qk_norm=True),
    "memory_plus": MemoryConfig(name="memory_plus", num_keys=32, heads=2, topk=4, d_key=16, qk_norm=True),
}


def losses(arm: str) -> list[float]:
    """As a run trains, without Lightning: 500 Han characters, 32 documents a step, rates as in conf/optim/adamw.yaml.

    Every setting is written out here, so that a change of a default shows where it belongs and not in these curves.
    """
    text = Text(
        build_world(AtlasConfig(name="readings", source="readings", spelling="bytes", num_subjects=500)), "terse"
    )
    config = ModelConfig(
        ARMS[arm], blocks="all", d_model=32, depth=2, num_heads=2, hidden=88, tied_head=True, embedding_std=0.02
    )
    model = build_model(config, len(text.vocabulary), torch.Generator().manual_seed(0))
    roles = {role: RoleConfig(1.0, 0.0) for role in ("matrix", "output", "vector", "embedding", "memory_key")}
    schedule = ScheduleConfig(warmup=0.03, shape="linear", final=0.02)
    values = ValuesConfig(lr=3e-2, betas=[0.9, 0.99], eps=1e-8, schedule=schedule)
    optim = OptimConfig(6e-3, [0.9, 0.95], eps=1e-8, clip=1.0, schedule=schedule, roles=roles, values=values)
    optimizers = build_optimizers(model, optim)
    schedules = build_schedules(optimizers, optim, STEPS)
    others = [parameter for _, role, parameter in parameters_with_roles(model) if role != "memory_value"]
    curve = []
    for documents in Batches(text, 32, STEPS, (0, 0)):
        loss = answer_loss(model, documents, "answers")
        loss.backward()
        clip_gradients(others, optim.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for schedule in schedules:
            schedule.step()
        curve.append(loss.item())
    return curve


@pytest.mark.parametrize("arm", ARMS)
def test_the_first_losses_are_those_on_record(arm):
    golden = json.loads((GOLDEN / f"{arm}.json").read_text())["losses"]
    assert len(golden) == STEPS and golden[-1] < golden[0] - 0.5
    assert losses(arm) == pytest.approx(golden, rel=TOLERANCE)


def test_the_arms_have_curves_of_their_own():
    curves = [json.loads((GOLDEN / f"{arm}.json").read_text())["losses"] for arm in ARMS]
    for index, curve in enumerate(curves):
        for other in curves[:index]:
            assert curve[5:] != pytest.approx(other[5:], rel=10 * TOLERANCE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name in ARMS:
        content = {"torch": torch.__version__, "losses": losses(name)}
        (GOLDEN / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        print(name, content["losses"][0], content["losses"][-1])
