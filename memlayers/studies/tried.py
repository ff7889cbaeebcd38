"""Records of one setting at a time away from the defaults (experiment=tried, kept) -> tables for LOG.md."""

import statistics
from collections import defaultdict
from typing import Any

from memlayers.config.run import flatten
from memlayers.studies.old_studies import Studies, by_settings, grid
from memlayers.studies.table import estimate, rows
from memlayers.training.record import Record

NOTHING = "nothing"  # studies tried_nothing and kept_nothing: the defaults


def tried_tables(studies: Studies, name: str) -> str:
    """Of the studies NAME_..., for each world: recall of each arm under each change, and its gain over the defaults.

    What was changed is read off the records' configurations; a change by patch of the code shows none.
    """
    worlds: dict[str, dict[str, list[Record]]] = defaultdict(dict)
    for world, settings in by_settings(studies, name).items():
        for words, records in settings.items():
            worlds[world]["_".join(words)] = records
    parts = []
    for world, found in worlds.items():
        base = by_arm(found.pop(NOTHING, []))
        arms = sorted({record["arm"] for records in found.values() for record in records} | base.keys())
        lines = {NOTHING: ["", *(cell(base.get(arm), None) for arm in arms)]} if base else {}
        for change, records in sorted(found.items()):
            own = by_arm(records)
            lines[change] = [changes(own, base), *(cell(own.get(arm), base.get(arm)) for arm in arms)]
        parts.append(f"{world}:\n\n" + grid(name, ["setting", *arms], lines))
    return "\n\n".join(parts)


def by_arm(records: list[Record]) -> dict[str, dict[int, Record]]:
    """arm -> seed -> record. Raises ValueError for mixed digests."""
    rows(records)
    found: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in records:
        found[record["arm"]][record["seed"]] = record
    return found


def changes(own: dict[str, dict[int, Record]], base: dict[str, dict[int, Record]]) -> str:
    """Settings that are not the defaults', as one writes them on a command line; `patch` where there are none."""
    if not own.keys() & base.keys():
        return "?"
    found: dict[str, Any] = {}
    for arm in sorted(own.keys() & base.keys()):
        mine, theirs = (flatten(next(iter(seeds[arm].values()))["config"]) for seeds in (own, base))
        found |= {key: mine.get(key) for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
    return ", ".join(f"`{key}={value}`" for key, value in sorted(found.items())) or "patch"


def cell(own: dict[int, Record] | None, base: dict[int, Record] | None) -> str:
    """0.812 (+0.010 ± 0.020), n = 3: the mean; the mean difference over shared seeds, its 95% t interval."""
    if not own:
        return "-"
    recall = {seed: record["recall"]["exact"] for seed, record in own.items()}
    text = f"{statistics.fmean(recall.values()):.3f}"
    if base and (shared := recall.keys() & base.keys()):
        gain = estimate([recall[seed] - base[seed]["recall"]["exact"] for seed in sorted(shared)])
        within = "" if gain.high is None else f" ± {gain.high - gain.mean:.3f}"
        text += f" ({gain.mean:+.3f}{within})"
    return text + f", n = {len(own)}"
