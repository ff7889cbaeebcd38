"""Where a record's numbers come from: the code and the machine."""

import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from memlayers import __version__


def code_version() -> dict[str, Any]:
    """The package version; in a git checkout also the commit, and a hash of uncommitted changes."""
    root = Path(__file__).parent.parent.parent
    code = ("memlayers", "conf", "scripts")

    def git(*arguments: str) -> str | None:
        if not (root / "conf").is_dir():  # installed, perhaps within a checkout of something else
            return None
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD")
    changes = git("status", "--porcelain", "--", *code)
    diff = None
    if changes:
        new = git("ls-files", "-z", "--others", "--exclude-standard", "--", *code) or ""
        contents = [(root / name).read_bytes() for name in new.split("\0") if (root / name).is_file()]
        text = b"\n".join([(git("diff", "HEAD", "--", *code) or "").encode(), new.encode(), *contents])
        diff = hashlib.sha256(text).hexdigest()[:12]
    return {
        "version": __version__,
        "commit": commit,
        "dirty": None if commit is None else bool(changes),
        "diff": diff,
    }


def machine(threads: int) -> dict[str, Any]:
    """The machine of a run, on which its seconds and, by processor and instruction set, its last digits depend."""
    import torch

    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """The processor's name from Linux, elsewhere the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
