"""A lease on a cluster: two `sim live run` must not measure each other.

EXO knows no leases, and takes every request. What all can see are instances, whose ids their makers choose:
ours say that a `sim live run` made them, and when. EXO's master puts all events in one order, and instances
stand in the state in the order in which they were made, so two that place at the same moment both see who was
first. On one machine a locked file tells earlier, and also of runs that place nothing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from uuid import UUID

from live.errors import ClusterBusy
from live.exo.state import ClusterState, StateInstance
from simulator.files.cache import cache_folder

__all__ = ["came_first", "host_lock", "lease_age_s", "marked", "new_lease", "who"]

MARK = b"simliv"  # the first six bytes of our instances' ids, as text in any dump of them


def new_lease() -> str:
    """An id for an instance of ours: a UUID of version 8 (RFC 9562, free use) that begins with our mark and
    ends with the time (s, Unix).

    >>> lease_age_s(new_lease()) < 5
    True
    """
    free = secrets.token_bytes(6)
    # Python's `uuid` makes no version 8 before 3.14, so its bits and those of the variant are set here
    free = bytes([free[0] & 0x0F | 0x80, free[1], free[2] & 0x3F | 0x80]) + free[3:]
    return str(UUID(bytes=MARK + free + int(time.time()).to_bytes(4, "big")))


def lease_age_s(instance_id: str) -> float | None:
    """How long ago a `sim live run` made this instance (s, by its own clock); None where another program did.

    >>> lease_age_s("dc625420-4aaa-4b9e-82aa-53bc2e93082c") is None
    True
    """
    try:
        body = UUID(instance_id).bytes
    except ValueError:
        return None
    return max(0.0, time.time() - int.from_bytes(body[12:], "big")) if body.startswith(MARK) else None


def marked(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The tagged instance `raw` under an id that says that it is ours, in the casing in which it came."""
    ((tag, body),) = raw.items()
    key = "instanceId" if "instanceId" in body else "instance_id"
    return {tag: {**body, key: new_lease()}}


def who(instance: StateInstance) -> str:
    """The instance in words: whose it is, as far as its id tells."""
    age_s = lease_age_s(instance.instance_id)
    told = f"instance {instance.instance_id[:8]} of {instance.model_id}"
    return told if age_s is None else f"{told} (made by a `sim live run` {age_s / 60:.0f} min ago)"


def came_first(state: ClusterState, mine: str) -> tuple[StateInstance, ...]:
    """The instances that the master made before `mine`."""
    ids = list(state.instances)
    before = ids[: ids.index(mine)] if mine in ids else ids
    return tuple(state.instances[one] for one in before)


@contextmanager
def host_lock(names: Iterable[str]) -> Iterator[None]:
    """Hold one file for each of `names` (ids of a cluster's nodes); raises ClusterBusy where another process
    of this user holds one. The system lets go of them when the process ends, however that is.
    """
    held: list[IO[str]] = []
    folder = cache_folder("locks")
    try:
        for name in sorted(names):
            held.append((folder / f"{''.join(filter(str.isalnum, name))[:64]}.lock").open("a+"))
            if not _locked(held[-1]):
                held[-1].seek(0)
                holder = held[-1].read(20).strip() or "unknown"
                raise ClusterBusy(
                    f"another `sim live run` of this machine (process {holder}) uses this cluster; wait "
                    "until it ends, or say --allow-busy (both then measure each other)"
                )
            held[-1].truncate(0)
            held[-1].write(str(os.getpid()))
            held[-1].flush()
        yield
    finally:
        for file in held:
            file.close()


def _locked(file: IO[str]) -> bool:
    """Whether the file is ours now."""
    try:
        import fcntl
    except ImportError:  # Windows: the visible mark has to do
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
