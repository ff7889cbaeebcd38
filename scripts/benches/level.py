"""Does a memory arm's training step cost what the dense arm's costs, at equal FLOPs per token?

The study's arms on the study's batch, at three widths; keys are half as wide as the model, but 16 at width 32. Matrices
are stepped on by AdamW in all arms: Muon, which dense has in the study, takes longer, and would flatter memory. All
have memory's rate: at dense's, which is for what Muon leaves, AdamW saturates its attention, and its gradients become
too small for normal floats, at which some processors are slow; that would flatter memory too.
"""

from typing import Any

from benches.clock import Side, ratio, take_turns
from benches.steps import TrainingStep, configured

LIMITS = {32: 1.2, 128: 1.0, 256: 1.0}


def arms(width: int) -> dict[str, TrainingStep]:
    """The three arms at one width, hidden widths solved to match."""
    shape = [f"model.d_model={width}", f"model.hidden={round(2.75 * width)}", f"model.num_heads={max(2, width // 32)}"]
    key = max(16, width // 2)
    shape += [f"match.reference.d_key={key}", "optim.muon_lr=null", "optim.lr=3e-3"]
    made = {"dense": TrainingStep(configured("arm=dense", *shape))}
    for arm in ("memory", "memory_plus"):
        made[arm] = TrainingStep(configured(f"arm={arm}", *shape, f"model.ffn.d_key={key}"))
    made["memory, reference"] = TrainingStep(
        configured("arm=memory", *shape, f"model.ffn.d_key={key}", "kernels=reference")
    )
    return made


def measure(rounds: int, widths: tuple[int, ...] = tuple(LIMITS)) -> dict[str, Any]:
    found = {}
    for width in widths:
        steps = arms(width)
        sides: dict[str, Side] = dict(steps)
        slow = sides.pop("memory, reference")  # apart: what it allocates empties the caches of the others
        times = take_turns(sides, rounds)
        apart = take_turns({"dense": sides["dense"], "memory, reference": slow}, max(4, rounds // 3))
        flops = {name: step.plan.matched.cost.flops for name, step in steps.items()}
        found[str(width)] = {
            name: one | {"to_dense": ratio(one, turns["dense"]), "flops_per_token": flops[name]}
            for turns in (apart, times)  # dense's own time is that of the latter
            for name, one in turns.items()
        }
    return found


def targets(found: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [
        (f"level: {arm}'s step to dense's, width {width}", one[arm]["to_dense"], LIMITS[int(width)])
        for width, one in found.items()
        for arm in ("memory", "memory_plus")
    ]
