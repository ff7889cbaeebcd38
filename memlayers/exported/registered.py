"""transformers knows our models as soon as both are imported, in either order, and neither import waits for the other.

import memlayers, transformers
transformers.AutoModelForCausalLM.from_pretrained("exported")
"""

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

# A module of transformers -> ours that registers itself there when it is imported.
REGISTER = {
    "transformers.models.auto.configuration_auto": "memlayers.exported.config",
    "transformers.models.auto.modeling_auto": "memlayers.exported.model",
}


class Registers(Loader):
    """Loads a module of transformers as its own loader does, and then imports ours."""

    def __init__(self, own: Loader):
        self.own = own

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)
        with suppress(ImportError):  # a version that we do not know works as without us, and refuses our model_type
            importlib.import_module(REGISTER[module.__name__])


class Finder(MetaPathFinder):
    """Finds the modules of REGISTER where they are, and nothing else."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in REGISTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = Registers(spec.loader)
        return spec


def register() -> None:
    """Now, where transformers is loaded already; else when it is."""
    for theirs, ours in REGISTER.items():
        if theirs in sys.modules:
            importlib.import_module(ours)
    sys.meta_path.insert(0, Finder())
