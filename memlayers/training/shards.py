"""Checkpoints of tables that no process has whole: written by all, and read back by any number of processes."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

TABLES = "tables"  # key of a checkpoint: the names of what is beside it


def keep(checkpoint: dict[str, Any], tables: list[nn.Parameter], folder: Path) -> None:
    """Move what is sharded, of the model's state and of the last optimizer's, from a checkpoint to files of its own."""
    if dist.get_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it wrote
    dist.barrier()
    found: dict[str, Tensor] = {}
    assert all(table.requires_grad for table in tables), "the optimizer numbers those that learn"
    for index, table in enumerate(tables):
        found[f"{index}"] = table.detach()
        state = checkpoint["optimizer_states"][-1]["state"]
        if index in state:
            moments = {name: one for name, one in state[index].items() if is_cut_as(table, one)}
            found |= {f"{index}.{name}": one for name, one in moments.items()}
            state[index] = {name: one for name, one in state[index].items() if name not in moments}
    places = {table.data_ptr() for table in tables}
    whole = {name: one for name, one in checkpoint["state_dict"].items() if one.data_ptr() not in places}
    checkpoint["state_dict"], checkpoint[TABLES] = whole, sorted(found)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)  # safetensors, and no pickle that runs code
    mesh = processes(tables[0])
    save({name: columns(one, mesh) for name, one in found.items()}, storage_writer=writer)


def put_back(checkpoint: dict[str, Any], module: nn.Module, tables: list[nn.Parameter], folder: Path) -> None:
    """Fill a checkpoint with this process's columns of what is sharded, for `module`, which holds the tables."""
    found, mesh = {}, processes(tables[0])
    for name in checkpoint[TABLES]:
        table = tables[int(name.partition(".")[0])]
        found[name] = columns(torch.empty_like(table, dtype=torch.float32 if "." in name else table.dtype), mesh)
    load(found, storage_reader=HuggingFaceStorageReader(str(folder)))
    for name, one in found.items():
        index, _, moment = name.partition(".")
        if moment:
            checkpoint["optimizer_states"][-1]["state"][int(index)][moment] = one.to_local()
        else:
            place = tables[int(index)].data_ptr()
            own = [key for key, value in module.state_dict().items() if value.data_ptr() == place]
            checkpoint["state_dict"] |= dict.fromkeys(own, one.to_local())


def is_cut_as(table: Tensor, state: Any) -> bool:
    return isinstance(state, Tensor) and state.shape == table.shape


def processes(table: Tensor) -> DeviceMesh:
    return init_device_mesh(table.device.type, (dist.get_world_size(),))


def columns(own: Tensor, mesh: DeviceMesh) -> DTensor:
    """The whole of which this process has some columns."""
    return DTensor.from_local(own.detach(), mesh, [Shard(1)], run_check=False)


def checksums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, of the files in a folder."""
    return {path.name: digest_of(path) for path in sorted(folder.iterdir())}


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
