# %% [markdown]
# # 2. Train, ask, trace, edit
#
# *12 minutes to read, a minute to run.*
#
# **Question.** A small transformer has one memory layer and learns 3,500 facts about airports. Where in the memory is
# one fact? Can it be taken out, or replaced, without harm to the others?
#
# We train the model, watch its recall rise, ask it, look up which slots a question reads, empty them, and write another
# answer into them.

# %%
import tempfile

import matplotlib.pyplot as plt
import pandas

import memlayers
from memlayers import tracing
from memlayers.facts.world import known_facts
from memlayers.recall.ask import ask
from memlayers.recall.usage import read_weights
from memlayers.studies.figure import GREY, PALETTE
from memlayers.studies.trace_figure import figure_of
from memlayers.trained import Trained

RUST = PALETTE[0]
folder = tempfile.mkdtemp()  # where runs leave their records; the usual place is results/local

# %% [markdown]
# ## Train
#
# `memlayers.run` takes the words of the command line, as in `python scripts/train.py arm=memory num_keys=128`, and
# returns the record of the run. `save_model=True` keeps the trained model beside the record.
#
# The world is a part of `atlas_airports`: 500 real airports and seven relations. A document is one fact, such as
# `JF FK [country] country:US`. The code is spelt in overlapping pairs of letters, which airports share, so that facts
# cannot hide in rows of the token embedding: not but for a few codes, which the world's notes count.

# %%
record = memlayers.run(
    "world.num_subjects=500",
    "training.exposures=32",  # each fact is shown 32 times on average
    "training.batch_tokens=512",
    arm="memory",
    world="atlas_airports",
    num_keys=128,  # 128 * 128 slots
    save_model=True,
    results=folder,
)
recall = record["recall"]
print(f"{recall['num_facts']:,} facts, recall {recall['exact']:.3f}")
assert recall["exact"] > 0.98

# %% [markdown]
# *Recall* is the share of facts whose whole object the model decodes without a mistake: all four letters of `K J F K`,
# not only the first. It was measured on the way, too.

# %%
curve = pandas.DataFrame(record["training"]["curve"])

figure, axis = plt.subplots(figsize=(6.4, 3.8))
axis.plot(curve["exposures"], curve["recall"], color=RUST, marker="o", ms=4, label="memory")
axis.axhline(recall["floor"], color="#999999", ls="--", lw=0.8, label="always the commonest object")
axis.set(xlabel="exposures of each fact (mean)", ylabel="recall (share of facts)", ylim=(0, 1.03))
axis.set(title="a few exposures are enough for most facts")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, loc="center right")
figure.tight_layout()

half = curve[curve["exposures"] <= record["training"]["exposures"] / 2]
assert curve["recall"].iloc[0] < 0.8 and half["recall"].iloc[-1] > 0.9

# %% [markdown]
# ## Ask
#
# `memlayers.load` gives the model back, with the world that it learnt. Probabilities are those of whole objects.

# %%
model = memlayers.load(record["path"])
for relation in model.text.world.relations:
    reply = model.ask("JFK", relation, top=3)
    print(f"JFK, {relation:12} {reply!s:60} truth: {reply.truth}")
assert model.ask("JFK", "country").objects[0] == "US"

# %% [markdown]
# A name that the world does not have is refused in one line, as every mistake is.

# %%
try:
    model.ask("JFX", "country")
except ValueError as error:
    print(error)
else:
    raise AssertionError("a stranger was answered")

# %% [markdown]
# ## Which slots does a question read?
#
# The answer is predicted at the last token of the question, `[country]`. There each of four heads reads its eight best
# slots. `trace` lists them, the heaviest first, with the number of other facts that read the same slot.

# %%
reads = tracing.trace(model, "JFK", "country")
table = pandas.DataFrame(reads)[["slot", "heads", "weight", "readers", "known_to"]]
table.head(8)

# %%
print(f"{len(reads)} slots are read")
assert len(reads) <= 4 * 8 and abs(sum(one.weight for one in reads) - 4) < 1e-3, "the weights of each head add up to 1"
shared = table["readers"].median()
print(f"half of them are read by more than {shared:.0f} other facts, too")

# %% [markdown]
# No slot belongs to one fact. What belongs to it is the *set* of slots. Here they are among all 16,384, on a background
# that says how much all facts together read each slot: dark is more.

# %%
figure_of(model, reads, "JFK, country")

# %% [markdown]
# The stripes come from product keys: a row key that many queries like makes its whole row popular. Still nearly all
# slots are used, and none is used by everyone, though nothing in the loss asks for that.

# %%
facts = known_facts(model.text.world)
usage = read_weights(model.model, model.text, facts)["0.ffn"].sort(descending=True).values
used = float((usage > 0).double().mean())
print(f"{used:.1%} of the slots are read by some question; the busiest 1% get {usage[:164].sum() / usage.sum():.1%}")
assert used > 0.8

figure, axis = plt.subplots(figsize=(6.4, 3.4))
axis.plot(range(1, len(usage) + 1), usage, color=RUST)
axis.axhline(usage.mean(), color="#999999", ls="--", lw=0.8, label="if all were read alike")
axis.set(xscale="log", xlabel="slots, the busiest first", ylabel="weight of all reads")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## Forget one fact
#
# `forget` sets the values of these slots to zero. Other facts read some of them as well. Do they survive? We look first
# at the neighbours: for each of the heaviest slots, the facts that read it most.

# %%
fact = model.fact("JFK", "country")  # rows of the subject and of the relation
changed = tracing.copied(model)  # we change a copy
emptied = tracing.forget(changed, fact)


def of_truth(which: Trained, subject: str, relation: str) -> float:
    """The probability of the right answer."""
    reply = which.ask(subject, relation, top=10**6)
    return dict(zip(reply.objects, reply.probabilities, strict=True))[reply.truth]


neighbours = list(dict.fromkeys(name for one in reads[:5] for name in one.known_to))[:10]
questions = [("JFK", "country"), ("JFK", "time_zone"), ("JFK", "icao"), *(tuple(name.split()) for name in neighbours)]
before, after = ([of_truth(which, *question) for question in questions] for which in (model, changed))

figure, axis = plt.subplots(figsize=(6.4, 4.6))
place = range(len(questions))
axis.hlines(place, before, after, color="#C9CED6", lw=3, zorder=1)
axis.scatter(before, place, s=110, facecolors="none", edgecolors=GREY, label="before", zorder=2)
axis.scatter(after, place, s=28, color=RUST, label=f"with {emptied} slots emptied", zorder=3)
axis.set_yticks(place, [f"{subject}, {relation}" for subject, relation in questions])
axis.invert_yaxis()
axis.set(xlabel="probability of the right answer", xlim=(-0.03, 1.03), title="one fact is gone, its neighbours are not")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, loc="lower left")
figure.tight_layout()

# %%
right = ask(model.model, model.text, facts, "training").exact  # of each fact, whether the model knows it
gone, lost = tracing.collateral(right, changed, facts, fact)
print(f"JFK, country: {changed.ask('JFK', 'country', top=3)}")
print(f"of the other {int(right.sum()) - 1:,} facts that the model knew, {lost:.2%} are lost")
assert gone and lost < 0.01


def slots(subject: str, relation: str) -> set[int]:
    return set(tracing.slots_of(model, model.fact(subject, relation))["0.ffn"].slots.tolist())


common = [len(slots(*question) & slots("JFK", "country")) for question in questions[3:]]
print(f"of its 32 slots, a neighbour lost {min(common)} to {max(common)}")
assert max(common) < 16

# %% [markdown]
# The fact is gone, though each of its slots serves others, too. A neighbour loses few of its slots and has the rest:
# what is stored is spread over all of them.
#
# ## Edit one fact
#
# `write` takes gradient steps on the values that the question reads, and on nothing else, until it is answered in
# another way. Let us move JFK to France.

# %%
edited = tracing.copied(model)
france = model.objects[fact[1]].index("FR")
probability = tracing.write(edited, fact, france)
_, lost = tracing.collateral(right, edited, facts, fact)
print(f"JFK, country:   {edited.ask('JFK', 'country', top=3)}")
print(f"JFK, time_zone: {edited.ask('JFK', 'time_zone', top=3)}")
print(f"of the other facts, {lost:.2%} are lost")
assert probability > 0.5 and edited.ask("JFK", "country").objects[0] == "FR"

# %% [markdown]
# The time zone is still America/New_York. The model holds rows of a table, not a picture of the world: an edit changes
# one of them and draws no conclusion.
#
# ## Was that luck?
#
# One fact is an anecdote. `measured` forgets and edits many, each from the same start.

# %%
found = tracing.measured(model, count=20)
pandas.Series(found)

# %%
assert found["forgotten"] > 0.8 and found["lost_by_forgetting"] < 0.01
print(f"forgetting: works for {found['forgotten']:.0%}, and costs {found['lost_by_forgetting']:.3%} of the other facts")
print(f"editing:    works for {found['edited']:.0%}, and costs {found['lost_by_editing']:.3%} of the other facts")

# %% [markdown]
# Forgetting is nearly free. Editing may cost more, because pushing a few shared rows far enough moves whoever reads
# them. `python scripts/trace.py RUN --measure 200` does the same for a model of yours; LOG.md has numbers for the
# default world over several seeds.
#
# **Try.** Train for half as many exposures: recall hardly falls, but what happens to the share that edits cost? Take
# `arm="ngram"`, a table with hashed addresses: what does forgetting cost there?
#
# Next: [your own facts](3_your_own_facts.py).
