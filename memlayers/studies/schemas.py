"""Registers with Hydra the schemas and resolvers that conf/ uses."""

from functools import cache

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from memlayers import config as schemas
from memlayers.config import RunConfig
from memlayers.layers import LAYERS
from memlayers.optim.rules import RULES
from memlayers.studies.files import CONF, checkout, store_arm


@cache
def register() -> None:
    """Register the schemas of YAML files, an arm for each feed-forward, and three resolvers.

    ${square:3}: 9; ${third:128}: 43; ${checkout:}: the folder of results/.
    """
    store = ConfigStore.instance()
    schema = OmegaConf.structured(RunConfig)
    schema.model.ffn = schema.axes = None  # else OmegaConf accepts only values that merge with the defaults
    store.store(name="run_schema", node=schema)
    for kind in ("Atlas", "Biographies", "Pictures", "Triples"):
        store.store(group="world", name=f"{kind.lower()}_schema", node=getattr(schemas, f"{kind}Config"))
    for layer in LAYERS:
        for group in ("ffn", "extra"):
            store.store(group=group, name=f"{layer.__module__.rpartition('.')[2]}_schema", node=layer)
    for name, rule in RULES.items():
        store.store(group="values", name=f"{name}_schema", node=rule)
    for path in (CONF / "ffn").glob("*.yaml"):
        store_arm(path.stem)
    OmegaConf.register_new_resolver("checkout", checkout, replace=True)
    OmegaConf.register_new_resolver("square", lambda number: int(number) ** 2, replace=True)
    OmegaConf.register_new_resolver("third", lambda number: max(1, round(int(number) / 3)), replace=True)
