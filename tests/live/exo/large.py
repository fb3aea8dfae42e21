"""The recorded cluster of three nodes among many more: a state of two megabytes."""

from __future__ import annotations

from typing import Any

from tests.live.exo.fake import rest

__all__ = ["enlarged"]


def enlarged(nodes: int = 64) -> dict[str, Any]:
    """The recorded idle state as it would be with so many nodes: a full mesh, and what each has downloaded.

    The three recorded nodes and their edges stay as they are, so that what is placed on them goes as recorded.
    """
    raw: dict[str, Any] = rest("state_idle_3nodes")
    running = rest("state_running_min3")
    first = raw["topology"]["nodes"][0]
    more = [f"{number:032x}" for number in range(1, nodes - 2)]
    for key, value in raw.items():
        if isinstance(value, dict) and first in value:
            raw[key] = value | {one: _named(value[first], f"more-{at}") for at, one in enumerate(more)}
    listed = next(iter(running["downloads"].values()))
    raw["downloads"] |= dict.fromkeys(more, listed * 9)
    every = [*raw["topology"]["nodes"], *more]
    mesh = raw["topology"]["connections"]
    for source in every:
        known = mesh.setdefault(source, {})
        for at, sink in enumerate(every):
            if sink != source and sink not in known:
                known[sink] = [_edge(f"10.0.0.{at}")]
    raw["topology"]["nodes"] = every
    return raw


def _named(entry: Any, name: str) -> Any:
    return entry | {"friendlyName": name} if isinstance(entry, dict) and "friendlyName" in entry else entry


def _edge(ip: str) -> dict[str, Any]:
    address = {"address_type": "ip4", "port": 52415, "address": f"/ip4/{ip}/tcp/52415", "ip_address": ip}
    return {"sinkMultiaddr": address}
