"""Does a memory arm's training step cost what the dense arm's costs, at equal FLOPs per token?

The study's arms on the study's batch, at three widths; keys are half as wide as the model, but 16 at width 32. The
study's match lets dense be narrower and its feed-forwards wider, so that d_model is 120 and 224 instead of 128 and 256;
beside it stands a dense arm whose d_model is kept, and whose feed-forwards alone are matched. Matrices
are stepped on by AdamW in all arms: Muon, which dense has in the study, takes longer, and would flatter memory. All
have memory's rate: at dense's, which is for what Muon leaves, AdamW saturates its attention, and its gradients become
too small for normal floats, at which some processors are slow; that would flatter memory too.
"""

from typing import Any

from benches.clock import Side, joined, ratio, take_turns
from benches.steps import TrainingStep, configured

LIMITS = {32: 1.2, 128: 1.0, 256: 1.0}
MULTIPLE = 4  # of which hidden widths are multiples, as products with odd widths are slow
MEMORIES = ("memory", "memory_plus")
AS_WIDE, REFERENCE = "dense, d_model kept", "memory, reference"


def arms(width: int) -> dict[str, TrainingStep]:
    """Training steps of the arms at one width, matched in FLOPs by their hidden widths."""
    shape = [f"model.d_model={width}", f"model.hidden={round(2.75 * width)}", f"model.num_heads={max(2, width // 32)}"]
    key = max(16, width // 2)
    shape += [f"match.reference.d_key={key}", f"match.multiple_of={MULTIPLE}", "optim.muon_lr=null", "optim.lr=3e-3"]
    of_memory = [*shape, f"model.ffn.d_key={key}"]
    return {
        "dense": TrainingStep(configured("arm=dense", *shape)),
        AS_WIDE: TrainingStep(configured("arm=dense", *shape, "match.spend=hidden")),
        **{arm: TrainingStep(configured(f"arm={arm}", *of_memory)) for arm in MEMORIES},
        REFERENCE: TrainingStep(configured("arm=memory", *of_memory, "kernels=reference")),
    }


def measure(rounds: int, widths: tuple[int, ...] = tuple(LIMITS), times: int = 5) -> dict[str, Any]:
    """For each width, build the arms `times` times for a share of the rounds each, as the addresses of tensors change
    times by a percent.
    """
    by_width = {}
    for width in widths:
        together, apart = [], []
        for _ in range(times):
            steps = arms(width)
            sides: dict[str, Side] = dict(steps)
            slow = sides.pop(REFERENCE)  # apart: what it allocates empties the caches of the others
            together.append(take_turns(sides, rounds // times))
            apart.append(take_turns({"dense": sides["dense"], REFERENCE: slow}, max(4, rounds // times // 3)))
        by_width[str(width)] = {
            name: one | {"to_dense": ratio(one, turns["dense"])} | shape_of(steps[name])
            for turns in (joined(apart), joined(together))  # dense's own time is that of the latter
            for name, one in turns.items()
        }
        for name in MEMORIES:
            one = by_width[str(width)]
            one[name]["to_dense_as_wide"] = ratio(one[name], one[AS_WIDE])
    return by_width


def shape_of(step: TrainingStep) -> dict[str, float]:
    model, cost = step.plan.matched.model, step.plan.matched.cost
    return {"d_model": model.d_model, "hidden": model.hidden, "flops_per_token": cost.flops}


def targets(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [
        (f"level: {arm}'s step to dense's, width {width}", one[arm]["to_dense"], LIMITS[int(width)])
        for width, one in found.items()
        for arm in MEMORIES
    ]
