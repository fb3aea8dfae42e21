"""EXO 0.0.x broadcasts a JSON datagram every 2.5 s on UDP port 5678; listening is
enough and disturbs nobody.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from live.discover.found import LEGACY, FoundDevice, clean
from live.number import finite

__all__ = ["PORT", "capabilities", "listen", "open_socket", "parse"]

PORT = 5678
MAX_DATAGRAM_BYTES = 4096  # a real one has about 280
MAX_NODES = 256
SOURCE = "legacy broadcast"
KINDS = {"wifi": "wifi", "ethernet": "ethernet", "thunderbolt": "thunderbolt"}
MIB = 2.0**20


def parse(packet: bytes, source: str) -> FoundDevice | None:
    """The node that sent `packet` from address `source`, or None for anything else."""
    # one byte more was asked for than is allowed, so that a longer one shows
    if len(packet) > MAX_DATAGRAM_BYTES:
        return None
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") != "discovery":
        return None
    node_id = clean(message.get("node_id"), 100)
    device = message.get("device_capabilities")
    if not node_id or not isinstance(device, dict):
        return None
    return FoundDevice(
        node_id=node_id,
        generation=LEGACY,
        addresses=(source,),
        link_kind=_kind(message.get("interface_type")),
        seen_by=(SOURCE,),
        **capabilities(node_id, device),
    )


def capabilities(node_id: str, device: dict[str, Any]) -> dict[str, Any]:
    """Fields of `FoundDevice` from a legacy description: memory is the total in MiB, flops are in TFLOPS."""
    flops = device.get("flops")
    half = flops.get("fp16") if isinstance(flops, dict) else None
    return {
        "name": node_id,
        "chip": clean(device.get("chip")),
        "memory_total_bytes": _scaled(device.get("memory"), MIB),
        "flop_per_s": _scaled(half, 1e12),
    }


def _scaled(value: object, factor: float) -> float | None:
    """A believable positive number times `factor`; chips that EXO does not know have 0
    flops, which means unknown.
    """
    number = finite(value)
    return number * factor if number is not None and 0 < number < 1e12 else None


def _kind(name: object) -> str:
    return KINDS.get(name.lower(), "unknown") if isinstance(name, str) else "unknown"


def open_socket(port: int = PORT, address: str = "") -> socket.socket:
    """A socket that hears the broadcasts; raises OSError when a legacy node of this machine has the port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


def listen(listener: socket.socket, seconds: float) -> tuple[FoundDevice, ...]:
    """All nodes that broadcast within `seconds`; each sends every 2.5 s, twice per interface."""
    end_s = time.monotonic() + seconds
    found: dict[str, FoundDevice] = {}
    while (left_s := end_s - time.monotonic()) > 0:
        listener.settimeout(left_s)
        try:
            packet, (source, _) = listener.recvfrom(MAX_DATAGRAM_BYTES + 1)
        except OSError:
            continue
        node = parse(packet, source)
        if node and (node.node_id in found or len(found) < MAX_NODES):
            found[node.node_id] = node
    return tuple(found.values())
