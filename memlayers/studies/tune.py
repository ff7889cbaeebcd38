"""Tuning with equal effort: finished searches, from their journal to results/tune/ and conf/rates/ and back."""

import json
import shlex
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from memlayers.studies.rates import read_table
from memlayers.studies.search import SEEDS, Search, storage_in
from memlayers.studies.space import Space, ranges, read

HEAD = """# Settings of each arm at each budget that was searched, as words of a command; recall on three tuning seeds.
# Written by `python scripts/tune.py --commit` from the trials in results/tune/.
"""


def commit(folder: Path, results: Path, rates: Path) -> tuple[list[Path], list[str]]:
    """Write the finished searches of a folder: trials to results/WORLD.jsonl, as sorted lines, and the best of each arm
    and budget to rates/WORLD.yaml, in place of what is there. A world that had the settings of another one gets files
    of its own; rates.world=WORLD chooses them. Returns the written files, and the searches that were left out, as they
    were asked for fewer trials than others in their world, or are not finished. Raises ValueError for a folder without
    searches.
    """
    names = optuna.get_all_study_names(storage_in(folder)) if folder.is_dir() else []
    begun = [Search(shlex.split(name), folder) for name in names]
    searches = [search for search in begun if search.trials()]
    if not searches:
        raise ValueError(f"{folder}: no search there; accepted: after python scripts/tune.py arm=memory")
    written, left_out = [], []
    for world in sorted({search.config.world.name for search in searches}):
        ours = [search for search in searches if search.config.world.name == world]
        most = max(search.asked for search in ours)
        finished = [search for search in ours if search.asked == most and search.is_finished()]
        left_out += [shlex.join(search.words) for search in ours if search not in finished]
        if not finished:
            continue
        taken = {shlex.join(search.words) for search in finished}
        kept = [line for line in committed(results, world) if line["search"] not in taken]
        lines = {json.dumps(line, sort_keys=True) for line in kept + [line for s in finished for line in lines_of(s)]}
        results.mkdir(parents=True, exist_ok=True)
        path = results / f"{world}.jsonl"
        path.write_text("\n".join(sorted(lines)) + "\n")
        target = rates / f"{world}.yaml"
        table = read_table(target) if target.is_file() else {}
        for search in finished:
            entry, arm = entry_of(search), str(search.config.rates.arm)
            searched = [other for other in table.get(arm, []) if "recall" in other]  # drops entries set by hand
            others = [other for other in searched if other["budget"] != entry["budget"]]
            table[arm] = sorted([*others, entry], key=lambda line: sorted(line["budget"].items()))
        target.write_text(HEAD + OmegaConf.to_yaml(dict(sorted(table.items()))))
        written += [path, target]
    return written, left_out


def entry_of(search: Search) -> dict[str, Any]:
    """The entry of the best trial for conf/rates/."""
    best = search.best()
    return {
        "budget": {"times": search.config.match.times, "exposures": search.config.training.exposures},
        "recall": round(search.mean(best), 4),
        "words": best.user_attrs["words"],
    }


def lines_of(search: Search) -> list[dict[str, Any]]:
    """All trials, as lines of results/tune/WORLD.jsonl."""
    return [
        {
            "search": shlex.join(search.words),
            "trial": trial.number,
            "words": trial.user_attrs["words"],
            "code": trial.user_attrs.get("code"),
            "recall": {str(SEEDS[0]): trial.value} | search.again(trial),
        }
        | ({"wider": wider} if (wider := wider_of(trial, search.space)) else {})
        for trial in search.trials()
    ]


def wider_of(trial: FrozenTrial, space: Space) -> dict[str, list[float]]:
    """The ends of those ranges of a trial that are not those of the space, by parameter name."""
    first = {name: (float(entry["low"]), float(entry["high"])) for name, entry in ranges(space).items()}
    drawn = {
        name: (kind.low, kind.high) for name, kind in trial.distributions.items() if isinstance(kind, FloatDistribution)
    }
    return {name: list(ends) for name, ends in drawn.items() if name in first and ends != first[name]}


def committed(results: Path, world: str) -> list[dict[str, Any]]:
    """The committed trials of a world."""
    path = results / f"{world}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def resume(search: Search, results: Path) -> int:
    """Give a search those committed trials that it lacks; returns how many. Raises ValueError if none is committed."""
    name = shlex.join(search.words)
    lines = [line for line in committed(results, search.config.world.name) if line["search"] == name]
    if not lines:
        raise ValueError(
            f"--resume: no trials of {name} in results/tune/; accepted: a search that is there, such as arm=memory "
            "world=biographies training.exposures=4"
        )
    there = {tuple(trial.user_attrs["words"]): trial for trial in search.trials()}
    lacking = [line for line in sorted(lines, key=lambda line: line["trial"]) if tuple(line["words"]) not in there]
    for line in lacking:
        parameters, kinds = read(line["words"], search.space, line.get("wider", {}))
        attributes = {"words": line["words"], "code": line.get("code")}
        value = line["recall"][str(SEEDS[0])]
        search.study.add_trial(create_trial(params=parameters, distributions=kinds, value=value, user_attrs=attributes))
    there = {tuple(trial.user_attrs["words"]): trial for trial in search.trials()}
    for line in lines:  # also of trials that were there: an interrupted call may have left them out
        for seed in SEEDS[1:]:
            if str(seed) in line["recall"]:
                search.store(there[tuple(line["words"])], seed, line["recall"][str(seed)])
    return len(lacking)
