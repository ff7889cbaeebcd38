"""The figure of every way to recall more, memory layers among them: what each costs to train, to ask, and to store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from memlayers.studies.figure import GREY, colour_of, saved
from memlayers.studies.frame import framed, read_all
from memlayers.studies.frontier import complete, has_main_size
from memlayers.studies.table import estimate

COSTS = {  # the panels
    "training_flops_with_teacher": "training FLOPs, a teacher's included",
    "asking": "FLOPs of a question",
    "bytes": "bytes stored",
}
APART = 0.012  # of a cost, between one way and the next
READ = {"biographies": "recall", "biographies_prose": "held_out"}  # the worlds, and which recall


@dataclass(frozen=True)
class Way:
    """Runs of some studies, by a condition on settings, as pandas' query understands it: one colour and marker."""

    name: str
    studies: tuple[str, ...]
    where: str
    colour: str
    marker: str = "o"


EMPTY = pandas.DataFrame(columns=["context", "world", "question_tokens"])
MAIN, TAUGHT = ("frontier", "language"), ("beyond_distillation", "beyond_distillation_prose")
EACH = {  # of dense and of memory: which studies and runs, and their marker
    "facts shown more often": (MAIN, "", "o"),
    "taught by a teacher": (TAUGHT, " and taught", "x"),
    "told in fewer wordings": (("beyond_curation_prose",), " and document == 'subject'", "^"),
    "told one fact a document": (("beyond_curation_prose",), " and document == 'fact'", "*"),
    "asked in more wordings, which vote": (("beyond_test_time",), " and asked > 1", "D"),
    "blocks passed several times": (("beyond_loops",), " and loops > 1", "h"),
    "with a retrieved document": (("beyond_grounding",), " and searched", "P"),
}
ROUNDED = ("beyond_quantization",)
RUST, GOLD = (str(colour_of(arm)) for arm in ("memory", "ngram"))
WAYS = (
    *(Way(f"dense, {name}", of, f"arm == 'dense'{where}", GREY, how) for name, (of, where, how) in EACH.items()),
    Way("dense, made wider or deeper", MAIN, "arm.str.startswith('dense_')", GREY, "s"),
    Way("dense, rounded to fewer bits", ROUNDED, "arm == 'dense' and weights != 'float32'", GREY, "v"),
    *(Way(f"memory, {name}", of, f"arm == 'memory'{where}", RUST, how) for name, (of, where, how) in EACH.items()),
    Way("memory, table rounded to fewer bits", ROUNDED, "arm == 'memory' and tables != 'float32'", RUST, "v"),
    Way("table of hashed n-grams, shown more often", MAIN, "arm == 'ngram'", GOLD),
)


NAMES = [way.name for way in WAYS]
SECTION = """## beyond

What does each way to recall more cost in training, for a question, and in storage? Every point is one configuration of
`frontier`, of `language` (larger or longer trained dense models) or of a `beyond_` study that measures the same recall.
FLOPs of a question count all its tokens: documents in front of it, and all its wordings. They are counted at the
cost of a token in training, which is somewhat too high, as the output head then runs on more tokens. A search counts as
none. Points off the lines are moved along the axis by up to 11%, so that ways of one cost do not hide each other.

![beyond](results/beyond/figure.png)"""


def draw_ways(results: Path, path: Path) -> list[Path]:
    """path.png and path.svg, a row a world: recall with 95% intervals against each of COSTS; none without records."""
    points = points_of_ways(results)
    if points.empty:
        return []

    def panels() -> Figure:
        worlds = [world for world in READ if world in set(points["world"])]
        figure = Figure(figsize=(11, 0.8 + 3.0 * len(worlds)), layout="constrained")
        grid = figure.subplots(len(worlds), len(COSTS), squeeze=False, sharey="row")
        for world, row in zip(worlds, grid, strict=True):
            for panel, cost in zip(row, COSTS, strict=True):
                against(panel, points[points["world"] == world], cost)
                panel.set_xlabel(COSTS[cost])
            row[0].set_ylabel(READ[world].replace("_", " "))
            row[0].set_title(world, loc="left", fontsize=9)
        shown = [entry for panel in grid[:, 0] for entry in zip(*panel.get_legend_handles_labels(), strict=True)]
        named = {name: line for line, name in sorted(shown, key=lambda entry: NAMES.index(entry[1]))}
        figure.legend(named.values(), named, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
        return figure

    return saved(panels, path)


def points_of_ways(results: Path) -> pandas.DataFrame:
    """A row a way and configuration: way, world, n, recall with recall_low and recall_high, and the means of COSTS."""
    studies = dict.fromkeys(study for way in WAYS for study in way.studies)
    frames = {study: prepared(results / study) for study in studies if any((results / study).glob("*.jsonl"))}
    lengths = pandas.concat([frame.query("context == 'none'") for frame in frames.values()] or [EMPTY])
    plain = lengths.groupby("world")["question_tokens"].median()
    rows = []
    for way in WAYS:
        for study in way.studies:
            own = frames[study].query(way.where) if study in frames else EMPTY
            own = own if "asked" in way.where or own.empty else own[own["asked"] == 1]
            for (world, _, asked), runs in own.groupby(["world", "digest", "asked"]) if len(own) else ():
                tokens = runs["question_tokens"].fillna(plain.get(world))
                means = {cost: runs[cost].mean() for cost in COSTS if cost in runs}
                means["asking"] = (runs["cost.forward"] * tokens * asked).mean()
                found = estimate("recall", runs[READ[world]])
                rows.append({"way": way.name, "world": world, "n": len(runs)} | found | means)
    return pandas.DataFrame(rows)


def prepared(folder: Path) -> pandas.DataFrame:
    """Runs of the worlds of READ that ended well, with the world's own table size, and what WAYS ask for.

    asked: wordings of a question. A run that was asked in several has a row for each number of them.
    """
    frame = framed(list(read_all(folder)))
    frame = frame[(frame["status"] == "ok") & frame["world"].isin(list(READ))]
    frame = complete(frame[has_main_size(frame)])
    names = frame.get("config.world.name_parts", pandas.Series("own", index=frame.index)).astype(str)
    usual = names.groupby(frame["world"]).transform(lambda own: own.mode().iloc[0])
    frame = frame[names == usual]  # of a study that varies names, those that most runs of a world have

    def column(name: str, default: object) -> pandas.Series:
        return frame.get(name, pandas.Series(default, index=frame.index)).fillna(default)

    made = frame.assign(
        weights=column("config.quantize.weights", "float32"),
        tables=column("config.quantize.tables", "float32"),
        context=column("config.world.context.source", "none"),
        document=column("config.world.document", "fact"),
        loops=column("config.model.loops", 1),
        taught=frame["training_flops_with_teacher"] > frame["training_flops"],
        bytes=frame["table_bytes"] + frame["weight_bytes"] + column("store_bytes", 0.0),
        asked=1,
    )
    made["searched"] = made["context"] == "retrieved"
    votes = [name for name in made if name.startswith("votes_") and made[name].notna().any() and name != "votes_1"]
    voted = [made.assign(asked=int(name.removeprefix("votes_")), held_out=made[name]) for name in votes]
    return pandas.concat([made, *voted])


def against(panel: Axes, points: pandas.DataFrame, cost: str) -> None:
    """Recall against a cost. Ways at one cost stand APART of it from each other; else they would hide each other."""
    there = [way for way in WAYS if way.name in set(points["way"])]
    for place, way in enumerate(there):
        own = points[points["way"] == way.name].sort_values(cost)
        spread = [(own["recall"] - own["recall_low"]).fillna(0), (own["recall_high"] - own["recall"]).fillna(0)]
        joined = "shown more often" in way.name and cost == "training_flops_with_teacher"
        look: dict[str, Any] = {"fmt": way.marker + "-" * joined, "ms": 4.5, "lw": 1, "elinewidth": 0.8, "mfc": "white"}
        aside = own[cost] * (1.0 if joined else (1 + APART) ** (place - len(there) / 2))
        _, _, bars = panel.errorbar(aside, own["recall"], spread, color=way.colour, label=way.name, **look)
        for bar in bars:
            bar.set_alpha(0.25)
    panel.set(xscale="log", ylim=(0, 1.04))
    panel.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    panel.xaxis.set_major_formatter(EngFormatter(sep=" "))
    panel.xaxis.set_minor_formatter(NullFormatter())
