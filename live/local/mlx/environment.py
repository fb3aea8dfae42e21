"""The environment of MLX: a virtual environment in the user's cache folder, never the one that `sim` runs in.

One for each set of pins and each Python, so that a new version neither breaks nor waits for the old one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from simulator.errors import EngineUnavailable
from simulator.files.cache import cache_folder

__all__ = ["install", "is_installed", "preload", "python", "rank_environment", "require", "versions"]

PINS = Path(__file__).with_name("pins.txt")
POLL = Path(__file__).with_name("poll.c")
READY = "ready"
TAIL_LINES = 15
WAY_OUT = "install it with `sim live local install --engine mlx` (70 MB, in your cache folder)"
PROBE = "import mlx.core, mlx.nn; mlx.core.distributed.is_available('ring') or exit(3)"


def _folder(pins: str) -> Path:
    key = f"{pins} {sys.version_info[:2]} {sys.platform}"
    return cache_folder("engines") / f"mlx-{sha256(key.encode()).hexdigest()[:12]}"


def _home() -> Path:
    return _folder(PINS.read_text(encoding="utf-8"))


def python() -> Path:
    """The Python that has MLX; see `require`."""
    return _home() / "bin" / "python"


def is_installed() -> bool:
    """Whether the environment is there; starts nothing."""
    return (_home() / READY).exists()


def require() -> None:
    """Raise EngineUnavailable, with the way out, unless the environment is there."""
    if not is_installed():
        raise EngineUnavailable(
            f"the local MLX cluster needs mlx, which is not installed for it; {WAY_OUT}; the rest of `sim` "
            "works without it"
        )


def install() -> Path:
    """The environment's folder: the one that is there, else made now; raises EngineUnavailable."""
    home = _home()
    if is_installed():
        return home
    # built where it stays, for a virtual environment cannot be moved; what an interruption left goes first
    shutil.rmtree(home, ignore_errors=True)
    log = cache_folder("engines") / "mlx.log"
    pip = [str(home / "bin" / "python"), "-P", "-m", "pip", "install", "--no-deps", "-r", str(PINS)]
    with log.open("wb") as out:
        for command in (
            [sys.executable, "-P", "-m", "venv", str(home)],
            pip,
            [str(home / "bin" / "python"), "-P", "-c", PROBE],
        ):
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode:
                raise EngineUnavailable(_failed(command, log))
    (home / READY).write_text("", encoding="utf-8")
    return home


def _failed(command: list[str], log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    tail = "\n".join(f"  {line[:200]}" for line in lines[-TAIL_LINES:])
    return (
        f"the environment of MLX could not be made: `{' '.join(command[1:4])} ...` ended with\n{tail}\nthe "
        f"whole log is {log}; mend what it names (MLX has no wheels for every Python: 3.11 to 3.13 are safe) "
        "and run `sim live local install --engine mlx` again; all of `sim` but the local MLX cluster works "
        "without it"
    )


def versions() -> dict[str, str]:
    """The versions that are pinned, by package."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    found = [
        re.match(r"([\w-]+)==([\w.]+)", line) for line in lines if sys.platform in line or ";" not in line
    ]
    return {one[1]: one[2] for one in found if one}


@cache
def preload() -> Path | None:
    """The library that lets a waiting rank sleep, compiled at first use; None without a C compiler."""
    compiler = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), None
    )
    if sys.platform != "linux" or compiler is None:
        return None
    library = _home() / f"poll-{sha256(POLL.read_bytes()).hexdigest()[:12]}.so"
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
