# %% [markdown]
# # 4. An arm of your own
#
# *12 minutes to read, a minute to run.*
#
# **Question.** A mixture of experts also has many more parameters than it computes with: a router sends each token to
# one of several small feed-forwards. Does it recall as a memory layer does, at the same FLOPs?
#
# The library has one with more settings (`memlayers/layers/moe.py`, `arm=moe`). We write a smaller one in two files,
# check it, and let it stand in the table beside dense and memory. Nothing in the library is changed for that.

# %%
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.utils.flop_counter import FlopCounterMode

import memlayers
from memlayers import kernels
from memlayers.layers.feedforward import Workload
from memlayers.layers.site import Site
from memlayers.studies.figure import GREY, PALETTE

folder = Path(tempfile.mkdtemp())
mine = folder / "mine"
mine.mkdir()

# %% [markdown]
# ## What a layer is
#
# Four things, in a file of yours:
#
# 1. **Settings**: a dataclass with `validate`, which refuses what cannot be, and `build`, which makes the module for a
#    `site`, the place in a model that knows its width.
# 2. **forward**: `x` (batch, sequence, d_model) and the tokens under it, to an `FFNOutput`: what is added to the
#    residual stream, and if you like a loss of your own and the reads of a table.
# 3. **cost**: FLOPs and parameters of one token. From it all arms are matched, so here you must be honest.
# 4. **param_roles**: what a parameter is for, where its name does not say so. Rates and decay belong to roles.

# %%
(mine / "mixture.py").write_text('''\
"""A mixture of experts: a router sends each token to one of several small feed-forwards (Fedus et al. 2021)."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from memlayers.layers.feedforward import FFNOutput, matrix_cost


@dataclass
class Mixture:
    experts: int = 8
    width: int = 64  # of each expert
    balance: float = 0.01  # of the loss that keeps all experts in use

    def validate(self, key, d_model):
        if self.experts < 2:
            raise ValueError(f"{key}.experts={self.experts} leaves no choice; accepted: 2 or more")

    def build(self, site):
        return MixtureOfExperts(site.d_model, self.experts, self.width, self.balance)


class MixtureOfExperts(nn.Module):
    param_roles = {"down": "output"}  # writes to the residual stream

    def __init__(self, d_model, experts, width, balance):
        super().__init__()
        self.balance = balance
        self.router = nn.Linear(d_model, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, width, d_model))  # the model draws the first values
        self.down = nn.Parameter(torch.empty(experts, d_model, width))

    def forward(self, x, tokens):
        share = self.router(x).softmax(dim=-1)  # (b, s, experts)
        weight, chosen = share.max(dim=-1)
        hidden = torch.zeros_like(x)
        for expert, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            own = chosen == expert
            hidden[own] = weight[own][:, None] * (F.gelu(x[own] @ up.T) @ down.T)
        load = F.one_hot(chosen, share.shape[-1]).to(share).mean(dim=(0, 1))
        return FFNOutput(hidden, self.balance * len(load) * (load * share.mean(dim=(0, 1))).sum())

    def cost(self, work):
        one = matrix_cost(*self.up[0].shape) + matrix_cost(*self.down[0].shape)  # a token meets one expert ...
        every = replace(one, params=len(self.up) * one.params)  # ... and all are stored
        return matrix_cost(*self.router.weight.shape) + every
''')
(mine / "mixture.yaml").write_text("experts: 8\nwidth: 64\nbalance: 0.01\n")
print(*sorted(path.name for path in mine.iterdir()))

# %% [markdown]
# ## Check it before it costs you a night
#
# Two checks find most mistakes. A *naive twin* computes one token at a time, as one would write it on a blackboard. And
# torch can count the FLOPs of a forward pass, which must be what `cost` says.

# %%
sys.path.append(str(mine))
from mixture import Mixture

D_MODEL = 32
layer = Mixture().build(Site(D_MODEL, hidden=88, num_tokens=100, kernels=kernels.choose("reference")))
torch.manual_seed(0)
for parameter in layer.parameters():
    torch.nn.init.normal_(parameter, std=D_MODEL**-0.5)


def twin(token: torch.Tensor) -> torch.Tensor:
    share = (layer.router.weight @ token).softmax(dim=0)
    best = int(share.argmax())
    return share[best] * (layer.down[best] @ torch.nn.functional.gelu(layer.up[best] @ token))


x = torch.randn(3, 5, D_MODEL)
slow = torch.stack([torch.stack([twin(token) for token in row]) for row in x])
torch.testing.assert_close(layer(x, None).hidden, slow)

with FlopCounterMode(display=False) as counter:
    layer(x, None)
said = layer.cost(Workload(sequence=5, scored=1)).forward
print(f"FLOPs a token, forward: {counter.get_total_flops() / 15:,.0f} counted, {said:,.0f} said")
assert counter.get_total_flops() == 15 * said

# %% [markdown]
# ## Train it beside the others
#
# Its name is its file. On the command line the same sweep is
#
#     python scripts/train.py -m arm=dense,memory,mine/mixture.py 'seed=range(3)' world=atlas_airports ...
#
# Every arm gets the size at which its *training FLOPs per token* are those of the memory model: a dense model gets
# wider, and what is left of a memory's or a mixture's budget goes to the dense feed-forward of the other block. Seeds
# are paired: on one seed all arms see the same facts in the same order.

# %%
for arm in ("dense", "memory", mine / "mixture.py"):
    for seed in range(3):
        record = memlayers.run(
            "world.num_subjects=300",
            "training.exposures=8",
            "training.batch_tokens=512",
            "training.probes=2",
            arm=arm,
            world="atlas_airports",
            num_keys=96,
            seed=seed,
            results=folder / "results",
            progress="none",
        )
        print(f"{record['arm']:8} seed {seed}: recall {record['recall']['exact']:.3f}")

# %% [markdown]
# `records` gives every run below a folder as a row of a DataFrame: read-outs by short names, and all else that a record
# holds under dotted ones.

# %%
frame = memlayers.records(folder / "results")
table = frame.groupby("arm").agg(
    recall=("recall", "mean"),
    lowest=("recall", "min"),
    highest=("recall", "max"),
    flops_per_token=("flops_per_token", "mean"),
    params=("params", "mean"),
    seconds=("seconds", "median"),
    n=("seed", "count"),
)
table.round(3)

# %%
flops = frame["flops_per_token"]
assert (frame["status"] == "ok").all() and flops.max() / flops.min() < 1.01, "matched"
recall = table["recall"]
assert recall["memory"] > recall["mixture"] + 0.1 and abs(recall["mixture"] - recall["dense"]) < 0.1
assert table.loc["mixture", "params"] > 1.3 * table.loc["dense", "params"]

# %%
figure, axis = plt.subplots(figsize=(6.0, 3.6))
colours = {"dense": GREY, "memory": PALETTE[0], "mixture": PALETTE[1]}
for place, (arm, colour) in enumerate(colours.items()):
    own = frame[frame["arm"] == arm]
    axis.scatter([place] * len(own), own["recall"], color=colour, alpha=0.7)
    axis.hlines(own["recall"].mean(), place - 0.2, place + 0.2, color=colour, lw=2)
names = [f"{arm}\n{table.loc[arm, 'params'] / 1000:,.0f} thousand\nparameters" for arm in colours]
axis.set_xticks(range(len(colours)), names)
axis.set(ylabel="recall (share of facts)", ylim=(0, 1.03), xlim=(-0.5, 2.5))
axis.set(title=f"8 exposures, {flops.mean() / 1000:.0f} thousand training FLOPs a token")
axis.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# ## What one may conclude
#
# The mixture has more parameters than dense and recalls about as much. Eight experts are eight large slots: a fact
# cannot have one to itself. That is an observation about *these* settings, and three things are missing before it is a
# claim:
#
# - **It is not tuned.** Settings that `scripts/tune.py` found for an arm are taken from `conf/rates/`. A new arm
#   without a table begins with those of dense. `python scripts/tune.py arm=...` gives each arm as many trials.
# - **One budget.** How arms compare depends on how often facts are shown: [tutorial 5](5_a_sweep_and_its_table.py).
# - **Three seeds.** Enough for a look. The library's own rule is five for a number that is quoted.
#
# **The file is part of the experiment.** Its contents are in the digest that names a record, so an edited layer is
# another experiment, and is run again.
#
# **Try.** 32 experts of width 32. Two experts a token. Make the experts smaller and more until each is one neuron:
# how would a token find its own among thousands? (`arm=peer` has an answer.)
#
# Next: [a sweep and its table](5_a_sweep_and_its_table.py).
