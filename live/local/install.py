"""Build llama-cpp-python with its RPC backend once, keep the wheel, install it:
`python -m live.local.install`.

The wheels of the package index come without RPC, so it is built from source (gcc
or clang and CMake, minutes on two cores) for the processor at hand; the wheel is
kept per processor, because code built for one may not run on another.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from simulator.errors import EngineUnavailable, SimulatorError
from simulator.files.cache import cache_folder

__all__ = ["VERSION", "build", "cached_wheel", "install", "main"]

VERSION = "0.3.36"
CMAKE_ARGS = "-DGGML_RPC=ON -DLLAMA_CURL=OFF"
TAIL_LINES = 15
PIP = ("-P", "-m", "pip")  # -P: a folder called `pip` in the working directory is not pip


def _processor() -> str:
    """A short key of what this processor can execute."""
    described = f"{platform.machine()} {platform.processor()}"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        described += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return sha256(described.encode()).hexdigest()[:12]


def wheel_folder() -> Path:
    """Where the wheel for this version, Python and processor lies."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return cache_folder("wheels") / f"llama-cpp-python-{VERSION}-{python}-{_processor()}"


def cached_wheel() -> Path | None:
    """The wheel that an earlier build left, if any."""
    return next(iter(sorted(wheel_folder().glob("llama_cpp_python-*.whl"))), None)


def build(jobs: int | None = None) -> Path:
    """The wheel: the cached one, else built now; raises EngineUnavailable with the end of the log."""
    found = cached_wheel()
    if found is not None:
        return found
    _require_tools()
    folder = wheel_folder()
    # renamed when whole: an interrupted build leaves no wheel
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    parallel = str(jobs or os.cpu_count() or 2)
    environment = os.environ | {"CMAKE_ARGS": CMAKE_ARGS, "CMAKE_BUILD_PARALLEL_LEVEL": parallel}
    # pip's own cache does not tell builds with RPC from builds without, so it is left out
    command = [
        sys.executable,
        *PIP,
        "wheel",
        "--no-cache-dir",
        "--no-deps",
        "--no-binary",
        "llama-cpp-python",
        "--wheel-dir",
        str(fresh),
        f"llama-cpp-python=={VERSION}",
        "--verbose",
    ]
    log = cache_folder("wheels") / "build.log"
    try:
        with log.open("wb") as out:
            done = subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise EngineUnavailable(_build_failed(log))
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    built = cached_wheel()
    assert built is not None
    return built


def install() -> Path:
    """Install the wheel into the running Python, built first if need be; returns the wheel."""
    wheel = build()
    command = [sys.executable, *PIP, "install", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-TAIL_LINES:])
        raise EngineUnavailable(
            f"pip could not install {wheel.name}:\n{tail}\nmend what it says and run this again"
        )
    return wheel


def _require_tools() -> None:
    """Refuse early, by name, what the build cannot do without."""
    compiler = os.environ.get("CXX") or next(
        (name for name in ("c++", "g++", "clang++") if shutil.which(name)), None
    )
    if compiler is None or shutil.which(compiler) is None:
        raise EngineUnavailable(
            f"no C++ compiler ({compiler or 'c++, g++ or clang++'}) on the PATH, and llama.cpp is built "
            "from source; install one (Debian, Ubuntu: apt-get install build-essential; macOS: "
            "xcode-select --install) and run `sim live local install` again; all of `sim` but the local "
            "cluster works without it"
        )


def _build_failed(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    tail = "\n".join(f"  {line[:200]}" for line in lines[-TAIL_LINES:])
    return (
        f"llama-cpp-python {VERSION} did not build; the log ends with\n{tail}\nthe whole log is {log}; mend "
        "what "
        "it names and run `sim live local install` again; all of `sim` but the local cluster works without it"
    )


def main() -> int:
    """Build if needed and install; prints where the wheel came from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--build-only", action="store_true", help="make the wheel and leave the Python as it is"
    )
    arguments = parser.parse_args()
    try:
        was_cached = cached_wheel() is not None
        wheel = build() if arguments.build_only else install()
    except SimulatorError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{'cached' if was_cached else 'built'}: {wheel}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
