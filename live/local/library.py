"""llama.cpp through ctypes: the few functions that llama-cpp-python does not wrap, and
one clear error without it.

Everything here may abort the whole process when the C++ code asserts, so only child
processes import the library.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from simulator.errors import EngineUnavailable

__all__ = ["is_installed", "llama", "require", "rpc_device", "serve", "version", "versions"]

WAY_OUT = (
    "install it with `sim live local install` (builds llama-cpp-python with RPC from source: needs a C++ "
    "compiler and takes some minutes); the rest of `sim` works without it"
)


def _package_folder() -> Path | None:
    found = importlib.util.find_spec("llama_cpp")
    return Path(found.origin).parent if found is not None and found.origin else None


def _library_file(stem: str) -> Path:
    folder = _package_folder()
    if folder is None:
        raise EngineUnavailable(
            f"the local cluster needs llama-cpp-python, which is not installed; {WAY_OUT}"
        )
    ending = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    # Windows names its libraries without lib
    for name in (f"lib{stem}{ending}", f"{stem}{ending}"):
        if (folder / "lib" / name).exists():
            return folder / "lib" / name
    raise EngineUnavailable(
        f"the installed llama-cpp-python was built without RPC (no {stem} library in {folder.name}/lib); "
        f"{WAY_OUT}"
    )


def is_installed() -> bool:
    """Whether llama-cpp-python with RPC is there; loads nothing."""
    try:
        require()
    except EngineUnavailable:
        return False
    return True


def require() -> None:
    """Raise EngineUnavailable, with the way out, unless llama-cpp-python with RPC is there; loads nothing."""
    _library_file("ggml-rpc")


def version() -> str:
    """Version of llama-cpp-python, 'unknown' when it is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of_package

    try:
        return of_package("llama-cpp-python")
    except PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """The versions of what was installed for it, by package."""
    return {"llama-cpp-python": version()}


@cache
def _rpc() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_file("ggml-rpc")))
    # types by hand: ctypes takes a result for a 32-bit integer, and half a pointer crashes
    library.ggml_backend_rpc_start_server.restype = None
    library.ggml_backend_rpc_start_server.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
    ]
    library.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    library.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    return library


@cache
def _base() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_file("ggml-base")))
    library.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return library


def serve(endpoint: str, threads: int) -> None:
    """Serve this machine's processor at `endpoint` (host:port), one client after the
    other; returns only on failure.
    """
    library = ctypes.CDLL(str(_library_file("ggml-cpu")))
    library.ggml_backend_cpu_reg.restype = ctypes.c_void_p
    # the processor: a laptop with a GPU would otherwise offer that, and throttles would not hold it
    device = ctypes.c_void_p(_base().ggml_backend_reg_dev_get(library.ggml_backend_cpu_reg(), 0))
    devices = (ctypes.c_void_p * 1)(device)
    _rpc().ggml_backend_rpc_start_server(endpoint.encode(), None, threads, 1, devices)


def rpc_device(endpoint: str) -> int:
    """Connect to the server at `endpoint` and return its first device as a pointer;
    aborts if nothing answers.
    """
    registry = _rpc().ggml_backend_rpc_add_server(endpoint.encode())
    if not registry:
        raise EngineUnavailable(f"the server at {endpoint} offers no device; start it with one")
    return int(_base().ggml_backend_reg_dev_get(registry, 0))


@cache
def llama() -> Any:
    """The low-level module of llama-cpp-python (loads the library)."""
    require()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else an abort starts a debugger, which takes seconds
    from llama_cpp import llama_cpp

    return llama_cpp
