"""Compiles the C kernels once with the machine's compiler, and keeps them in the user's cache."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = [HERE / name for name in ("look_up.c", "look_up_back.c", "reads.c", "reads_back.c", "updates.c")]
HEADERS = sorted(HERE.glob("*.h"))
# Without errno, sqrtf is one instruction. No flag assumes finite numbers or lets sums be reordered; visit_numbers
# opts in to reordering, for its own sums.
FLAGS = ("-D_GNU_SOURCE", "-O3", "-march=native", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC")

POINTER, INT, LONG, REAL = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_double
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ready_keys": (None, [POINTER, POINTER, LONG, INT, REAL, REAL, POINTER, POINTER, INT]),
    "look_up": (INT, [POINTER] * 3 + [LONG, INT, INT, INT, INT, REAL] + [POINTER] * 3 + [INT]),
    "look_up_back": (None, [POINTER] * 7 + [LONG, INT, INT, INT, INT, LONG] + [POINTER] * 4 + [INT]),
    "ready_keys_back": (None, [POINTER] * 4 + [LONG, INT, REAL, LONG, POINTER, INT]),
    "read_forward": (INT, [POINTER, INT, LONG, INT, POINTER, POINTER, LONG, INT, POINTER, INT]),
    "sort_reads": (LONG, [POINTER, LONG, LONG, POINTER, POINTER, POINTER]),
    "read_backward": (None, [POINTER, INT, INT] + [POINTER] * 3 + [LONG, INT] + [POINTER] * 4 + [INT]),
    "read_update": (None, [POINTER, INT, INT] + [POINTER] * 3 + [LONG, INT] + [POINTER] * 4 + [REAL, REAL, INT]),
    "adam_rows": (None, [POINTER, INT, INT] + [POINTER] * 4 + [LONG, INT] + [REAL] * 5 + [INT]),
    "adagrad_rows": (None, [POINTER, INT, INT] + [POINTER] * 3 + [LONG, REAL, REAL, INT]),
    "huge_pages": (None, [POINTER, LONG]),
    "sgd_rows": (None, [POINTER, INT, INT] + [POINTER] * 2 + [LONG, REAL, INT]),
}


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises OSError where there is no compiler, or it fails; the message is one line."""
    loaded = ctypes.CDLL(str(compiled(SOURCES)))
    for name, (result, arguments) in SIGNATURES.items():
        getattr(loaded, name).restype, getattr(loaded, name).argtypes = result, arguments
    return loaded


def compiled(sources: list[Path]) -> Path:
    """The path of the shared library of `sources`, compiled if not in the cache; raises OSError as `library` does.

    If the compiler has no OpenMP, it is built for one thread.
    """
    named = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if named is None:
        raise OSError("no C compiler was found (cc, gcc, clang, or the variable CC)")
    try:
        compiler, home = shlex.split(named), Path.home()
    except (ValueError, RuntimeError) as error:  # an open quote in CC; a user without a home folder
        raise OSError(str(error)) from None
    text = b"".join(path.read_bytes() for path in (*sources, *HEADERS))
    key = hashlib.sha256(text + " ".join([*compiler, *FLAGS]).encode() + _processor()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "memlayers"
    built = folder / f"kernels-{key}.so"
    if built.exists():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / "kernels.so"
        for openmp in (["-fopenmp"], ["-Wno-unknown-pragmas"]):
            command = [*compiler, *FLAGS, *openmp, *map(str, sources), "-o", str(fresh), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            if not done.returncode:
                fresh.replace(built)  # atomic, also if another process builds it now
                return built
    lines = done.stderr.splitlines() or ["?"]  # a linker's first line says what is wrong, a compiler's may come later
    message = next((line for line in lines if "error: " in line and not line.startswith("collect2")), lines[0])
    raise OSError(f"{compiler[0]} could not compile the kernels: {message}")


def _processor() -> bytes:
    """The instruction sets of this processor, for the cache key: machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return b""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "").encode()
