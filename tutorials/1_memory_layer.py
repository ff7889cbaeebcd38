# %% [markdown]
# # 1. A memory layer from nothing
#
# *12 minutes to read, half a minute to run.*
#
# **Question.** A feed-forward block multiplies every token by every one of its weights, so that what it can store and
# what it costs grow together. Can a layer have many more parameters than it computes with?
#
# **Idea.** Keep a large table of values and let each token read a few rows of it. A *query* decides which: it is
# compared with one *key* per row. That comparison must cost far less than the size of the table, which is what product
# keys are for (Lample et al. 2019). [Memory Layers at Scale](https://arxiv.org/abs/2412.09764) is built on them.
#
# We write the layer in plain torch, look at one lookup, check that the layer is the library's, and let it learn a table
# of random facts beside a dense block of the same FLOPs.

# %%
import math

import matplotlib.pyplot as plt
import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from memlayers import kernels
from memlayers.layers import Memory
from memlayers.layers.dense import DenseFeedForward
from memlayers.layers.feedforward import Workload
from memlayers.layers.site import Site
from memlayers.studies.figure import GREY, PALETTE

RUST, TEAL = PALETTE[:2]
torch.manual_seed(0)
torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns of sparse gradients until one has decided
torch.set_num_threads(1)  # the tensors are small, and more threads are slower

# %% [markdown]
# ## The layer
#
# The letters: `t` tokens, `h` heads, `n` keys in each half, `c` numbers in a half key, `k` winners, `d` width.
#
# A slot has no key of its own. There are `n` row keys and `n` column keys; slot number `row * n + column` has the pair,
# and its score is the sum of the two *half scores*. So `2 * n` products score `n * n` slots. To find the `k` best sums,
# it is enough to look at the `k` best rows and the `k` best columns: if a slot's row is not among the `k` best rows,
# then each of these gives a better sum with the same column. That leaves `k * k` candidates.


# %%
class ReadRows(torch.autograd.Function):
    """The sum over r of weights[t, r] * values[slots[t, r]]; the gradient has the rows that were read, no others."""

    @staticmethod
    def forward(ctx, values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, slots, weights)
        return einsum(weights, values[slots], "t r, t r d -> t d")

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, Tensor]:
        values, slots, weights = ctx.saved_tensors
        rows, place = slots.unique(return_inverse=True)  # a row may have been read many times
        each = einsum(weights, grad, "t r, t d -> t r d")
        sums = grad.new_zeros(len(rows), grad.shape[1]).index_add(0, place.flatten(), each.flatten(0, 1))
        of_values = torch.sparse_coo_tensor(rows[None], sums, values.shape)
        return of_values, None, einsum(grad, values[slots], "t d, t r d -> t r")


class OurMemory(nn.Module):
    """x (t, d) -> (t, d): each head reads the topk best of n * n slots; what heads read is added up."""

    def __init__(self, d_model: int, num_keys: int, heads: int, topk: int, d_half: int):
        super().__init__()
        self.num_keys, self.heads, self.topk = num_keys, heads, topk
        self.to_query = nn.Linear(d_model, heads * 2 * d_half, bias=False)
        self.keys = nn.Parameter(torch.randn(heads, 2, num_keys, d_half))
        self.values = nn.Parameter(torch.randn(num_keys**2, d_model) / math.sqrt(d_model))

    def half_scores(self, x: Tensor) -> Tensor:
        """(two, t, h, n), with the scale of attention."""
        query = rearrange(self.to_query(x), "t (h two c) -> t h two c", h=self.heads, two=2)
        return einsum(query, self.keys, "t h two c, h two n c -> two t h n") / math.sqrt(query.shape[-1])

    def look_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Slots and weights, each (t, h, k)."""
        score, index = self.half_scores(x).topk(self.topk, dim=-1)
        pairs = score[0][..., :, None] + score[1][..., None, :]
        best, place = pairs.flatten(-2).topk(self.topk, dim=-1)
        row = index[0].gather(-1, place // self.topk)
        column = index[1].gather(-1, place % self.topk)
        return row * self.num_keys + column, best.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        slots, weights = self.look_up(x)
        return ReadRows.apply(self.values, slots.flatten(1), weights.flatten(1))


# %% [markdown]
# That is all of it. Three things to notice:
#
# - Gradients reach queries and keys through the *scores* of the winners. Which slots win has no gradient.
# - The softmax is over the `k` winners only, so the weights of a head add up to 1 whatever the table's size.
# - `backward` returns a sparse gradient for the table. An optimizer that understands it leaves all other rows alone.
#
# ## One lookup, seen
#
# One token, one head, a small table of 24 x 24 slots. We compute all 576 sums as well, which the layer never does.

# %%
torch.manual_seed(3)
small = OurMemory(d_model=32, num_keys=24, heads=1, topk=8, d_half=8)
token = torch.randn(1, 32)
with torch.no_grad():
    half = small.half_scores(token)[:, 0, 0]  # (two, n)
    slots, weights = (one[0, 0] for one in small.look_up(token))
every_sum = half[0][:, None] + half[1][None, :]

best = every_sum.flatten().topk(8)
assert best.indices.tolist() == slots.tolist(), "the winners among 8 * 8 candidates are the winners among all 576"
assert torch.allclose(best.values.softmax(dim=0), weights)


# %%
def draw_lookup(half: Tensor, slots: Tensor, weights: Tensor) -> None:
    """All sums with the half scores that they are made of, and the winners."""
    n, k = half.shape[1], len(slots)
    figure, grid = plt.subplots(
        2, 2, figsize=(7, 6.6), width_ratios=[1, 4], height_ratios=[1, 4], sharex="col", sharey="row"
    )
    (corner, top), (left, middle) = grid
    corner.axis("off")
    is_best = [torch.isin(torch.arange(n), scores.topk(k).indices) for scores in half]
    colours = [[RUST if one else "#C9CED6" for one in which] for which in is_best]
    top.bar(range(n), half[1], color=colours[1])
    top.set(ylabel="half score", title=f"the {k} best rows and columns, and the {k} best slots among their crossings")
    left.barh(range(n), half[0], color=colours[0])
    left.set(xlabel="half score", ylabel="row key (first half)")
    shown = middle.imshow(half[0][:, None] + half[1][None, :], cmap="Greys", aspect="auto")
    for row in is_best[0].nonzero()[:, 0]:
        middle.axhline(row, color=RUST, lw=0.6, alpha=0.6)
    for column in is_best[1].nonzero()[:, 0]:
        middle.axvline(column, color=RUST, lw=0.6, alpha=0.6)
    sizes = 900 * weights
    middle.scatter(slots % n, slots // n, s=sizes, color=TEAL, edgecolors="white", zorder=3)
    middle.set(xlabel="column key (second half)")
    figure.colorbar(shown, ax=grid, label="score of a slot: the sum of its two half scores", shrink=0.7)


draw_lookup(half, slots, weights)

# %% [markdown]
# Grey is the score of each slot, light to dark. The grid has no pattern but that of its margins: a good row is good in
# every column. Circles are the slots that are read, and their size is the softmax weight. They lie on crossings of the
# rust-coloured lines, always.
#
# ## Fewer candidates still: the staircase
#
# Sort the `k` best rows and columns. The pair of ranks (a, b), from 0, is beaten or equalled by every pair of ranks no
# worse than its own: `(a + 1) * (b + 1)` pairs, itself included. If these are more than `k`, it cannot be needed. What
# is left is a staircase of about `k ln k` pairs.

# %%
k = 8
ranked = [scores.topk(k) for scores in half]
sums = ranked[0].values[:, None] + ranked[1].values[None, :]
rank = torch.arange(1, k + 1)
can_win = rank[:, None] * rank[None, :] <= k
won = torch.isin(ranked[0].indices[:, None] * 24 + ranked[1].indices[None, :], slots)
assert won.sum() == k and can_win[won].all(), "every winner stands on the staircase"
print(f"{int(can_win.sum())} of {k * k} pairs can win")

figure, axis = plt.subplots(figsize=(5.4, 4.6))
shown = axis.imshow(sums.where(can_win, torch.nan), cmap="Greys")
axis.set_facecolor("#F2E3D3")
axis.scatter(*won.nonzero().T.flip(0), s=130, color=TEAL, edgecolors="white", label="the 8 best sums")
axis.set(xlabel="rank of the column's half score", ylabel="rank of the row's half score")
axis.set(title="the staircase of candidates; no pair beyond it can win", xticks=range(k), yticks=range(k))
axis.legend(loc="lower right", frameon=False)
figure.colorbar(shown, label="score of a slot")
figure.tight_layout()

# %% [markdown]
# ## Is it the layer of the library?
#
# `memlayers.layers.Memory` holds settings. `build` makes the module for a place in a model, a `Site`. With our weights
# it must give our output, our reads and our gradients; its table's gradient is sparse, too.

# %%
D_MODEL, NUM_KEYS, HEADS, TOPK, D_HALF = 32, 64, 4, 8, 8
ours = OurMemory(D_MODEL, NUM_KEYS, HEADS, TOPK, D_HALF)
settings = Memory(num_keys=NUM_KEYS, heads=HEADS, topk=TOPK, d_key=2 * D_HALF, norm="none")
theirs = settings.build(Site(D_MODEL, hidden=0, num_tokens=0, kernels=kernels.choose("auto")))
with torch.no_grad():
    theirs.lookup.to_query.weight.copy_(ours.to_query.weight)
    theirs.lookup.keys.copy_(ours.keys)
    theirs.pool.values.copy_(ours.values)

x = torch.randn(50, D_MODEL)
mine, other = ours(x), theirs(x[None])
torch.testing.assert_close(other.hidden[0], mine)
assert other.reads.slots[0].sort().values.equal(ours.look_up(x)[0].flatten(1).sort().values)

mine.square().sum().backward()
other.hidden.square().sum().backward()
torch.testing.assert_close(theirs.lookup.keys.grad, ours.keys.grad, rtol=1e-4, atol=1e-4)
torch.testing.assert_close(theirs.pool.values.grad.to_dense(), ours.values.grad.to_dense(), rtol=1e-4, atol=1e-4)
read = ours.look_up(x)[0].unique()
assert ours.values.grad.coalesce().indices()[0].equal(read), "rows that were not read have no gradient"
print(f"50 tokens read {len(read):,} of {len(ours.values):,} rows; the other rows have no gradient, not even zero")

# %% [markdown]
# ## What it costs
#
# Each layer of the library counts its own FLOPs, forward and backward, comparisons of the selection included. A dense
# block (SwiGLU) gets the width at which it costs the same.

# %%
work = Workload(sequence=1, scored=1, tokens=256)  # a batch of 256 tokens: backward sorts the reads of a batch
flops = theirs.cost(work).flops
per_unit = DenseFeedForward(D_MODEL, 1).cost(work).flops
hidden = round(flops / per_unit)
costs = {"memory": theirs.cost(work).flops, "dense": DenseFeedForward(D_MODEL, hidden).cost(work).flops}
params = {"memory": sum(p.numel() for p in ours.parameters()), "dense": hidden * 3 * D_MODEL}
for name in costs:
    print(f"{name:7} {costs[name]:8,.0f} training FLOPs a token  {params[name]:8,} parameters")
assert abs(costs["dense"] / costs["memory"] - 1) < 0.01
assert params["memory"] > 10 * params["dense"]

# %% [markdown]
# ## Who learns more facts?
#
# A table of 4,096 random facts: 64 first names by 64 last names, and for each pair one of 256 objects, drawn at random.
# Nothing about a fact can be guessed from another, so each is worth log2(256) = 8 bits. The input of the layer is the
# two name vectors side by side, as they would be after one layer of attention. Then comes a residual sum and a linear
# map to the 256 objects.
#
# Every exposure of the table is one epoch. The dense block may take the best of four learning rates.

# %%
NAMES, OBJECTS, EXPOSURES = 64, 256, 30
draw = torch.Generator().manual_seed(0)
first, last = torch.randn(2, NAMES, D_MODEL // 2, generator=draw)
subjects = torch.cat([first.repeat_interleave(NAMES, dim=0), last.repeat(NAMES, 1)], dim=1)
objects = torch.randint(OBJECTS, (len(subjects),), generator=draw)


class DenseBlock(DenseFeedForward):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).hidden


def train(layer: nn.Module, rate: float, rate_of_values: float = 0.0) -> list[float]:
    """Recall, the share of facts whose object is the layer's first choice, after each exposure."""
    torch.manual_seed(1)
    head = nn.Linear(D_MODEL, OBJECTS, bias=False)
    matrices = [parameter for name, parameter in layer.named_parameters() if name != "values"]
    optimizers = [torch.optim.Adam([*matrices, *head.parameters()], lr=rate)]
    if rate_of_values:  # the table has a rule of its own, which understands sparse gradients
        optimizers.append(torch.optim.Adagrad([layer.values], lr=rate_of_values))
    curve = []
    for _ in range(EXPOSURES):
        for batch in torch.randperm(len(subjects)).split(256):
            for optimizer in optimizers:
                optimizer.zero_grad()
            logits = head(subjects[batch] + layer(subjects[batch]))
            F.cross_entropy(logits, objects[batch]).backward()
            for optimizer in optimizers:
                optimizer.step()
        with torch.no_grad():
            said = head(subjects + layer(subjects)).argmax(dim=1)
        curve.append(float((said == objects).float().mean()))
    return curve


# %%
memory = OurMemory(D_MODEL, NUM_KEYS, HEADS, TOPK, D_HALF)
of_memory = train(memory, rate=0.003, rate_of_values=1.0)
of_dense = max(
    (train(DenseBlock(D_MODEL, hidden), rate) for rate in (0.001, 0.003, 0.01, 0.03)), key=lambda one: one[-1]
)
print(f"recall after {EXPOSURES} exposures: memory {of_memory[-1]:.3f}, dense {of_dense[-1]:.3f}")
assert of_memory[-1] > 0.99 and of_dense[-1] < 0.7

figure, axis = plt.subplots(figsize=(6.4, 3.8))
exposures = range(1, EXPOSURES + 1)
axis.plot(exposures, of_memory, color=RUST, marker=".", label=f"memory: {params['memory']:,} parameters")
axis.plot(exposures, of_dense, color=GREY, marker=".", label=f"dense: {params['dense']:,} parameters")
axis.axhline(1 / OBJECTS, color="#999999", ls="--", lw=0.8, label="guessing")
axis.set(xlabel="exposures of each fact", ylabel="recall (share of facts)", ylim=(0, 1.03), title="at equal FLOPs")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# The memory knows the table after a few exposures. The dense block rises slowly and ever more slowly, and it cannot get
# there: a parameter stores about 2 bits (Allen-Zhu & Li 2024), and the table holds more than it has room for.

# %%
print(f"the table holds {8 * len(subjects):,} bits; at 2 bits a parameter, dense has room for {2 * params['dense']:,}")
assert 8 * len(subjects) > 2 * params["dense"]

# %% [markdown]
# What this toy does *not* show:
#
# - **FLOPs are not seconds.** Gathering rows is slow in plain torch, and an optimizer has to visit them. The library
#   has faster versions in `memlayers/kernels/`, and its records hold seconds beside FLOPs.
# - **The table is not free.** It saves compute, and takes storage.
# - **Is it the learned address?** A table that is addressed by a fixed hash of the names may do as well. The library
#   has that control (`arm=ngram`), and the README says what came out.
# - The input already identifies the subject. In a language model, attention has to bring the parts of a name together
#   first. That is where [tutorial 2](2_train_ask_trace_edit.py) goes on.
#
# **Try.** Set `TOPK = 1`: what happens to the gradient of the keys, and why does it still learn? Set `HEADS = 1`. Show
# the table to a dense block until it recalls as much, if it ever does.
