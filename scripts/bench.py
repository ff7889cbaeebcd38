"""Measure speed, sides taking turns in one process, as medians of their ratios round by round: see scripts/benches/.

python scripts/bench.py                # everything, about half an hour; saves results/bench/*.json and summary.json
python scripts/bench.py level limit    # these: flat, level, peers, limit, parts, trace, shards, gpu
python scripts/bench.py --quick        # every part on small shapes, nothing saved: for function, not for speed

The peers come with  pip install -e ".[peers]" -c constraints.txt ; without them that part is left out, and says so, as
gpu is where torch finds none.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if "peers" in sys.argv:  # huge pages for the tables of all sides; ours alone have them elsewhere too
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from benches import flat, gpu, level, limit, parts, peers, scaling, shards, trace
from rich.console import Console
from rich.table import Table

from memlayers.studies.cli import verb
from memlayers.studies.workers import keep_freed_memory
from memlayers.training.provenance import code_version, machine
from memlayers.training.record import write_json

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "bench"
PARTS = {"flat": flat, "level": level, "peers": peers, "limit": limit, "parts": parts, "trace": trace}
PARTS |= {"shards": shards, "gpu": gpu}


def measured(part: str, quick: bool) -> Any:
    if part == "flat":
        return flat.measure(3, (12, 14)) if quick else flat.measure(24)
    if part == "level":
        return level.measure(6, (32,), 1) if quick else level.measure(150)
    if part == "peers":
        return peers.measure(4, [(32, 12, 8)], 5.0) if quick else peers.measure(8, peers.SHAPES, 6.0)
    if part == "parts":
        return parts.measure(4, ("the study's",)) if quick else parts.measure(30)
    if part == "shards":
        return shards.measure(6, (2,), shards.SHAPES[:1]) if quick else shards.measure(60)
    if part == "gpu":
        return gpu.measure(2 if quick else 12)
    if part == "trace":
        return trace.measure(10 if quick else 400)
    return limit.measure(6, [(12, 64)]) if quick else limit.measure(40)


def judged(part: str, found: Any) -> list[dict[str, Any]]:
    """The targets of a part as {name, value, limit, holds}; limits are minima for peers and limit, else maxima."""
    at_least = part in ("peers", "limit")
    return [
        {"name": name, "value": value, "limit": bound, "holds": value >= bound if at_least else value <= bound}
        for name, value, bound in PARTS[part].targets(found)  # type: ignore[attr-defined]
    ]


def show(targets: list[dict[str, Any]]) -> None:
    table = Table("target", "value", "limit", "holds", box=None)
    for target in targets:
        holds = "yes" if target["holds"] else "NO"
        table.add_row(target["name"], f"{target['value']:g}", f"{target['limit']:g}", holds)
    Console(width=110).print(table)


def save_summary() -> None:
    """Write the targets of all saved parts to summary.json."""
    saved = {part: json.loads((FOLDER / f"{part}.json").read_text()) for part in PARTS if _path(part).exists()}
    targets = [target for part, content in saved.items() for target in judged(part, content["measured"])]
    write_json(FOLDER / "summary.json", {"targets": targets})


def _path(part: str) -> Path:
    return FOLDER / f"{part}.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="for function, not for speed")
    given = parser.parse_intermixed_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        raise ValueError(f"part {unknown[0]!r} is not known; accepted: {', '.join(PARTS)}")
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    chosen = [part for part in PARTS if not given.parts or part in given.parts]
    if "peers" in chosen and not all(find_spec(name) for name in ("product_key_memory", "PEER_pytorch", "fbgemm_gpu")):
        print('peers: left out; pip install -e ".[peers]" -c constraints.txt brings them', flush=True)
        chosen.remove("peers")
    if "gpu" in chosen and not torch.cuda.is_available():
        print("gpu: left out; torch finds no GPU here", flush=True)
        chosen.remove("gpu")
    if len(chosen) > 1:  # each in a process of its own
        extra = ["--quick"] if given.quick else []
        codes = [subprocess.call([sys.executable, __file__, part, *extra]) for part in chosen]
        killed = [f"{part} by signal {-code}" for part, code in zip(chosen, codes, strict=True) if code < 0]
        if killed:
            print(f"memlayers: killed: {', '.join(killed)}", file=sys.stderr)
        return max(128 - code if code < 0 else code for code in codes)  # as in a shell: 128 + the signal
    for part in chosen:
        print(f"{part} ...", flush=True)
        found = measured(part, given.quick)
        show(judged(part, found))
        if not given.quick:
            content = {"machine": machine(1), "code": code_version(), "measured": found}
            write_json(_path(part), content)
            if part == "shards":
                (ROOT / "SCALING.md").write_text(scaling.page(found, machine(1)["processor"]))
            save_summary()
            print(_path(part).relative_to(ROOT))
    return 0


if __name__ == "__main__":
    verb(main)
