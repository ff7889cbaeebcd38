"""Settings that YAML fills: dataclasses and their validation. Those of layers and update rules are in their files.

A user's mistake raises ValueError with one line that names the key, the value and what is accepted.
"""

from memlayers.config.distil import DistilConfig
from memlayers.config.federated import FederatedConfig
from memlayers.config.model import MatchConfig, ModelConfig
from memlayers.config.optim import OptimConfig, RoleConfig, ScheduleConfig
from memlayers.config.quantize import QuantizeConfig
from memlayers.config.run import RunConfig, TrainingConfig
from memlayers.config.worlds import AtlasConfig, BiographiesConfig, PicturesConfig, TriplesConfig, WorldConfig

__all__ = [
    "AtlasConfig",
    "BiographiesConfig",
    "DistilConfig",
    "FederatedConfig",
    "MatchConfig",
    "ModelConfig",
    "OptimConfig",
    "PicturesConfig",
    "QuantizeConfig",
    "RoleConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "TriplesConfig",
    "WorldConfig",
]
