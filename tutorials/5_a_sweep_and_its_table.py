# %% [markdown]
# # 5. A sweep and its table
#
# *12 minutes to read, a minute and a half to run.*
#
# **Question.** Memory recalls more than dense at equal FLOPs. *How much is that worth?* "20 points of recall" depends
# on where one looks: given enough exposures, every arm knows everything. A better unit: how many times the FLOPs would
# dense need to recall as much?
#
# For that we need curves instead of points, so we sweep. Then we turn records into means, intervals and paired
# differences by hand, find the same in the library's table, and read its figure.

# %%
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas
from IPython.display import Image
from scipy import stats

import memlayers
from memlayers.studies.frontier import curves

CHECKOUT = Path(memlayers.__file__).parents[1]
folder = Path(tempfile.mkdtemp())


def command(script: str, *words: str) -> str:
    """`python scripts/SCRIPT WORDS`, as one would type it."""
    done = subprocess.run([sys.executable, CHECKOUT / "scripts" / script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# %% [markdown]
# ## The sweep
#
# With `-m`, several values of a setting are a sweep, and several settings span a grid. The setting here is
# `training.exposures`, how often a fact is shown. Any key may stand there, such as `model.ffn.topk=4,8,16`.
#
# `dense_4x` is a dense model with four times the FLOPs per token. Dense may spend more in two ways then, by width and
# by exposures, and gets the better of both: an arm must be compared with the best that the other can do.
#
# With `hydra/launcher=joblib` the runs are spread over all cores.

# %%
sweep = [
    "-m",
    "arm=dense,dense_4x,memory",
    "training.exposures=2,4,8",
    "seed=range(3)",
    "world=atlas_airports",
    "world.num_subjects=160",
    "num_keys=96",
    "training.batch_tokens=512",
    "training.probes=1",
    "study=exposures",
    "report.frontier=true",
    "report.columns=training.exposures",
    f"results={folder}",
]
print(command("train.py", *sweep))

# %% [markdown]
# A finished run is never done twice. The same command again only looks, so it is also how one continues a study that
# was interrupted. With more seeds in it, only those are run.

# %%
began = time.perf_counter()
print(command("train.py", *sweep), f"after {time.perf_counter() - began:.0f} s")

# %% [markdown]
# ## From records to a table, by hand
#
# A row a run. The columns that were swept are under `axes.`.

# %%
frame = memlayers.records(folder)
frame = frame.rename(columns={"axes.training.exposures": "exposures"})
assert len(frame) == 3 * 3 * 3 and (frame["status"] == "ok").all()
frame[["arm", "exposures", "seed", "recall", "training_flops", "params", "seconds"]].head()

# %% [markdown]
# **The mean** over seeds, with a 95% interval: Student's t, as there are only three seeds. The interval is about the
# mean over all seeds that one might have drawn.


# %%
def interval(values: pandas.Series) -> tuple[float, float, float]:
    """Mean, and the ends of its 95% t interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / math.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def told(values: pandas.Series) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval(values))


frame.groupby(["arm", "exposures"])["recall"].apply(told).unstack()

# %% [markdown]
# **The paired difference.** On one seed, both arms see the same facts in the same order. A seed that is hard for one is
# often hard for the other, so one takes the difference within each seed first, and the interval of these.

# %%
by_seed = frame.pivot(index=["exposures", "seed"], columns="arm", values="recall")
difference = (by_seed["memory"] - by_seed["dense"]).groupby("exposures")
difference.apply(told)

# %%
for exposures, values in difference:
    mean, low, high = interval(values)
    print(f"{exposures} exposures: memory recalls {mean:+.3f} more than dense, interval {low:+.3f} to {high:+.3f}")
    assert mean > 0
assert low > 0  # with 8 exposures

# %% [markdown]
# Where an interval is wide, three seeds are too few to say more. `seed=range(5)` in the command above trains the two
# that are missing, and nothing else.

# %% [markdown]
# ## The same from the library
#
# `scripts/report.py` prints the table and a verdict. With `--out` it also writes table (Markdown, CSV, Parquet) and
# figure.

# %%
study = folder / "exposures"
print(command("report.py", str(study), "--out", str(folder / "out")))

# %%
library = pandas.read_csv(folder / "out" / "table.csv")
cell = library[(library["arm"] == "memory") & (library["training.exposures"] == 4)].iloc[0]
ours = frame[(frame["arm"] == "memory") & (frame["exposures"] == 4)]["recall"]
for name, mine in zip(("recall", "recall_low", "recall_high"), interval(ours), strict=True):
    assert math.isclose(cell[name], mine, abs_tol=1e-5), name
own = by_seed.loc[4]
assert math.isclose(cell["difference"], (own["memory"] - own["dense"]).mean(), abs_tol=1e-5)
print("mean, interval and paired difference are those that we computed")

# %% [markdown]
# ## What a recall is worth
#
# Left: every configuration is a point at its training FLOPs, and a line joins each arm's best ones, its *front*. Right:
# at each recall, how far the fronts are apart, as a multiple of FLOPs. A band is a 95% interval over seeds, paired.

# %%
Image(folder / "out" / "figure.png", width=900)

# %%
multiples = pandas.DataFrame(curves(frame, "training_flops", "dense")["memory"]).set_index("recall")
multiples.round(2)

# %% [markdown]
# Read a row as: for this recall, dense needs `times` the training FLOPs of memory, in its best mix of width and
# exposures. `at_least` marks levels that no dense run reached; there, the multiple is a lower bound.

# %%
level = multiples.index[len(multiples) // 2]
row = multiples.loc[level]
print(
    f"for a recall of {level}, dense needs {'at least ' if row['at_least'] else ''}{row['times']:.1f} times the FLOPs"
)
assert row["times"] > 1.2 and (multiples["times"] > 1).all()

# %% [markdown]
# Three things to keep in mind when you read such a figure, also in papers:
#
# - **The front needs room on both sides.** Levels below the cheapest run or above the best one say nothing, and nothing
#   is extrapolated. More exposures or widths make it longer.
# - **The rival must be at its best.** A dense model that is only made wider, or only trained longer, or with a rate
#   that was tuned for memory, needs more FLOPs than it has to.
# - **FLOPs are one cost.** `curves(frame, "seconds", "dense")` asks for the same in seconds, `"params"` in storage,
#   where memory loses.
#
# **A study of yours** is this command in a YAML: see `conf/experiment/frontier.yaml`, which is behind the figure in the
# README.
#
# **Try.** Add `ngram` to the sweep: it costs the runs of one arm, as all others are there already. How much of memory's
# multiple does a table without a learned address have? That is the question of the README.
