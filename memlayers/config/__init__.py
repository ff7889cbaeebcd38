"""Every setting that YAML may fill: plain dataclasses, their validation, nothing else.

This package imports neither torch nor Hydra, so that a study can be composed, checked and found finished in a blink.
A user's mistake raises ValueError with one line that names the key, the value and what is accepted.
"""

from memlayers.config.model import FFNConfig, MatchConfig, MemoryConfig, ModelConfig
from memlayers.config.optim import OptimConfig, RoleConfig, ScheduleConfig, ValuesConfig
from memlayers.config.run import RunConfig, TrainingConfig
from memlayers.config.worlds import AtlasConfig, BiographiesConfig, TriplesConfig, WorldConfig

__all__ = [
    "AtlasConfig",
    "BiographiesConfig",
    "FFNConfig",
    "MatchConfig",
    "MemoryConfig",
    "ModelConfig",
    "OptimConfig",
    "RoleConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "TriplesConfig",
    "ValuesConfig",
    "WorldConfig",
]
