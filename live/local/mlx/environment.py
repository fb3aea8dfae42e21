"""The environment of MLX, and what a rank finds in its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from live.local.venv import EngineEnvironment

__all__ = ["MLX", "preload", "rank_environment"]

POLL = Path(__file__).with_name("poll.c")
MLX = EngineEnvironment(
    engine="mlx",
    title="MLX",
    pins=Path(__file__).with_name("pins.txt"),
    probe="import mlx.core, mlx.nn; mlx.core.distributed.is_available('ring') or exit(3)",
    size="70 MB",
    advice="MLX has no wheels for every Python: 3.11 to 3.13 are safe",
)


@cache
def preload() -> Path | None:
    """The library that lets a waiting rank sleep, compiled at first use; None without a C compiler."""
    compiler = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), None
    )
    if sys.platform != "linux" or compiler is None:
        return None
    library = MLX.home / f"poll-{sha256(POLL.read_bytes()).hexdigest()[:12]}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(fresh), str(POLL), "-ldl"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        fresh.replace(library)
    return library


def rank_environment(rank: int, hosts: Path) -> dict[str, str]:
    """What a rank finds in its environment: who it is, where its neighbours listen, one thread."""
    own = {
        "MLX_RANK": str(rank),
        "MLX_HOSTFILE": str(hosts),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    library = preload()
    return os.environ | own | ({"LD_PRELOAD": str(library)} if library else {})
