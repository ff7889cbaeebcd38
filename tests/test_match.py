"""The solver that gives an arm the size at which it costs what it is to be compared with."""

import dataclasses
import math

import pytest
import torch

from memlayers.config import MatchConfig, ModelConfig
from memlayers.cost import model_cost, solve
from memlayers.layers import Dense, Engram, Memory, NGram, Oracle, ShortConv
from memlayers.layers.feedforward import Workload

WORK = Workload(sequence=4.0, scored=2.0, tokens=1024)
NUM_TOKENS = 551


def size(config: ModelConfig, by: str) -> float:
    cost = model_cost(config, NUM_TOKENS, WORK)
    return cost.params if by == "params" else cost.flops


MEMORY = Memory(num_keys=64, heads=4, topk=8, d_key=16)
PLUS = dataclasses.replace(MEMORY, pool="shared", gate=True)


@pytest.mark.parametrize("times", [1.0, 3.7])
@pytest.mark.parametrize(
    ("by", "spend"),
    [
        *(("flops", spend) for spend in ("width", "hidden", "depth", "both", "longer")),
        *(("params", spend) for spend in ("width", "hidden")),
    ],
)
@pytest.mark.parametrize("arm", [Dense(), PLUS], ids=["dense", "gated"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_a_matched_arm_is_within_half_a_hidden_unit_or_half_of_what_hidden_is_a_multiple_of(
    arm, by, spend, times, multiple
):
    config = ModelConfig(arm, "middle", d_model=32, depth=3, hidden=88)
    matched = solve(config, MatchConfig(MEMORY, by, times, spend, multiple), NUM_TOKENS, WORK)
    target = size(dataclasses.replace(config, ffn=MEMORY), by) * (1 if spend == "longer" else times)
    assert matched.target == target and matched.reached == size(matched.model, by)
    assert matched.cost == model_cost(matched.model, NUM_TOKENS, WORK)
    assert matched.model.hidden % multiple == 0
    unit = size(dataclasses.replace(matched.model, hidden=matched.model.hidden + multiple), by) - matched.reached
    assert unit > 0 and abs(matched.reached - target) <= unit / 2
    assert matched.steps == (times if spend == "longer" else 1.0)
    matched.model.validate()


def test_what_is_spent_on_is_what_grows():
    config = ModelConfig(d_model=32, depth=4, hidden=88, num_heads=2)

    def solved(spend: str) -> ModelConfig:
        return solve(config, MatchConfig(MEMORY, "flops", 4.0, spend), NUM_TOKENS, WORK).model

    kept = dataclasses.asdict(config)
    for spend, free in (("width", {"d_model", "hidden"}), ("depth", {"depth", "hidden"}), ("hidden", {"hidden"})):
        model = dataclasses.asdict(solved(spend))
        assert {key for key in kept if model[key] != kept[key]} == free
        assert all(model[key] >= kept[key] for key in ("d_model", "depth"))
    wide = solved("width")
    assert wide.hidden / wide.d_model == pytest.approx(config.hidden / config.d_model, rel=0.1)
    assert solved("depth").hidden == pytest.approx(config.hidden, rel=0.2)
    both = solved("both")
    assert both.depth == round(4 * 4 ** (1 / 3)) and config.d_model < both.d_model < wide.d_model
    assert both.hidden / both.d_model == pytest.approx(config.hidden / config.d_model, rel=0.1)


def test_without_a_reference_the_model_stays_as_it_is_written():
    config = ModelConfig(MEMORY)
    matched = solve(config, MatchConfig(), NUM_TOKENS, WORK)
    assert matched.model == config and matched.steps == 1.0 and matched.target == matched.reached


def test_a_reference_meets_itself():
    config = ModelConfig(MEMORY, hidden=77)
    for by in ("flops", "params"):
        matched = solve(config, MatchConfig(MEMORY, by, 1.0, "hidden"), NUM_TOKENS, WORK)
        assert matched.model == config and matched.reached == matched.target


EXTRAS = [
    {"gated": False},
    {"before": ShortConv()},
    {"beside": NGram(num_slots=100)},
    {"values": NGram(n=1, num_slots=None, hashes=1)},
    {"residual": Engram(num_slots=100), "extra_blocks": [0]},
    {"residual": NGram(num_slots=100), "values": NGram(num_slots=100), "before": ShortConv(), "gated": False},
]


@pytest.mark.parametrize("extras", EXTRAS, ids=" ".join)
@pytest.mark.parametrize("arm", [Dense(), PLUS], ids=["dense", "gated"])
@pytest.mark.parametrize("by", ["flops", "params"])
def test_an_arm_with_extras_or_without_gates_costs_what_the_plain_reference_costs(arm, extras, by):
    plain = ModelConfig(MEMORY, [1], d_model=32, depth=3, hidden=88)
    config, match = dataclasses.replace(plain, ffn=arm, **extras), MatchConfig(MEMORY, by, 2.0, "hidden")
    matched = solve(config, match, NUM_TOKENS, WORK)
    assert matched.target == 2 * size(plain, by) and matched.cost == model_cost(matched.model, NUM_TOKENS, WORK)
    unit = size(dataclasses.replace(matched.model, hidden=matched.model.hidden + 1), by) - matched.reached
    assert unit > 0 and abs(matched.reached - matched.target) <= unit / 2
    without = solve(dataclasses.replace(plain, ffn=arm), match, NUM_TOKENS, WORK)
    spent = size(dataclasses.replace(without.model, **extras), by) - without.reached  # by the extras, or by no gates
    assert spent and (abs(spent) < unit or (matched.model.hidden < without.model.hidden) == (spent > 0))
    assert dataclasses.replace(matched.model, hidden=88) == config


def test_an_oracle_is_matched_where_there_are_questions_as_arm_and_as_reference():
    questions = torch.arange(1, 301)[:, None]
    config = ModelConfig(Oracle(), [1], hidden=88)
    arm = solve(config, MatchConfig(MEMORY), NUM_TOKENS, WORK, questions=questions)
    assert arm.target == size(dataclasses.replace(config, ffn=MEMORY), "flops")
    assert arm.cost == model_cost(arm.model, NUM_TOKENS, WORK, questions=questions) and arm.model.hidden > 88
    reference = solve(config, MatchConfig(Oracle()), NUM_TOKENS, WORK, questions=questions)
    assert reference.model == config and reference.reached == reference.target


def test_a_reference_that_is_cheaper_than_the_smallest_model_is_one_line():
    config = ModelConfig(PLUS, hidden=1, depth=1, placement="add")
    match = MatchConfig(dataclasses.replace(MEMORY, heads=1, topk=1), "flops", 1.0, "hidden")
    with pytest.raises(ValueError, match=r"^match.times=1.0: the smallest model costs [^\n]*$") as error:
        solve(config, match, NUM_TOKENS, WORK)
    accepted = float(str(error.value).rpartition("accepted: ")[2].partition(" ")[0])
    matched = solve(config, dataclasses.replace(match, times=accepted), NUM_TOKENS, WORK)
    assert matched.model.hidden <= 3
    with pytest.raises(ValueError, match=r"accepted: [0-9.]+ or more, or less than match.multiple_of=1000$"):
        solve(ModelConfig(d_model=32), MatchConfig(MEMORY, multiple_of=1000), NUM_TOKENS, WORK)
    with pytest.raises(ValueError, match=r"^match.spend=longer: the smallest model costs [^\n]*accepted: width, "):
        solve(config, dataclasses.replace(match, spend="longer"), NUM_TOKENS, WORK)


def test_a_smallest_model_a_little_above_the_target_is_refused_too():
    """Matched means within half a hidden unit, not within some percent."""
    config = ModelConfig(MEMORY, hidden=1, d_model=32)
    whole, unit = size(config, "flops"), size(dataclasses.replace(config, hidden=2), "flops") - size(config, "flops")
    match = MatchConfig(MEMORY, "flops", 1 - unit / whole, "hidden")
    assert match.times > 0.95
    with pytest.raises(ValueError, match="the smallest model costs"):
        solve(config, match, NUM_TOKENS, WORK)


@pytest.mark.parametrize("arm", [MEMORY, PLUS], ids=["memory", "gated"])
@pytest.mark.parametrize("spend", ["hidden", "width", "depth", "longer"])
def test_a_model_without_a_dense_feed_forward_cannot_be_trimmed_and_says_so(arm, spend):
    config = ModelConfig(arm, blocks="all")
    other = PLUS if arm is MEMORY else MEMORY
    with pytest.raises(ValueError, match=r"^match.spend=[^\n]*accepted: [^\n]*$"):
        solve(config, MatchConfig(other, "flops", 2.0, spend), NUM_TOKENS, WORK)
    matched = solve(
        dataclasses.replace(config, placement="add"), MatchConfig(other, "flops", 2.0, spend), NUM_TOKENS, WORK
    )
    assert math.isclose(matched.reached, matched.target, rel_tol=0.01)


@pytest.mark.parametrize("arm", [Dense(), MEMORY], ids=["dense", "memory"])
def test_depth_is_found_where_the_blocks_of_the_memory_are_listed(arm):
    config = ModelConfig(arm, blocks=[1], depth=2)
    matched = solve(config, MatchConfig(MEMORY, "flops", 3.0, "depth"), NUM_TOKENS, WORK)
    assert matched.model.depth >= 4 and matched.model.blocks == [1]
    matched.model.validate()


def test_all_arms_meet_one_cost_whatever_the_gradients_of_their_own_tables():
    config, match = ModelConfig(MEMORY, [0]), MatchConfig(MEMORY, "flops", 2.0, "hidden")
    sparse, dense = (solve(config, match, NUM_TOKENS, WORK, sparse=one) for one in (True, False))
    assert sparse.target == dense.target
    assert dense.cost == model_cost(dense.model, NUM_TOKENS, WORK, sparse=False)
    assert dense.model.hidden > sparse.model.hidden  # what it saves on sorting, it spends
