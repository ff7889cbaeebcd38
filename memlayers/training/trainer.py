"""Lightning's trainer and logger from their settings, and a fit that can be interrupted."""

import logging
import os
import signal
import warnings
from typing import Any

import hydra
import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger

from memlayers.config import RunConfig
from memlayers.training import ranks
from memlayers.training.checkpoint import Checkpointer, Interrupted
from memlayers.training.checkpoint_files import CheckedFile
from memlayers.training.learner import FactLearner
from memlayers.training.record import record_path


def build_trainer(config: RunConfig, steps: int, first: int, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    """One epoch of `steps` steps, from `first` on.

    Raises ValueError, in one line, for what this machine or Lightning cannot do.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    several = config.trainer.get("strategy") == "ddp"
    given = config.trainer | ({"devices": int(os.environ["LOCAL_WORLD_SIZE"])} if several else {})
    own: dict[str, Any] = {  # also the length of the run: a record says that all steps were taken
        "max_epochs": 1,
        "max_steps": -1,
        "max_time": None,
        "fast_dev_run": False,
        "overfit_batches": 0.0,
        "limit_train_batches": steps,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": None,  # optim.clip and optim.clip_values do it
        "num_nodes": ranks.count() // given["devices"] if several else 1,
        # Without torchrun one process, also where Slurm's variables say that there are more.
        "plugins": [TorchElasticEnvironment() if several else LightningEnvironment(), CheckedFile()],
        "callbacks": callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": any(isinstance(one, ProgressBar) for one in callbacks),
        "enable_model_summary": False,
        "log_every_n_steps": 50,
    }
    taken = sorted(own.keys() & config.trainer.keys())
    if taken:
        raise ValueError(f"trainer.{taken[0]}={config.trainer[taken[0]]} is set by the run; accepted: other arguments")
    logger = build_logger(config, first)
    try:
        return lightning.Trainer(logger=logger, **own, **given)
    except (MisconfigurationException, TypeError, ValueError) as error:
        said = ", ".join(f"trainer.{key}={value}" for key, value in config.trainer.items())
        raise ValueError(f"{said}: {str(error).splitlines()[0]}") from None


def build_logger(config: RunConfig, first: int) -> Logger | bool:
    """The Lightning logger that conf/logger names, of a run from step `first` on; its package is imported only now."""
    if config.logger is None:
        return False
    path = str(record_path(config).with_suffix(""))
    if first:
        path += f"-from-{first}"  # the logs up to there are kept
    filled = {key: value.format(path=path) if isinstance(value, str) else value for key, value in config.logger.items()}
    try:
        return hydra.utils.instantiate(filled)
    except Exception as error:  # of the logger's package, or its absence
        cause = str(error.__cause__ or error).splitlines()[0]
        extra = "pip install -e '.[tensorboard,wandb,mlflow]' -c constraints.txt installs what loggers need"
        raise ValueError(f"logger={config.logger['_target_']}: {cause}; {extra}") from None


def fit(trainer: lightning.Trainer, learner: FactLearner, batches: Any, keeper: Checkpointer) -> None:
    """Train, from a checkpoint where there is one. A run that is asked to stop raises Interrupted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice about workers, and its own deprecations
        try:
            checkpoint = keeper.path if keeper.kept else None
            trainer.fit(learner, batches, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # what Lightning makes of KeyboardInterrupt
            if keeper.is_theirs:
                raise
            raise Interrupted(keeper.asked or signal.SIGINT, keeper.kept) from None
        finally:
            learner.while_training.close()
