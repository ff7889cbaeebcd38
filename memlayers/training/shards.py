"""Checkpoints of sharded tables: written by all processes, and read by any number of processes."""

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

TABLES = "tables"  # key in a checkpoint: the names of the tensors in the folder beside it


def keep(checkpoint: dict[str, Any], tables: list[nn.Parameter], folder: Path) -> None:
    """Move sharded tensors, of the model and of the last optimizer, from a checkpoint to files in `folder`."""
    if dist.get_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed while it wrote
    dist.barrier()
    tensors: dict[str, Tensor] = {}
    assert all(table.requires_grad for table in tables), "the optimizer numbers trainable tables"
    for index, table in enumerate(tables):
        tensors[f"{index}"] = table.detach()
        state = checkpoint["optimizer_states"][-1]["state"]
        if index in state:
            moments = {name: tensor for name, tensor in state[index].items() if is_cut_as(table, tensor)}
            tensors |= {f"{index}.{name}": tensor for name, tensor in moments.items()}
            state[index] = {name: tensor for name, tensor in state[index].items() if name not in moments}
    places = {table.data_ptr() for table in tables}
    whole = {name: tensor for name, tensor in checkpoint["state_dict"].items() if tensor.data_ptr() not in places}
    checkpoint["state_dict"], checkpoint[TABLES] = whole, sorted(tensors)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)  # safetensors, not pickle, which can run code
    mesh = processes(tables[0])
    save({name: columns(tensor, mesh) for name, tensor in tensors.items()}, storage_writer=writer)


def put_back(checkpoint: dict[str, Any], module: nn.Module, tables: list[nn.Parameter], folder: Path) -> None:
    """The inverse of `keep`: fill a checkpoint of `module` with this process's columns of the sharded tensors."""
    tensors, mesh = {}, processes(tables[0])
    for name in checkpoint[TABLES]:
        table = tables[int(name.partition(".")[0])]
        tensors[name] = columns(torch.empty_like(table, dtype=torch.float32 if "." in name else table.dtype), mesh)
    load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))
    for name, tensor in tensors.items():
        index, _, moment = name.partition(".")
        if moment:
            checkpoint["optimizer_states"][-1]["state"][int(index)][moment] = tensor.to_local()
        else:
            place = tables[int(index)].data_ptr()
            names = [key for key, value in module.state_dict().items() if value.data_ptr() == place]
            checkpoint["state_dict"] |= dict.fromkeys(names, tensor.to_local())


def is_cut_as(table: Tensor, state: Any) -> bool:
    """Whether optimizer state is sharded as its table is."""
    return isinstance(state, Tensor) and state.shape == table.shape


def processes(table: Tensor) -> DeviceMesh:
    return init_device_mesh(table.device.type, (dist.get_world_size(),))


def columns(local: Tensor, mesh: DeviceMesh) -> DTensor:
    """The distributed tensor of which `local` are this process's columns."""
    return DTensor.from_local(local.detach(), mesh, [Shard(1)], run_check=False)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder, by name."""
    return {path.name: digest_of(path) for path in sorted(folder.iterdir())}


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
