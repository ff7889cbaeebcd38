"""Rounding without training again: on a CPU, a run that rounds its model after training, or adds noise, takes the model
of a run that is the same in all else, if that has finished by the same code, on the same kind of machine, and kept it
(save_model=true).
"""

from dataclasses import replace
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_model

from memlayers.config import QuantizeConfig, RunConfig
from memlayers.kernels import selected_implementation
from memlayers.model import Transformer
from memlayers.quantize import stored_bytes
from memlayers.text import Text
from memlayers.training import ranks
from memlayers.training.probe import FinalMeasurement
from memlayers.training.provenance import code_version, machine
from memlayers.training.record import Record, finished, model_path
from memlayers.training.saved_model import save

SAME = ("facts", "model", "match", "cost", "training", "optimizer", "timing", "teacher")  # blocks of both records


def trained_already(config: RunConfig) -> Record | None:
    """The record of the finished run whose model can be taken; None if this one has to train."""
    quantize, is_alone = config.quantize, config.trainer.get("accelerator") == "cpu" and ranks.count() == 1
    if quantize.when == "trained" or not quantize.touches_any or not is_alone:
        return None
    plain = replace(config, quantize=QuantizeConfig(), save_model=True)
    record = finished(plain)
    if record is None or record["code"] != code_version() or "earlier" in record:
        return None
    ran_on, kernels = record["machine"], set(record["machine"]["kernels"].values())
    if not machine(config.threads).items() <= ran_on.items() or kernels - {selected_implementation(config.kernels)}:
        return None  # its digits would not be this run's own
    return record | {"path": str(model_path(plain))}


def rounded_again(
    config: RunConfig, model: Transformer, text: Text, end: FinalMeasurement, record: Record
) -> dict[str, Any]:
    """Give an untrained model the parameters of another run, that of `record`, round and measure it; returns this run's
    blocks, with the digest of the other as training.taken_from. Raises ValueError for a damaged file.
    """
    try:
        load_model(model, record["path"])
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{record['path']}: not a model ({error}); accepted: that of a run; or delete it") from None
    recall = end.measured(model)
    if config.save_model:
        save(model, text, config)
    blocks = {key: record[key] for key in SAME if key in record}
    return blocks | {
        "training": record["training"] | {"taken_from": record["digest"]},
        "recall": recall | {"bits_per_parameter": recall["stored_bits"] / record["cost"]["params"]},
        "storage": storage(model, config.quantize, recall),
        "kernels": record["machine"]["kernels"],
    }


def storage(model: Transformer, settings: QuantizeConfig, recall: dict[str, Any]) -> dict[str, float | None]:
    """Bytes of tables and of other weights, and their bits per recalled fact of the world."""
    sizes = stored_bytes(model, settings)
    facts = recall["exact"] * recall["num_facts"]
    return {**sizes, "bits_per_fact": 8 * sum(sizes.values()) / facts if facts else None}
