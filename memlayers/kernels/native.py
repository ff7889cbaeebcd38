"""The selection of product keys in C: compiled once with the machine's own compiler, kept in the user's cache."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from memlayers.layers.product_keys import half_scores, winners

SOURCE = Path(__file__).with_name("select.c")


def product_key_topk(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As memlayers.layers.product_keys.product_key_topk, for float32 on the CPU."""
    half = half_scores(query, keys)
    _, heads, tokens, n = half.shape
    assert half.dtype == torch.float32 and half.device.type == "cpu" and k <= n, "the kernel reads raw memory"
    contiguous = half.detach().contiguous()
    row = torch.empty(heads, tokens, k, dtype=torch.int64)
    column = torch.empty_like(row)
    library().product_key_select(contiguous.data_ptr(), heads * tokens, n, k, row.data_ptr(), column.data_ptr())
    return winners(half, row, column)


@cache
def library() -> ctypes.CDLL:
    """The compiled kernel. Raises OSError where there is no compiler, or it fails; the message is one line."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler was found (cc, gcc, clang, or the variable CC)")
    command = [*shlex.split(compiler), "-O3", "-march=native", "-ffp-contract=off", "-shared", "-fPIC"]
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(command).encode() + _processor()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memlayers"
    built = folder / f"select-{key}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / "select.so"
            done = subprocess.run([*command, str(SOURCE), "-o", str(fresh)], capture_output=True, text=True)
            if done.returncode:
                raise OSError(f"{compiler} could not compile the kernel: {(done.stderr.splitlines() or ['?'])[0]}")
            fresh.replace(built)  # whole or not at all, whoever else builds it now
    loaded = ctypes.CDLL(str(built))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    loaded.product_key_select.argtypes = [pointer, ctypes.c_int64, number, number, pointer, pointer]
    loaded.product_key_select.restype = None
    return loaded


def _processor() -> bytes:
    """What this machine can run: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return b""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "").encode()
