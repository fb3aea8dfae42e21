"""How fast this device copies memory and reads a model file, with nothing but the standard library."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

__all__ = ["disk_read", "memory_copy"]

# two of them per thread: more than the caches of phones and laptops, at most 512 MiB in all
COPY_BYTES = 32 << 20
READ_BLOCK_BYTES = 4 << 20
READ_LIMIT_BYTES = 2 << 30
F_NOCACHE = 48  # fcntl command of macOS (sys/fcntl.h); the fcntl module does not name it


def memory_copy(
    seconds: float = 2.0, threads: int | None = None, size_bytes: int = COPY_BYTES
) -> dict[str, float]:
    """Memory bandwidth (bytes/s) by copying blocks, read and write counted, as STREAM's copy counts.

    bandwidth = 2 * bytes copied / time; once with one thread, once with all (at most 8). It is a lower bound
    of what a GPU sees: CPU cores alone seldom reach the limit of the memory of an Apple chip.
    """
    # at most eight: two blocks for each are enough to ask of a phone
    count = min(threads or os.cpu_count() or 1, 8)
    return {
        "one_thread_bytes_per_s": _copy_rate(1, seconds / 2, size_bytes),
        "all_threads_bytes_per_s": _copy_rate(count, seconds / 2, size_bytes),
        "threads": float(count),
    }


def _copy_rate(threads: int, seconds: float, size_bytes: int) -> float:
    """Bytes per second moved by `threads` copying at the same time."""
    start, moved = threading.Barrier(threads + 1), [0.0] * threads

    def copy(index: int) -> None:
        source, target = (ctypes.create_string_buffer(size_bytes) for _ in range(2))
        ctypes.memset(source, 1, size_bytes)  # touch every page: an untouched one is not in memory yet
        ctypes.memset(target, 2, size_bytes)
        start.wait()
        begin_s, rounds = time.perf_counter(), 0
        while time.perf_counter() - begin_s < seconds:
            # ctypes lets go of the interpreter lock, bytes slices do not
            ctypes.memmove(target, source, size_bytes)
            rounds += 1
        moved[index] = 2.0 * rounds * size_bytes / (time.perf_counter() - begin_s)

    workers = [threading.Thread(target=copy, args=(index,), daemon=True) for index in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    for worker in workers:
        worker.join()
    return sum(moved)


def disk_read(path: Path, seconds: float = 5.0) -> dict[str, float | bool]:
    """Sequential read rate (bytes/s) of a file, past the page cache where the system lets us.

    rate = bytes read / time, over at most 2 GiB or `seconds`. `uncached` says whether the cache was really
    avoided. Raises OSError when the file cannot be read.
    """
    view = memoryview(bytearray(READ_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        uncached = _avoid_cache(file.fileno())
        begin_s, count = time.perf_counter(), 0
        while count < READ_LIMIT_BYTES and time.perf_counter() - begin_s < seconds:
            read = file.readinto(view)
            if not read:
                break
            count += read
        elapsed_s = time.perf_counter() - begin_s
    rate = count / elapsed_s if elapsed_s > 0 else 0.0
    return {"bytes_per_s": rate, "bytes": float(count), "uncached": uncached}


def _avoid_cache(descriptor: int) -> bool:
    """Drop the file from the page cache (Linux, Android) or read past it (macOS);
    whether that was possible.
    """
    try:
        if sys.platform == "darwin":
            import fcntl  # not on every platform

            fcntl.fcntl(descriptor, F_NOCACHE, 1)
            return True
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return True
    except OSError:
        return False
    return False
