"""Hydra: from a command line to checked RunConfigs, with one line for each mistake. The DictConfig ends here."""

import dataclasses
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from memlayers import config as schemas
from memlayers.config.run import RunConfig, flatten

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"


def register() -> None:
    """The schemas that YAML files extend, by name; ${checkout:}, its folder; ${in_world:}, what a world has of its own.

    ${in_world:${world.name},{atlas_airports: 2.4e-2},6e-3} is 2.4e-2 in that world and 6e-3 in all others.
    """
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    for kind in ("Atlas", "Biographies", "Triples"):
        store.store(group="world", name=f"{kind.lower()}_schema", node=getattr(schemas, f"{kind}Config"))
    store.store(group="ffn", name="dense_schema", node=schemas.FFNConfig)
    store.store(group="ffn", name="memory_schema", node=schemas.MemoryConfig)
    if not OmegaConf.has_resolver("checkout"):
        OmegaConf.register_new_resolver("checkout", lambda: str(ROOT))
        OmegaConf.register_new_resolver("in_world", lambda world, own, others: own.get(world, others))


MISTAKES = (HydraException, OmegaConfBaseException, AssertionError)  # the last comes out of OmegaConf for null nodes


def to_run_config(config: DictConfig) -> RunConfig:
    """The typed configuration of one job, validated. Raises ValueError with one line."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} is not set; accepted: {missing[0]}=VALUE on the command line")
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    run.validate()
    return run


@contextmanager
def composing() -> Iterator[None]:
    """Within, `compose` reads conf/; mistakes come out as ValueError with one line."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def jobs_of(overrides: list[str], multirun: bool) -> list[RunConfig]:
    """Every job that Hydra would run for a command line, composed and validated. Raises ValueError with one line."""
    try:
        with composing():
            batches = split_sweep(overrides, multirun)
            jobs = compose_all(batches)
    except MISTAKES as error:
        raise ValueError(one_line(error)) from None
    if not jobs:
        raise ValueError(
            f"{' '.join(overrides)}: a sweep over no value; accepted: one value or more, as in seed=range(2)"
        )
    return jobs


def split_sweep(overrides: list[str], multirun: bool) -> list[list[str]]:
    """Overrides of each job: one list where nothing is swept."""
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise ValueError(f"{word}: not understood; accepted: KEY=VALUE, as in world=atlas_airports")
    parser = OverridesParser.create()
    parsed = parser.parse_overrides(overrides)
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    try:
        base = compose("train", fixed, return_hydra_config=True)
    except MISTAKES as error:
        raise ValueError(explain(fixed, error)) from None
    swept = [override for override in parsed if override.is_sweep_override()]
    if not multirun and base.hydra.mode != RunMode.MULTIRUN:
        if swept:
            line = swept[0].input_line
            raise ValueError(f"{line} names several values; accepted with -m (a sweep), or in an experiment of runs")
        return [fixed]
    params = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    given = {override.key_or_group for override in parsed}
    params = [line for line in params if line.partition("=")[0] not in given]
    batches = BasicSweeper.split_arguments(parser.parse_overrides(params + overrides), None)
    return [list(job) for batch in batches for job in batch]


def compose_all(batches: list[list[str]]) -> list[RunConfig]:
    """One configuration a job; jobs that differ in nothing but the seed are composed once, which takes 0.1 s."""
    composed: dict[tuple[str, ...], RunConfig] = {}
    jobs = []
    for batch in batches:
        rest = tuple(line for line in batch if not line.startswith("seed="))
        seeds = [line.removeprefix("seed=") for line in batch if line.startswith("seed=")]
        follows = any("$" in line for line in batch)  # an interpolation may depend on the seed
        if follows or not all(seed.isdecimal() for seed in seeds):
            jobs.append(compose_one(batch))
            continue
        if rest not in composed:
            composed[rest] = compose_one(batch)
        job = dataclasses.replace(composed[rest])
        if seeds:
            job.seed = int(seeds[-1])
            job.validate()
        jobs.append(job)
    return jobs


def compose_one(overrides: list[str]) -> RunConfig:
    try:
        run = to_run_config(compose("train", overrides))
    except MISTAKES as error:
        raise ValueError(explain(overrides, error)) from None
    known = flatten(dataclasses.asdict(run))
    for line in overrides:  # OmegaConf drops in silence what + adds and the schema does not know
        key = line.lstrip("+").partition("=")[0].partition("@")[0]
        if line.startswith("+") and not options(key) and not any(f"{name}.".startswith(f"{key}.") for name in known):
            raise ValueError(f"{line}: no such setting; accepted: those of the schema, as --cfg job shows them")
    return run


def explain(overrides: list[str], error: Exception) -> str:
    """One line for a failed composition: the override at fault, and the nearest thing that would be accepted."""
    parser = OverridesParser.create()
    good: list[str] = []
    for line in sorted(overrides, key=lambda line: not options(parser.parse_override(line).key_or_group)):
        # choices of groups first: other keys may exist only by them
        try:
            compose("train", [*good, line])
        except MISTAKES as own:
            override = parser.parse_override(line)
            key = override.key_or_group.partition("@")[0]
            known = known_keys(good)
            groups = options(key)
            if groups and not isinstance(override.value(), dict):
                nearest = difflib.get_close_matches(str(override.value()), groups, n=1)
                hint = f"did you mean {nearest[0]}? " if nearest else ""
                return f"{line}: no such choice; {hint}accepted: {', '.join(groups)}"
            if key.startswith("hydra/"):
                extra = 'pip install -e ".[submitit]" -c constraints.txt'
                return f"{line}: no such choice; accepted: what is installed ({extra} brings submitit_slurm)"
            if key not in known and key.startswith("trainer."):
                return f"{line}: not set so far; accepted: +{line}, if lightning.Trainer has such an argument"
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean {nearest[0]}?" if nearest else f"accepted: {', '.join(top_level(known))}"
                return f"{line}: unknown key {key!r}; {hint}"
            return f"{line}: {one_line(own)}"
        good.append(line)
    return one_line(error)


def known_keys(overrides: list[str]) -> list[str]:
    """Every key and group that may be set, for suggestions."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if OmegaConf.is_dict(node):
            for name in node:
                yield f"{prefix}{name}"
                child = node._get_node(name)
                yield from walk(child, f"{prefix}{name}.")

    groups = [folder.name for folder in CONF.iterdir() if folder.is_dir()]
    return sorted({*walk(compose("train", overrides), ""), *groups})


def top_level(keys: list[str]) -> list[str]:
    return [key for key in keys if "." not in key]


def options(group: str) -> list[str]:
    """Choices of a config group, from its folder; none where there is no such group."""
    folder = CONF / group
    return sorted(path.stem for path in folder.glob("*.yaml")) if folder.is_dir() else []


def one_line(error: Exception) -> str:
    """The message, without Hydra's and OmegaConf's later lines, which repeat the key and the type."""
    cause = error.__cause__ if str(error).startswith("Error merging override") and error.__cause__ else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    return f"{key}: {lines[0]}" if key and key not in lines[0] else lines[0]
