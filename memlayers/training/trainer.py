"""Builds Lightning's trainer and logger from their settings, and fits with checkpoints and interruption."""

import logging
import os
import signal
import warnings
from typing import Any

import hydra
import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger

from memlayers.config import RunConfig
from memlayers.training import ranks
from memlayers.training.checkpoint import Checkpointer, Interrupted
from memlayers.training.checkpoint_files import CheckedFile
from memlayers.training.learner import FactLearner
from memlayers.training.record import record_path


def build_trainer(config: RunConfig, steps: int, first: int, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """A trainer of one epoch of `steps` steps, which starts at step `first`.

    Raises ValueError, in one line, for settings that this machine or Lightning does not support.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    several = config.trainer.get("strategy") == "ddp"
    given = config.trainer | ({"devices": int(os.environ["LOCAL_WORLD_SIZE"])} if several else {})
    fixed: dict[str, Any] = {  # not to be set by users: a record claims that all steps were taken
        "max_epochs": 1,
        "max_steps": -1,
        "max_time": None,
        "fast_dev_run": False,
        "overfit_batches": 0.0,
        "limit_train_batches": steps,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": None,  # optim.clip and optim.clip_values do it
        "num_nodes": ranks.count() // given["devices"] if several else 1,
        # Without torchrun, one process, whatever Slurm's variables say.
        "plugins": [TorchElasticEnvironment() if several else LightningEnvironment(), CheckedFile()],
        "callbacks": callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        "enable_model_summary": False,
        "log_every_n_steps": 50,
    }
    taken = sorted(fixed.keys() & config.trainer.keys())
    if taken:
        raise ValueError(f"trainer.{taken[0]}={config.trainer[taken[0]]} is set by the run; accepted: other arguments")
    if not isinstance(profiler := config.trainer.get("profiler"), str | None):  # which Lightning would call
        raise ValueError(f"trainer.profiler={profiler} is no name; accepted: simple, advanced, pytorch, or null")
    logger = build_logger(config, first)
    try:
        return lightning.Trainer(logger=logger, **fixed, **given)
    except Exception as error:  # of every kind, for an argument of the user's that it hands on unchecked
        arguments = ", ".join(f"trainer.{key}={value}" for key, value in config.trainer.items())
        raise ValueError(f"{arguments}: {str(error).splitlines()[0]}") from None


def build_logger(config: RunConfig, first: int) -> Logger | bool:
    """The Lightning logger of conf/logger, for a run that starts at step `first`; imports its package only now."""
    if config.logger is None:
        return False
    path = str(record_path(config).with_suffix(""))
    if first:
        path += f"-from-{first}"  # does not overwrite the logs up to there
    filled = {key: value.format(path=path) if isinstance(value, str) else value for key, value in config.logger.items()}
    try:
        return hydra.utils.instantiate(filled)
    except Exception as error:  # of the logger's package, or its absence
        cause = str(error.__cause__ or error).splitlines()[0]
        extra = "pip install -e '.[tensorboard,wandb,mlflow]' -c constraints.txt installs what loggers need"
        raise ValueError(f"logger={config.logger['_target_']}: {cause}; {extra}") from None


def fit(trainer: lightning.Trainer, learner: FactLearner, batches: Any, keeper: Checkpointer) -> None:
    """Train, resumed from the checkpoint if there is one. Raises Interrupted for a run that a signal stopped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice about workers, and its own deprecations
        try:
            checkpoint = keeper.path if keeper.kept else None
            trainer.fit(learner, batches, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # Lightning raises it for KeyboardInterrupt
            if keeper.is_theirs:
                raise
            raise Interrupted(keeper.asked or signal.SIGINT, keeper.kept) from None
        finally:
            learner.while_training.close()
