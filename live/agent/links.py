"""The asking side: every agent measures its link to every other one; the samples go into a Measurement file.

Each `link` event holds `source sink size_bytes rtt_ns loaded`: the time for `size_bytes` to go and as many to
come back. Each `link_rate` event holds `source sink bytes_per_s seconds`: what the receiver counted. Each
`speed` event holds `device memory_bytes_per_s disk_bytes_per_s`, as far as the agent could measure them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

from live.agent.pairing import WireError
from live.agent.peers import ANSWER_S, Address, Peer, key_of, meet_all
from live.agent.probe import MAX_SIZE_BYTES, WARM_UP
from live.agent.told import printable
from live.agent.wire import VERSION, AgentConnection, ask
from simulator.errors import LiveError, Unreachable
from simulator.result.measurement import DeviceProvenance, MeasurementWriter, Provenance

__all__ = ["LinkTestPlan", "Links", "measure_links"]

MOST = 1e18  # bytes, seconds, nanoseconds: more is no measurement

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LinkTestPlan:
    """What is measured on each directed link; 16,384 bytes are one token's hidden state
    of a 70B Llama in 16 bits.
    """

    sizes_bytes: tuple[int, ...] = (4, 16_384)
    seconds: float = 5.0
    interval_s: float = 0.01
    loaded: bool = True
    rate_seconds: float = 2.0
    speed_seconds: float = 0.0
    """how long each device measures its memory and its disk before, 0 for not at all"""

    def __post_init__(self) -> None:
        wrong = [size for size in self.sizes_bytes if not 1 <= size <= MAX_SIZE_BYTES]
        if wrong or not self.sizes_bytes:
            raise LiveError(f"message sizes {self.sizes_bytes} must be from 1 to {MAX_SIZE_BYTES} bytes")
        if self.speed_seconds and not 0.05 <= self.speed_seconds <= 60:
            raise LiveError(f"{self.speed_seconds} s per device must be 0, or from 0.05 to 60 s")
        if not 0.05 <= self.seconds <= 3600 or not 0.05 <= self.rate_seconds <= 3600:
            raise LiveError(f"{self.seconds} s per link and size must be from 0.05 to 3600 s")


@dataclass(slots=True)
class Links:
    """What was measured: round trips (ns) by (source, sink, size, loaded), and rates
    (bytes/s) by (source, sink).
    """

    peers: tuple[Peer, ...]
    rtt_ns: dict[tuple[str, str, int, bool], list[int]] = field(default_factory=dict)
    bytes_per_s: dict[tuple[str, str], float] = field(default_factory=dict)
    speeds: dict[str, dict[str, float]] = field(default_factory=dict)
    """by device: memory_bytes_per_s (copied by all cores), disk_bytes_per_s"""
    warnings: list[str] = field(default_factory=list)


def _peers(addresses: Sequence[Address], token: str, links_warnings: list[str]) -> tuple[Peer, ...]:
    """All agents that answer, with unique names; raises Unreachable when fewer than two do."""
    found: list[Peer] = []
    faults: list[str] = []
    if addresses:
        key_of(token)  # wrong for all of them alike
    for met in meet_all(tuple(dict.fromkeys(addresses)), token):
        if isinstance(met, LiveError):
            faults.append(str(met))
            continue
        taken = {peer.name for peer in found}
        clean = met.name[:60] or "unnamed"
        # two phones of one model call themselves alike, and a file needs names that differ
        found.append(replace(met, name=next(name for name in _names(clean) if name not in taken)))
    if len(found) < 2:
        raise Unreachable("\n".join([*faults, _too_few(len(found), bool(addresses))]))
    links_warnings.extend(faults)
    return tuple(found)


def _too_few(count: int, any_known: bool) -> str:
    cause = "" if any_known else "none was named with --agents, and none announced itself by mDNS; "
    return (
        f"{count} agents answer; a link needs two: {cause}start `sim live agent --listen ADDRESS` with the "
        "same LANSIM_TOKEN on two devices or more, then name them: --agents HOST:PORT,HOST:PORT"
    )


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{count}" for count in range(2, 1000))


def measure_links(
    addresses: Sequence[Address],
    token: str,
    plan: LinkTestPlan,
    out: Path,
    progress: Progress = lambda text: None,
) -> Links:
    """Measure every directed link, one after the other so that none disturbs another, and
    store the samples in `out`.

    Samples are on disk as soon as they arrive. A link that fails is a warning, not the end. Raises
    Unreachable when fewer than two agents answer, LiveError for a token that is too short.
    """
    warnings: list[str] = []
    links = Links(_peers(addresses, token, warnings), warnings=warnings)
    with MeasurementWriter(out, _provenance(links.peers, plan)) as file:
        for text in warnings:
            file.warn(text)
        for peer in links.peers if plan.speed_seconds else ():
            progress(f"{peer.name}: memory and disk")
            links.speeds[peer.name] = _speed(peer, token, plan.speed_seconds)
            file.write("speed", device=peer.name, **links.speeds[peer.name])
        # both directions: a link may be slow in one only, as a phone that sends is
        for source, sink in permutations(links.peers, 2):
            try:
                with ask(*source.address, key_of(token)) as session:
                    _measure_link(session, source, sink, plan, links, file, progress)
            except WireError as error:
                text = f"{source.name} -> {sink.name}: not measured: {error}"
                warnings.append(text)
                file.warn(text)
                progress(text)
    return links


SPEEDS = (
    ("memory", "all_threads_bytes_per_s", "memory_bytes_per_s"),
    ("disk", "bytes_per_s", "disk_bytes_per_s"),
)


def _speed(peer: Peer, token: str, seconds: float) -> dict[str, float]:
    """What the agent measures of its own device; an agent without a model file has no disk rate."""
    found = {}
    for operation, key, name in SPEEDS:
        with contextlib.suppress(WireError), ask(*peer.address, key_of(token)) as session:
            session.send({"op": operation, "seconds": seconds})
            found[name] = _answer(session.receive(seconds + ANSWER_S), key)[key]
    return found


def _measure_link(
    session: AgentConnection,
    source: Peer,
    sink: Peer,
    plan: LinkTestPlan,
    links: Links,
    file: MeasurementWriter,
    progress: Progress,
) -> None:
    """All sizes idle, then the rate, then all sizes again while the link is full."""
    to_sink = {"host": sink.host, "port": sink.address[1]}

    def trips(*, loaded: bool) -> None:
        for size in plan.sizes_bytes:
            progress(f"{source.name} -> {sink.name}: {size} bytes{', link full' if loaded else ''}")
            samples = links.rtt_ns.setdefault((source.name, sink.name, size, loaded), [])
            asked = {"op": "trips", **to_sink, "size_bytes": size, "seconds": plan.seconds}
            session.send({**asked, "interval_s": plan.interval_s, "loaded": loaded})
            where = {"source": source.name, "sink": sink.name, "size_bytes": size, "loaded": loaded}
            for batch in _batches(session, plan):
                samples.extend(batch)
                for rtt_ns in batch:
                    file.write("link", **where, rtt_ns=rtt_ns)

    # idle first: a full link needs time to drain
    trips(loaded=False)
    progress(f"{source.name} -> {sink.name}: rate")
    session.send({"op": "rate", **to_sink, "seconds": plan.rate_seconds})
    answer = _answer(session.receive(plan.rate_seconds + ANSWER_S), "bytes", "seconds")
    if answer["seconds"] > 0:
        links.bytes_per_s[source.name, sink.name] = rate = answer["bytes"] / answer["seconds"]
        file.write(
            "link_rate", source=source.name, sink=sink.name, bytes_per_s=rate, seconds=answer["seconds"]
        )
    if plan.loaded:
        trips(loaded=True)


def _answer(message: dict[str, object], *keys: str) -> dict[str, float]:
    """The numbers of a message; raises WireError with the agent's own words where it
    refused, or without `keys`.
    """
    if "error" in message:
        raise WireError(printable(str(message["error"]), 300))
    numbers = {
        key: float(value)
        for key, value in message.items()
        if isinstance(value, int | float) and 0 <= value <= MOST
    }
    if not all(key in numbers for key in keys):
        raise WireError(f"an answer without {' and '.join(keys)}; use one version everywhere")
    return numbers


def _batches(session: AgentConnection, plan: LinkTestPlan) -> Iterator[list[int]]:
    """What the agent sends until it is done; raises WireError for nonsense, and for going on after that."""
    end_s = time.monotonic() + plan.seconds + ANSWER_S + 2 * plan.interval_s
    while time.monotonic() < end_s:
        message = session.receive(ANSWER_S + 2 * plan.interval_s)
        if "done" in message:
            return
        _answer(message)
        batch = message.get("rtt_ns")
        if not isinstance(batch, list) or not all(
            isinstance(value, int) and 0 < value <= MOST for value in batch
        ):
            raise WireError("round trips that are no positive integers")
        yield batch
    raise WireError(f"it goes on after {plan.seconds:g} s")


def _provenance(peers: tuple[Peer, ...], plan: LinkTestPlan) -> Provenance:
    devices = tuple(
        DeviceProvenance(
            name=peer.name,
            chip=peer.facts.chip or "unknown",
            os=peer.facts.system or "unknown",
            memory_bytes=peer.facts.memory_total_bytes,
            link_kind=peer.facts.link_kind,
            power_source={True: "battery", False: "mains", None: "unknown"}[peer.facts.power.on_battery],
            details={"facts": peer.facts.as_dict(), "address": f"{peer.address[0]}:{peer.address[1]}"},
        )
        for peer in peers
    )
    # No model runs: the fields of a token measurement are empty here.
    return Provenance(
        name="links",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source="agent",
        engine="links",
        engine_version=str(VERSION),
        model="none",
        model_layers=0,
        devices=devices,
        placement=(),
        prompt_tokens=0,
        output_tokens=0,
        runs=1,
        warm_up_requests=WARM_UP,
        clock=f"monotonic, of the source agent ({time.get_clock_info('perf_counter').implementation} here)",
        cluster={
            "links": {
                "sizes_bytes": list(plan.sizes_bytes),
                "seconds": plan.seconds,
                "interval_s": plan.interval_s,
                "loaded": plan.loaded,
            }
        },
    )
