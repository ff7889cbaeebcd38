"""SCALING.md: how a run is spread over processes, and what that costs; from results/bench/shards.json."""

from typing import Any

from pandas import DataFrame

from memlayers.layers.sharded_pool import wire_bytes

# On paper: the largest model of Memory Layers at Scale, and the machine whose rates are stated by its maker.
SLOTS, WIDTH, READS, LAYERS = 2**26, 2048, 4 * 32, 3
TOKENS, GPU_BYTES = 8192, 80e9  # tokens a GPU and step; memory of an H100
RATES = {"NVLink, 450 GB/s": 450e9, "InfiniBand, 50 GB/s": 50e9}

HEAD = """# Scaling

Written by `python scripts/bench.py shards`, on {processor}.

    torchrun --standalone --nproc-per-node=2 scripts/train.py trainer=ddp     # splits every batch
    torchrun --standalone --nproc-per-node=2 scripts/train.py trainer=ddp shard_tables=true   # and the tables
    python scripts/show_cost.py --processes 2,4,8 arm=memory     # what each process holds and sends

On several nodes, run the same command on each, or once with `srun` inside a Slurm job:

    torchrun --nnodes=4 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 \\
        --signals-to-handle=SIGTERM,SIGINT,SIGUSR1,SIGUSR2 \\
        scripts/train.py trainer=ddp trainer.accelerator=gpu shard_tables=true results=/shared/results

    srun --nodes=4 --ntasks-per-node=1 torchrun --nnodes=4 ... --rdzv-endpoint=$(hostname):29500 ...

A batch is the same whatever the number of processes, and so is the curve, but for the order of sums: batch
normalisation, the load of experts and the norms of clipping (optim.clip, optim.clip_values) are those of all processes.
With save_model=true the first one writes the whole model, some rows of a table at a time, and one process reads it
(scripts/ask.py). Rounding (quantize) is refused. All processes write to one folder, which the nodes have to share.
A stopped run is continued by the same command, on another number of processes if need be; torchrun allows 30 seconds
to save, and a run that needs longer falls back to its last checkpoint. Only gloo, on CPUs, has been tried.

Tables are cut into columns (layers/sharded_pool.py). The alternative cuts them into rows: its messages depend on what
is read, and every owner sends a sum as wide as the model for each token. The last column is the time of a step by rows
over that by columns, the median of steps in turns; above 1, columns are faster.

"""
PAPER = """
## On paper

A model of Memory Layers at Scale with {parameters:.0f} billion parameters in one table: {slots:.0f} million slots,
{width} wide, read by {layers} layers with {reads} reads a token. Each GPU takes {tokens:,} tokens a step; rows are
bfloat16, and Adagrad keeps one number a row. "Held" is the table and its state alone; "sent" is what reads exchange.
Computed from the formula that the bytes above follow, and the rates in the column heads; none of it was run. A GPU has
80 GB.

"""


def page(measured: list[dict[str, Any]], processor: str) -> str:
    return HEAD.format(processor=processor) + table(measured) + paper()


def table(measured: list[dict[str, Any]]) -> str:
    def line(one: dict[str, Any]) -> dict[str, Any]:
        columns, rows = one["sent"]["columns"], one["sent"]["rows"]
        size = 2 ** one["log2_slots"] * (4 * one["width"] // one["ranks"] + 4)
        return {
            "processes": one["ranks"],
            "slots": f"2^{one['log2_slots']}",
            "width": one["width"],
            "reads": one["reads"],
            "held, MB": f"{one['held'] / 1e6:.2f}",
            "predicted, MB": f"{size / 1e6:.2f}",
            "sent for reads, MB": f"{columns['reads'] / 1e6:.3f}",
            "predicted, MB ": f"{one['predicted'] / 1e6:.3f}",
            "for state, MB": f"{columns['state'] / 1e6:.3f}",
            "by rows: sent, MB": f"{sum(rows.values()) / 1e6:.3f}",
            "by rows: step": f"{one['rows_over_columns']:.2f}x",
        }

    return DataFrame(line(one) for one in measured).to_markdown(index=False, disable_numparse=True) + "\n"


def paper() -> str:
    lines = []
    for ranks in (8, 16, 64, 256):
        sent = LAYERS * wire_bytes(TOKENS, READS, WIDTH, ranks)
        held = SLOTS * (2 * WIDTH / ranks + 4)
        line = {"GPUs": ranks, "held, GB": f"{held / 1e9:.1f}", "of a GPU": f"{held / GPU_BYTES:.0%}"}
        line |= {"sent a step, GB": f"{sent / 1e9:.2f}"}
        lines.append(line | {f"{name}: ms": f"{1e3 * sent / rate:.1f}" for name, rate in RATES.items()})
    head = PAPER.format(
        parameters=SLOTS * WIDTH / 1e9, slots=SLOTS / 1e6, width=WIDTH, layers=LAYERS, reads=READS, tokens=TOKENS
    )
    return head + DataFrame(lines).to_markdown(index=False, disable_numparse=True) + "\n"
