"""What limits a chat: the largest part of a token's time, as one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from simulator.cluster.cluster import Cluster
from simulator.result.critical import PathShare
from simulator.result.estimate import rounded
from simulator.spec import Spec

__all__ = ["Bottleneck", "bottleneck"]

MOST_NAMED = 3
"""Parts that are named with how often they are the limit."""
LEAST_SHOWN = 0.005
ALL_HOPS = "all hops"


class Bottleneck(Spec):
    """The largest part of a token's time."""

    kind: Literal["compute", "hop", "network", "queue"]
    """compute: a device's layers and head; hop: one direction of one connection; network: all hops together;
    queue: waiting for one's turn on a device that other chats keep busy."""
    where: str
    share: float
    sentence: str
    device: str | None = None
    """The device to improve: the slow one, or the end of the hop with the slower link."""
    worlds: dict[str, float] = {}
    """Share of the worlds in which each part is the largest, most frequent first; empty if not counted."""

    @property
    def over_worlds(self) -> str:
        """How often which part is the limit, in words; '' where it was not counted."""
        if len(self.worlds) < 2:
            return "".join(f"{_name(where)} is the limit in every world" for where in self.worlds)
        named = list(self.worlds.items())[:MOST_NAMED]
        rest = 1 - sum(share for _, share in named)
        shown = [(_name(where), share) for where, share in named] + [("others", rest)]
        often = [f"{name} in {share:.0%}" for name, share in shown if share >= LEAST_SHOWN]
        return ", ".join(often).replace(" in ", " is the limit in ", 1).replace("%", "% of the worlds", 1)


def bottleneck(shares: Iterable[PathShare], cluster: Cluster) -> Bottleneck:
    """The largest of: each device's work, each hop, and all hops together when no single one stands out."""
    devices: dict[str, float] = {}
    hops: dict[str, float] = {}
    queues: dict[str, float] = {}
    for part in shares:
        group = hops if " -> " in part.where else queues if part.kind == "queue" else devices
        group[part.where] = group.get(part.where, 0.0) + part.share
    network = sum(hops.values())
    device, hop = max(devices, key=devices.__getitem__), max(hops, key=hops.__getitem__, default="")
    queue = max(queues, key=queues.__getitem__, default="")
    if queue and queues[queue] > max(devices[device], network):
        share = rounded(queues[queue])
        return Bottleneck(
            kind="queue",
            where=queue,
            share=share,
            device=queue,
            sentence=f"{share:.0%} of a token's time waits for its turn on {queue}, busy with other chats",
        )
    # no hop stands out: to name the largest would hide that the others cost as much together
    if hops and network > 0.5 and hops[hop] < network / 2:
        return _network(hops, network, cluster)
    if hops and hops[hop] > devices[device]:
        return _hop(hop, hops[hop], cluster)
    busy = rounded(devices[device])
    return Bottleneck(
        kind="compute",
        where=device,
        share=busy,
        device=device,
        sentence=f"{busy:.0%} of a token's time is {device} ({cluster.device(device).kind}) computing its "
        "layers",
    )


def _name(where: str) -> str:
    return "the network" if where == ALL_HOPS else where


def _hop(hop: str, share: float, cluster: Cluster) -> Bottleneck:
    ends = hop.split(" -> ")
    # the hop is as slow as its slower side, and that is what can be mended
    slow = max(ends, key=lambda name: cluster.device(name).link.delay.mean_s)
    (other,) = set(ends) - {slow}
    kind = cluster.kind_at(slow, other)
    return Bottleneck(
        kind="hop",
        where=hop,
        share=rounded(share),
        device=slow,
        sentence=f"{share:.0%} of a token's time waits for the hop {hop} ({kind})",
    )


def _network(hops: dict[str, float], share: float, cluster: Cluster) -> Bottleneck:
    """All hops together; the device to improve is the one whose hops cost most."""
    by_device: dict[str, float] = {}
    for hop, part in hops.items():
        # a slow link delays what comes and what goes, so a hop counts for both of its ends
        for end in hop.split(" -> "):
            by_device[end] = by_device.get(end, 0.0) + part
    worst = max(by_device, key=by_device.__getitem__)
    ends = (set(hop.split(" -> ")) for hop in hops)
    kinds = dict.fromkeys(cluster.kind_at(worst, *(pair - {worst})) for pair in ends if worst in pair)
    return Bottleneck(
        kind="network",
        where=ALL_HOPS,
        share=rounded(share),
        device=worst,
        sentence=f"{share:.0%} of a token's time waits for messages; most of them to or from {worst} "
        f"({', '.join(kinds)})",
    )
