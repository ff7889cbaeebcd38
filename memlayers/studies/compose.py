"""From a command line to validated RunConfigs, by Hydra. No DictConfig leaves this module and cli.py."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from memlayers.config import RunConfig
from memlayers.config.digest import NOT_DECISIVE, decisive, flatten, settings
from memlayers.model import trained_roles
from memlayers.studies.files import CONF
from memlayers.studies.mistakes import ERRORS, explain, is_mistake, one_line, options, parsed_word
from memlayers.studies.rates import tuned_words
from memlayers.studies.schemas import register


def to_run_config(config: DictConfig, overrides: list[str]) -> RunConfig:
    """The validated RunConfig of one job. Raises ValueError with one line."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} is not set; accepted: {missing[0]}=VALUE on the command line")
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    given = {place_of(override): override.value() for override in OverridesParser.create().parse_overrides(overrides)}
    run.axes = {key: given.get(key) for key in run.axes or ()}
    run.report.reference = {axis: value for axis, value in run.report.reference.items() if value is not None}
    run.validate()
    for source in run.world.corpus.sources if run.world.corpus.share > 0 else ():
        if Path(run.results).resolve().is_relative_to(Path(source).resolve()):  # its text decides the digest
            raise ValueError(f"results={run.results} lies in the corpus {source}; accepted: a folder elsewhere")
    return run


@contextmanager
def composing() -> Iterator[None]:
    """Context in which `compose` reads conf/, and users' mistakes are raised as ValueError with one line."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            yield
        except ERRORS as error:
            if not is_mistake(error):
                raise
            raise ValueError(one_line(error)) from None


def jobs_of(overrides: list[str], multirun: bool) -> list[RunConfig]:
    """All jobs of a command line, composed and validated. Raises ValueError with one line."""
    with composing():
        batches, swept = split_sweep(overrides, multirun)
        jobs = compose_all([[*batch, axes_override(swept)] for batch in batches] if swept else batches)
        if not jobs:
            words = " ".join(overrides)
            raise ValueError(f"{words}: a sweep over no value; accepted: one value or more, as in seed=range(2)")
        refuse_without_effect(overrides, batches, jobs)
    return jobs


def place_of(override: Override) -> str:
    """The key of an override as written, with the package of a group, such as extra@model.values."""
    return override.get_key_element().lstrip("+~")


def axes_override(swept: list[str]) -> str:
    """The override that tells a job which keys are swept."""
    return "axes=[" + ",".join(f'"{key}"' for key in swept) + "]"


def values_of(override: Override) -> list[Any]:
    """The values of an override: one, or those of a list of choices; none of other sweeps."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [item.text if isinstance(item, QuotedString) else item for item in value.list]
    return [] if override.is_sweep_override() else [value]


def split_sweep(overrides: list[str], multirun: bool) -> tuple[list[list[str]], list[str]]:
    """The overrides of each job (one job if nothing is swept), and the swept keys."""
    for word in overrides:
        if ("=" not in word and not word.startswith("~")) or word.startswith("="):
            raise ValueError(f"{word}: not understood; accepted: KEY=VALUE, as in world=atlas_airports")
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # glob() needs it
    parsed = [parsed_word(parser, word) for word in overrides]
    for override in parsed:
        if place_of(override) == "axes":
            raise ValueError(f"{override.input_line}: says what a command sweeps; accepted: without it")
        if override.key_or_group == "rates" and not all(isinstance(value, dict) for value in values_of(override)):
            raise ValueError(f"{override.input_line}: not a choice; accepted: rates.world=NAME of a file, or null")
        choices = options(override.key_or_group.partition("@")[0])
        if choices and not override.is_delete() and not all(isinstance(value, str) for value in values_of(override)):
            raise ValueError(f"{override.input_line}: no such choice; accepted: {', '.join(choices)}")
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    swept = [override for override in parsed if override.is_sweep_override()]
    by_file = any(override.key_or_group.startswith(("experiment", "hydra")) for override in parsed)
    if not (multirun or swept or by_file):  # nothing else makes a sweep: one composition less
        return [fixed], []
    try:
        base = compose("train", fixed, return_hydra_config=True)
    except ERRORS as error:
        if not is_mistake(error):
            raise
        raise ValueError(explain(fixed, error)) from None
    if not multirun and base.hydra.mode != RunMode.MULTIRUN:
        if swept:
            raise ValueError(f"{swept[0].input_line} names several values; accepted with -m (a sweep), or in a study")
        return [fixed], []
    params = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    given = {place_of(override) for override in parsed}
    params = [line for line in params if line.partition("=")[0] not in given]
    several = parser.parse_overrides(params + overrides)
    batches = BasicSweeper.split_arguments(several, None)
    axes = [place_of(override) for override in several if override.is_sweep_override()]
    return [list(job) for batch in batches for job in batch], axes


def compose_all(batches: list[list[str]]) -> list[RunConfig]:
    """The configuration of each job. Jobs that differ in the seed alone are composed once, as that takes 0.1 s."""
    without_seed: dict[tuple[str, ...], RunConfig] = {}
    jobs = []
    for batch in batches:
        rest = tuple(line for line in batch if not line.startswith("seed="))
        seeds = [line.removeprefix("seed=") for line in batch if line.startswith("seed=")]
        follows = any("$" in line for line in batch)  # an interpolation may depend on the seed
        if follows or not all(seed.isdecimal() for seed in seeds):
            jobs.append(compose_one(batch))
            continue
        if rest not in without_seed:
            without_seed[rest] = compose_one(list(rest))
        job = dataclasses.replace(without_seed[rest])
        if seeds:
            job.seed = int(seeds[-1])
            job.axes = {key: job.seed if key == "seed" else value for key, value in job.axes.items()}
            job.validate()
        jobs.append(job)
    return jobs


def compose_tuned(overrides: list[str]) -> DictConfig:
    """Compose a job, with the settings that were tuned for its arm, world and budget."""
    config = compose("train", overrides)
    words = tuned_words(config, overrides)
    return compose("train", [*words, *overrides]) if words else config


def compose_one(overrides: list[str]) -> RunConfig:
    """Compose and validate one job. Raises ValueError, in one line, for mistakes."""
    try:
        run = to_run_config(compose_tuned(overrides), overrides)
    except ERRORS as error:
        if not is_mistake(error):
            raise
        raise ValueError(explain(overrides, error)) from None
    known = flatten(dataclasses.asdict(run))
    for line in overrides:  # OmegaConf silently drops keys that + adds and the schema lacks
        key = line.lstrip("+").partition("=")[0].partition("@")[0]
        if line.startswith("+") and not options(key) and not any(f"{name}.".startswith(f"{key}.") for name in known):
            raise ValueError(f"{line}: no such setting; accepted: those of the schema, as --cfg job shows them")
    return run


def refuse_without_effect(overrides: list[str], batches: list[list[str]], jobs: list[RunConfig]) -> None:
    """Raises ValueError for an override that affects the numbers of no job."""
    parser = OverridesParser.create()
    pairs = zip(batches, jobs, strict=True)
    distinct = {tuple(line for line in batch if not line.startswith("seed=")): job for batch, job in pairs}
    for word in overrides:
        key = parser.parse_override(word).key_or_group
        first, dot, _ = key.partition(".")
        if not (dot or key == "values") or key == "world.name" or first in (*NOT_DECISIVE, "hydra", "trainer"):
            continue
        if not any(has_effect(key, list(batch), job) for batch, job in distinct.items()):
            raise ValueError(f"{word}: has no effect here; accepted: without it, or with the setting that uses it")


def has_effect(key: str, batch: list[str], job: RunConfig) -> bool:
    """Whether an override changes the digest of a job, or is its default in the first place."""
    parser = OverridesParser.create()
    rest = [line for line in batch if parser.parse_override(line).key_or_group != key]
    try:
        without = to_run_config(compose_tuned(rest), rest)
    except (*ERRORS, ValueError):
        return True  # invalid without it

    def deciding(config: RunConfig) -> dict[str, Any]:
        return {name: value for name, value in settings(config).items() if name not in NOT_DECISIVE}

    if deciding(without) == deciding(job):
        return True
    if key.startswith("optim.roles.") and key.split(".")[2] not in trained_roles(job.model):
        return False
    return decisive(without) != decisive(job)
