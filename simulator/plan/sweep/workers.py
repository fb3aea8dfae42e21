"""Who computes a sweep: processes on this machine, or an existing Dask cluster, behind one interface."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from typing import Any, cast
from urllib.parse import urlsplit

from simulator.engine.base import Engine, plugins, register
from simulator.errors import EngineUnavailable, SimulatorError, Unreachable
from simulator.version import VERSION

__all__ = ["dask_cluster", "local_processes", "lost_workers"]

CONNECT_S = 10.0
KNOCK_S = 3.0
"""How long a scheduler's port may take to open: Dask itself would try again and again."""
SCHEMES = ("tcp", "tls")
RETRIES = 3
"""Times that Dask hands a point to another worker after an error of the cluster."""


def local_processes(workers: int | None = None) -> Callable[[], Executor]:
    """Makes a pool of `workers` processes, all cores by default; spawned, so it works the same everywhere."""
    count, spawn = workers or os.cpu_count() or 1, multiprocessing.get_context("spawn")
    # a spawned process knows the engines of this package alone
    return lambda: _Processes(count, spawn, initializer=_begin, initargs=(plugins(),))


class _Processes(ProcessPoolExecutor):
    """A pool whose workers leave Ctrl-C to us, from their first moment on."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # what is ignored as a process starts stays ignored in it; a worker would say a traceback each
        if threading.current_thread() is not threading.main_thread():
            return super().submit(fn, *args, **kwargs)
        ours = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.signal(signal.SIGINT, ours)


def _begin(found: tuple[Engine, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for flow in found:
        register(flow)


def _end_with_parent() -> None:
    """End this process when the one that made it ends, killed or not: its work is nobody's then."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def dask_cluster(address: str) -> Callable[[], Executor]:
    """Makes an executor on the Dask cluster whose scheduler listens at `address` (tcp://host:8786).

    Its workers need this package, of the same version. A worker that dies loses nothing: the scheduler hands
    its points to another. Raises EngineUnavailable without the extra `dask`; what it makes raises Unreachable
    where no scheduler or no worker answers, and SimulatorError for workers without this package.
    """
    try:
        import distributed
    except ImportError:
        raise EngineUnavailable(
            "--dask needs the extra `dask`: pip install 'lan-cluster-simulator[dask]', or leave --dask out"
        ) from None

    def connect() -> Executor:
        _knock(address)
        try:
            # Any: the library has no types
            client: Any = cast(Any, distributed).Client(address, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # whatever it makes of a stranger that speaks something else
            raise _no_scheduler(address, error) from None
        try:
            _check_workers(client, address)
        except BaseException:
            client.close()
            raise
        return _DaskExecutor(client)

    return connect


def _knock(address: str) -> None:
    """Raise SimulatorError for what is no address, and Unreachable where nothing listens."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in SCHEMES and parts.hostname and parts.port
    except ValueError:
        is_address = None
    if not is_address:
        raise SimulatorError(
            f"--dask is {address!r:.80} and must be the address of a scheduler, as tcp://192.168.1.20:8786"
        )
    try:
        socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=KNOCK_S).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no name server could be asked for
        raise _no_scheduler(address, error) from None


def _no_scheduler(address: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, or leave --dask "
        "out to use this machine's cores"
    )


def _check_workers(client: Any, address: str) -> None:
    """At least one worker, and all with our version of this package."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except (OSError, TimeoutError):
        raise Unreachable(
            f"the Dask scheduler at {address} has no worker; start one with `dask worker {address}`"
        ) from None
    try:
        versions = client.run(_version)
    except Exception as error:  # whatever a worker without the package makes of it
        raise SimulatorError(
            f"a worker of {address} cannot run this package ({error}); install it there"
        ) from None
    others = {where: version for where, version in versions.items() if version != VERSION}
    if others:
        where, version = next(iter(others.items()))
        raise SimulatorError(
            f"the worker {where} has version {version} of this package, and here it is {VERSION}; "
            "results would not be the same, so install the same version"
        )


def _version() -> str:
    # this function goes to a worker by its name, so it tells what is installed there
    from simulator.version import VERSION as ITS_VERSION

    return ITS_VERSION


class _DaskExecutor(Executor):
    """Dask's own executor, closed together with its client."""

    def __init__(self, client: Any) -> None:
        self.client, self.inner = client, client.get_executor(retries=RETRIES)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self.inner.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.inner.shutdown(wait=wait and not cancel_futures)
        self.client.close()


def lost_workers() -> tuple[type[BaseException], ...]:
    """The errors that say: workers, or the way to them, were lost; the points themselves are not to blame."""
    found: tuple[type[BaseException], ...] = (BrokenExecutor, CancelledError, ConnectionError)
    if "distributed" in sys.modules:
        from distributed import CancelledError as DaskCancelled
        from distributed import KilledWorker

        found += (KilledWorker, DaskCancelled)
    return found
