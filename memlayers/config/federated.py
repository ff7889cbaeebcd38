"""Settings of federated learning."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from memlayers.checks import at_least, one_of, within


class Way(NamedTuple):
    """How clients learn together."""

    merge: str | None  # average, rows, or None: no merging
    is_warm: bool = False  # a server first trains on the shared facts, clients then only on their own
    only_tables: bool = False  # clients train and send tables only; all else stays as the server trained it


WAYS = {
    "alone": Way(None),
    "average": Way("average"),
    "rows": Way("rows"),
    "warm_average": Way("average", is_warm=True),
    "warm_rows": Way("rows", is_warm=True),
    "rows_only": Way("rows", is_warm=True, only_tables=True),
}


@dataclass
class FederatedConfig:
    """Clients that hold different facts, and a server that merges what they learn: training/federated/. Such a run has
    no probes, logger or checkpoint, so that it begins anew after Ctrl-C, and measures only what is said there.
    """

    way: str | None = None  # one of WAYS; null: no clients
    clients: int = 4
    rounds: int = 8  # of local steps, a merge after each
    shared: float = 0.2  # share of subjects whose facts all clients hold; each of the others is one client's

    def validate(self, run: Any) -> None:
        """`run`: the RunConfig that this is part of."""
        at_least("federated.clients", self.clients, 1)
        at_least("federated.rounds", self.rounds, 1)
        within("federated.shared", self.shared, 0, 1)
        if self.way is None:
            return
        one_of("federated.way", self.way, tuple(WAYS))
        accepted = ways_of(run.model.has_tables, self.clients)
        if self.way not in accepted:
            by_rows = WAYS[self.way].merge == "rows" and not run.model.has_tables
            why = "no layer has a table" if by_rows else "one client has nothing to merge"
            raise ValueError(f"federated.way={self.way}: {why}; accepted: {', '.join(accepted)}")
        for word, is_set, instead in (
            (f"save_model={run.save_model}", run.save_model, "false"),
            (f"distil.teacher={run.distil.teacher}", run.distil.teacher is not None, "null"),
            ("quantize", run.quantize.touches_any, "float32 and no noise"),
            ("trainer", not run.on_plain_cpu, "trainer=cpu"),
            ("logger", run.logger is not None and "CSVLogger" not in str(run.logger), "csv or none"),
            ("world.two_hop", getattr(run.world, "two_hop", 0) > 0, "0"),
            ("world.junk.pairs", getattr(run.world, "junk", None) is not None and run.world.junk.pairs > 0, "0"),
            ("world.context.source=retrieved", run.world.context.source == "retrieved", "none or given"),
        ):
            if is_set:
                raise ValueError(f"{word}: clients of federated.way={self.way} do without; accepted: {instead}")


def ways_of(has_tables: bool, clients: int) -> list[str]:
    """Names of the distinct ways: `rows` needs a table, and with one client there is nothing to merge."""
    names = [name for name, way in WAYS.items() if way.merge != "rows" or has_tables]
    if clients > 1:
        return names
    return list({WAYS[name][1:]: name for name in reversed(names)}.values())[::-1]
