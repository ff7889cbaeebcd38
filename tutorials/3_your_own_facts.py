# %% [markdown]
# # 3. Your own facts
#
# *10 minutes to read, half a minute to run.*
#
# **Question.** You have a table of your own: who sits in which room, which drug acts on what, which part fits which
# machine. What does the library make of it, what does a model learn of it, and does the model know what it does *not*
# know?

# %%
import csv
import random
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas
import torch

import memlayers
from memlayers.config import TriplesConfig
from memlayers.facts.world import PAD
from memlayers.studies.figure import GREY, PALETTE
from memlayers.text import text_of
from memlayers.trained import Trained

RUST, TEAL = PALETTE[:2]
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A file of facts
#
# A fact is a row: subject, relation, object. CSV, TSV, JSONL, Parquet and Excel are read. A column `weight` is
# optional; it says how often a fact is shown beside the others.
#
# Ours is the staff of an invented company: 400 people and four relations, drawn at random. As in real files, a few rows
# are not as they should be.

# %%
FIRST = "Ada Boris Chen Dalia Emeka Freya Goran Hana Ines Jonas Kofi Lena Marta Nils Oya Pavel Quinn Rosa Samir Tova"
LAST = "Abbott Brandt Castro Dubois Eriksen Fofana Garcia Haddad Ivanov Jansen Kimura Larsen Moreau Novak Okafor Petrov"
LAST += " Quispe Rossi Santos Tanaka Umar Vargas Weber Xu Yilmaz Zeman"
draw = random.Random(0)
people = draw.sample([f"{first} {last}" for first in FIRST.split() for last in LAST.split()], 400)
rows = []
for person in people:
    rows.append((person, "city", draw.choice(["Lagos", "Lagos", "Lagos", "Oslo", "Lima", "Kyoto"])))
    rows.append((person, "room", f"{draw.choice('ABCDE')} {draw.randrange(100, 160)}"))
    rows.append((person, "team", f"team-{draw.randrange(40)}"))
    rows.append((person, "mentor", draw.choice(people)))
rows.append(rows[0])  # once more
rows.append((people[1], "city", ""))  # nothing
rows.append((people[2], "team", "team-99"))  # something else than above
path = folder / "staff.csv"
with path.open("w", newline="") as file:
    csv.writer(file).writerows([("subject", "relation", "object"), *rows])
print(path.read_text()[:160])

# %% [markdown]
# ## What the library makes of it
#
# Nothing is trained yet. `python scripts/show_world.py world=triples world.path=staff.csv` prints the same.

# %%
text = text_of(TriplesConfig(name="staff", path=str(path)))
world = text.world
for note in world.notes:
    print("note:", note)
assert world.num_facts == 4 * 400
assert any("repeated" in note for note in world.notes) and any("empty cell" in note for note in world.notes)
assert any("several objects" in note for note in world.notes)

# %% [markdown]
# Whatever was dropped, merged or decided is told, and it stands in the record of every run. Read the notes before you
# train: they are where a column in the wrong place shows.

# %%
statistics = pandas.DataFrame(world.statistics()).set_index("name")
statistics

# %% [markdown]
# `entropy` is how many bits a fact of this relation is worth to someone who knows how often each object occurs, but no
# subject. `majority` is the recall of someone who always gives the commonest object. `city` has four objects, and half
# of the people are in Lagos: fewer bits than log2(4) = 2, and a high floor. A `mentor` is one of 400 people.

# %%
assert statistics.loc["city", "entropy"] < 2 < statistics.loc["mentor", "entropy"]
assert statistics.loc["city", "majority"] > 0.4
print(f"{sum(one.num_facts * one.entropy for one in world.statistics()):,.0f} bits in all facts")

# %% [markdown]
# A training document is one fact in tokens. Answers, which alone are learnt, stand between asterisks.

# %%
documents = text.sample(4, torch.Generator().manual_seed(0))
for tokens, answers in zip(documents.tokens, documents.answers, strict=True):
    words = [(text.vocabulary[token], answer) for token, answer in zip(tokens, answers, strict=True) if token != PAD]
    print("  ".join(f"*{word}*" if answer else word for word, answer in words))

# %% [markdown]
# ### Spelling
#
# A person is two tokens, and each of them belongs to several people. That matters. If a subject had a token of its own,
# its facts could hide in that token's embedding, which every model has, and a memory layer would have nothing to do.
# With names of one word, the notes warn of that; letters are the way out.

# %%
elements = folder / "elements.csv"
elements.write_text("subject,relation,object\nHelium,state,gas\nCopper,state,solid\nBromine,state,liquid\n")
for spelling in ("words", "letters"):
    small = text_of(TriplesConfig(name="elements", path=str(elements), spelling=spelling)).world
    print(f"{spelling:8} Helium = {' '.join(small.vocabulary[token] for token in small.subjects[0] if token != PAD)}")
    print(f"{'':8} {'; '.join(small.notes)}")
    warned = any("every subject is one word" in note for note in small.notes)
    assert warned == (spelling == "words")

# %% [markdown]
# ## Train
#
# Memory and dense, at equal FLOPs. Settings that were tuned for `atlas_readings` are taken, as nobody has tuned for
# your facts. For a comparison that counts, tune both sides: `scripts/tune.py`.

# %%
runs = {
    arm: memlayers.run(
        f"world.path={path}",
        "training.exposures=24",
        "training.batch_tokens=512",
        world="triples",
        arm=arm,
        num_keys=96,
        save_model=True,
        results=folder / "results",
        progress="none",
    )
    for arm in ("dense", "memory")
}
by_relation = pandas.DataFrame({arm: record["recall"]["by_relation"] for arm, record in runs.items()})
by_relation["always the commonest"] = statistics["majority"]
by_relation.round(3)

# %%
recall = {arm: record["recall"]["exact"] for arm, record in runs.items()}
flops = {arm: record["cost"]["flops_per_token"] for arm, record in runs.items()}
print(f"recall: memory {recall['memory']:.3f}, dense {recall['dense']:.3f}, at {flops['memory']:,.0f} FLOPs a token")
assert recall["memory"] > 0.95 and recall["dense"] < recall["memory"] - 0.1
assert abs(flops["dense"] / flops["memory"] - 1) < 0.01

# %% [markdown]
# ## Ask
#
# On the command line, `python scripts/ask.py RUN` is a prompt for the same.

# %%
models = {arm: memlayers.load(record["path"]) for arm, record in runs.items()}
person = people[0]
for relation in world.relations:
    reply = models["memory"].ask(person, relation, top=2)
    print(f"{person}, {relation:7} {reply!s:45} truth: {reply.truth}")

# %% [markdown]
# ## Strangers
#
# The library also makes names that are *not* in the file, from parts of names that are: a known first name with a known
# last name. To the model they look like anybody. It was never told anything about them, so every answer is made up.

# %%
names = list(models["memory"].subjects)
strangers = names[len(people) :]
print(f"{len(strangers)} strangers, such as {', '.join(strangers[:3])}")
reply = models["memory"].ask(strangers[0], "room", top=3)
print(f"{strangers[0]}, room: {reply}   truth: {reply.truth}")
assert reply.truth is None and not set(strangers) & set(people)

# %% [markdown]
# It says something. A good sign would be that it says so with less *confidence*, which is the probability of its first
# answer. We ask about 100 people and 100 strangers.


# %%
def confidence(model: Trained, names: list[str]) -> torch.Tensor:
    """Of the first answer to every relation of these names."""
    return torch.tensor(
        [model.ask(name, relation, 1).probabilities[0] for name in names for relation in world.relations]
    )


known, unknown = random.Random(1).sample(people, 100), random.Random(1).sample(strangers, 100)
scores = {arm: (confidence(model, known), confidence(model, unknown)) for arm, model in models.items()}

figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
for axis, (arm, (of_known, of_unknown)) in zip(axes, scores.items(), strict=True):
    bins = torch.linspace(0, 1, 21).tolist()
    axis.hist(of_known.tolist(), bins, color=TEAL, alpha=0.75, label="people in the file")
    axis.hist(of_unknown.tolist(), bins, color=RUST, alpha=0.75, label="strangers")
    axis.set(title=arm, xlabel="probability of the first answer", ylabel="questions")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## One number for it: AUROC
#
# Take one known and one unknown subject at random. How often is the model more confident about the known one? That is
# the AUROC: 1.0 where confidence separates them without error, 0.5 where it is a coin. It needs no threshold. It is the
# area under the curve that all thresholds draw: which share of the known is let through, against which share of the
# strangers.


# %%
def auroc(of_known: torch.Tensor, of_unknown: torch.Tensor) -> float:
    """By counting pairs; ties are half."""
    difference = of_known[:, None] - of_unknown[None, :]
    return float(((difference > 0).float() + (difference == 0).float() / 2).mean())


figure, axis = plt.subplots(figsize=(4.8, 4.4))
for (arm, pair), colour in zip(scores.items(), (GREY, RUST), strict=True):
    thresholds = torch.linspace(0, 1, 501)
    let_through = [(one[:, None] >= thresholds).float().mean(dim=0) for one in pair]
    axis.plot(let_through[1], let_through[0], color=colour, label=f"{arm}: AUROC {auroc(*pair):.2f}")
axis.plot([0, 1], [0, 1], color="#999999", ls="--", lw=0.8, label="a coin: 0.50")
axis.set(xlabel="share of strangers let through", ylabel="share of the known let through", xlim=(0, 1), ylim=(0, 1.02))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
figure.tight_layout()

# %%
for arm, record in runs.items():
    of_record = record["recall"]["unknown"]
    print(f"{arm:7} AUROC {auroc(*scores[arm]):.3f} here, {of_record['auroc']:.3f} in the record;", end=" ")
    print(f"right, with 5% of the strangers let through: {of_record['recall_at_5']:.3f}")
    assert abs(auroc(*scores[arm]) - of_record["auroc"]) < 0.06
assert auroc(*scores["memory"]) > 0.9 > auroc(*scores["dense"])

# %% [markdown]
# `recall_at_5` is what a user of the model would feel: put the bar where 5% of the questions about strangers get an
# answer. Which share of all facts is then answered, and answered right?
#
# **What this does not say.** A high AUROC here is about strangers with familiar names in a world that is all there is.
# It does not say that a large model with memory layers makes up less.
#
# **Try.** Give some people `weight` 10: who is learnt last? Write the objects of `team` so that the last name decides
# them: which arm gains? Take `world.spelling=letters`.
#
# Next: [an arm of your own](4_your_own_arm.py).
